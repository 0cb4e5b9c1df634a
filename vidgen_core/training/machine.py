"""accelerate, set up from the configuration; and the errors of a machine turned into what to do about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from traceback import clear_frames
from typing import Any

import torch

from vidgen_core.errors import BadRequest, VidgenError, nearest
from vidgen_core.training.sharding import prepare_launched

MIXED = ("no", "fp16", "bf16")


def make_accelerator(config: Mapping[str, Any], folder: Path) -> Any:
    """An ``Accelerator`` for this process; ``accelerate launch`` or ``torchrun`` decide how many there are.

    Raises BadRequest for a tracker that accelerate does not know or that is not installed.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
    from accelerate.state import AcceleratorState
    from accelerate.utils import LoggerType

    options = config["trainer"]
    trackers = [str(name) for name in options["trackers"]]
    known = [str(kind.value) for kind in LoggerType if kind.value != "all"]
    for name in trackers:
        if name not in known:
            raise BadRequest(f"trainer.trackers: accelerate knows no tracker '{name}'.{nearest(name, known)}")
    cpu = config["placement"]["device"] == "cpu" or not torch.cuda.is_available()
    precision = options["mixed_precision"]
    if precision == "auto":
        precision = "bf16" if not cpu and torch.cuda.is_bf16_supported() else "no"
    if precision == "fp16" and cpu:
        raise BadRequest("trainer.mixed_precision=fp16 needs a GPU. Use bf16 or no on a CPU.")
    _refuse_placement(config["placement"])
    prepare_launched()
    AcceleratorState._reset_state()  # an earlier training of this process may have mixed otherwise
    accelerator = Accelerator(
        mixed_precision=precision,
        cpu=cpu,
        log_with=trackers or None,
        project_dir=str(folder),
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=True),
            # The others wait while the main process samples and writes.
            InitProcessGroupKwargs(timeout=timedelta(hours=2)),
        ],
    )
    # The launcher's own number would scale gradients once more; micro-batches are ours to count.
    accelerator.gradient_accumulation_steps = 1
    kind = str(accelerator.distributed_type).rpartition(".")[2]
    if kind not in ("NO", "MULTI_CPU", "MULTI_GPU", "FSDP"):
        raise BadRequest(
            f"The launcher asks for {kind}, which vidgen does not know. Configure plain GPUs or CPUs, or version 2 "
            "of FSDP."
        )
    if kind == "FSDP":
        check_fsdp(bool(getattr(accelerator, "is_fsdp2", False)), accelerator.num_processes, options)
    wanted = options["processes"]
    if wanted and wanted != accelerator.num_processes:
        raise BadRequest(
            f"trainer.processes={wanted}, but the launcher started {accelerator.num_processes}. On CPUs use `torchrun "
            f"--nproc-per-node={wanted} -m vidgen_core train ...`; `accelerate launch --cpu` may start only one."
        )
    present = {str(getattr(kind, "value", kind)) for kind in accelerator.log_with}
    for name in trackers:
        if name not in present:
            raise BadRequest(f"trainer.trackers: '{name}' is not installed. Install it, or leave it out.")
    return accelerator


def check_fsdp(second: bool, processes: int, options: Mapping[str, Any]) -> None:
    """Raise BadRequest for what a training by FSDP cannot do: every process must call the network as often as others.

    Args:
        second: Whether it is FSDP's second version.
    """
    if not second:
        raise BadRequest("Of FSDP vidgen knows version 2: accelerate launch --use_fsdp --fsdp_version 2 ...")
    if options["optimizer"] != "adamw":
        raise BadRequest(f"trainer.optimizer={options['optimizer']} does not go with FSDP. Use adamw.")
    if options["sample_every"]:
        raise BadRequest("trainer.sample_every draws samples in one process, which FSDP does not allow. Leave it out.")
    if options["validate_every"] and options["validation_samples"] % processes:
        raise BadRequest(
            f"trainer.validation_samples={options['validation_samples']} cannot be shared evenly by {processes} "
            "processes, as FSDP needs. Give a multiple."
        )


def _refuse_placement(placement: Mapping[str, Any]) -> None:
    device = str(placement["device"])
    if ":" in device:
        number = device.partition(":")[2]
        raise BadRequest(f"placement.device={device}: to choose a GPU to train on, set CUDA_VISIBLE_DEVICES={number}.")
    for key in ("offload", "compile"):
        if str(placement.get(key) or "none") != "none":
            raise BadRequest(f"placement.{key}={placement[key]} is for making videos; a training takes none.")


def end_processes() -> None:
    """Leave the group of processes, when no training follows in this process."""
    from accelerate import PartialState

    PartialState().destroy_process_group()


def agreed(value: Any) -> Any:
    """The main process's value, in every process."""
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]


@contextmanager
def rescued(save: Callable[[], None], optimiser: Any, accelerator: Any) -> Iterator[None]:
    """Save before too little memory ends the training. Inside, the weights are those of the last whole step.

    Not where there are several processes: the others know nothing of it, and a checkpoint is written by all.
    """
    try:
        yield
    except Exception as error:
        if accelerator.num_processes == 1 and (_says(error, MEMORY) or _says(error, READER)):
            clear_frames(error.__traceback__)  # what the step has computed so far
            optimiser.zero_grad(set_to_none=True)
            with suppress(VidgenError):  # a disk that is full as well: the memory is told of
                save()
        raise


@contextmanager
def memory_explained(
    options: Mapping[str, Any], caches: Callable[[], bool], accelerator: Any, folder: Path
) -> Iterator[None]:
    """Say what to switch on where the memory did not suffice, in the training or in a process that reads for it.

    Args:
        caches: Whether what trains and the data go with the latent cache.
    """
    goes_on = f"output.dir={folder} resume=true"
    try:
        yield
    except Exception as error:
        if _says(error, READER):
            raise VidgenError(
                f"A process that reads the data was ended by the system, most often because all of them together "
                f"need more memory, or more of /dev/shm, than there is. Go on with {goes_on} and fewer of them: "
                f"trainer.workers={options['workers'] // 2}."
            ) from error
        if not _says(error, MEMORY):
            raise
        smaller = f"trainer.batch_size=1 trainer.accumulation={options['accumulation'] * options['batch_size']}"
        off = [
            ("trainer.gradient_checkpointing=true", not options["gradient_checkpointing"]),
            (smaller, options["batch_size"] > 1),
            ("trainer.mixed_precision=bf16", accelerator.mixed_precision == "no"),
            ("trainer.cache=latents", options["cache"] == "none" and caches()),
        ]
        mends = ", ".join(mend for mend, helps in off if helps) or "none is left"
        raise VidgenError(
            f"The memory did not suffice for a training step. Switch on, with {goes_on}, in this order: {mends}. In "
            "a new output.dir: trainer.optimizer=adamw8bit, trainer.trainable=temporal, or fewer and smaller frames."
        ) from error


MEMORY = ("out of memory", "not enough memory", "can't allocate memory")
READER = ("dataloader worker (pid",)
"""What torch says when a process that reads data has gone; an error inside one has other words."""


def _says(error: BaseException | None, words: tuple[str, ...]) -> bool:
    """Whether an error, or what it came from, says any of these; of MEMORY its kind may say it, too."""
    while error is not None:
        if words is MEMORY and isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        if any(some in str(error).lower() for some in words):
            return True
        error = error.__cause__
    return False
