"""A training by FSDP in processes of the CPU: ``driver_fsdp.py <steps> key=value ...``.

It is interrupted after so many steps and goes on. The environment is that of the command in docs/cluster.md. accelerate
shards on GPUs alone; here its state is told that it does.
"""

import os
import sys
from typing import Any

from accelerate import FullyShardedDataParallelPlugin, PartialState
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_multi_gpu_env
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from trainings import interrupt_after

from vidgen_core import train
from vidgen_core.config import compose
from vidgen_core.training.machine import end_processes
from vidgen_core.training.sharding import UNITS

command = "--use_fsdp --fsdp_version 2 --num_processes 2 --num_machines 1 --main_process_port 0"
settled = "--mixed_precision no --dynamo_backend no"  # what the launcher asks the machine for
launched = prepare_multi_gpu_env(launch_command_parser().parse_args([*command.split(), *settled.split(), "train"]))
os.environ.update({key: value for key, value in launched.items() if key.startswith("FSDP_")})

plain, whole = train.make_accelerator, train.optimise


def sharding(*args: Any) -> Any:
    if PartialState._shared_state:  # of the training before
        PartialState._shared_state.update(distributed_type=DistributedType.MULTI_CPU)
    accelerator = plain(*args)
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()  # as an Accelerator makes it of the environment
    accelerator.state.distributed_type = DistributedType.FSDP
    PartialState._shared_state.update(distributed_type=DistributedType.FSDP)
    return accelerator


def checked(*args: Any, **more: Any) -> Any:
    """Before a step: only what trains is spread, and layers over time are gathered by themselves."""
    learner = args[0]
    assert not any(isinstance(p, DTensor) for part in learner.frozen for p in part.parameters())
    spread = [module for module in learner.modules() if isinstance(module, FSDPModule)]
    assert len(spread) > 1 and {type(module).__name__ for module in spread[1:]} <= {f"FSDP{name}" for name in UNITS}
    return whole(*args, **more)


train.make_accelerator, train.optimise = sharding, checked
train.optimise = interrupt_after(int(sys.argv[1]))
try:
    train.train(compose(sys.argv[2:], entry="train"))
except KeyboardInterrupt:
    print("interrupted")
train.optimise = checked
train.train(compose([*sys.argv[2:], "resume=true"], entry="train"))
end_processes()
