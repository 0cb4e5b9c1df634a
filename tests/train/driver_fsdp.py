"""A training by FSDP in processes of the CPU: ``driver_fsdp.py <steps> key=value ...``.

It is interrupted after so many steps and goes on. accelerate shards on GPUs alone; here its state is told that it does.
"""

import sys
from typing import Any

from accelerate import FullyShardedDataParallelPlugin, PartialState
from accelerate.utils import DistributedType
from trainings import interrupt_after

from vidgen_core import train
from vidgen_core.config import compose
from vidgen_core.training.machine import end_processes

plain, whole = train.make_accelerator, train.optimise


def sharding(*args: Any) -> Any:
    if PartialState._shared_state:  # of the training before
        PartialState._shared_state.update(distributed_type=DistributedType.MULTI_CPU)
    accelerator = plain(*args)
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False
    )
    accelerator.state.distributed_type = DistributedType.FSDP
    PartialState._shared_state.update(distributed_type=DistributedType.FSDP)
    return accelerator


train.make_accelerator = sharding
train.optimise = interrupt_after(int(sys.argv[1]))
try:
    train.train(compose(sys.argv[2:], entry="train"))
except KeyboardInterrupt:
    print("interrupted")
train.optimise = whole
train.train(compose([*sys.argv[2:], "resume=true"], entry="train"))
end_processes()
