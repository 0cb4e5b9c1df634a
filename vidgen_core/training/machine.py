"""accelerate, set up from the configuration; and the errors of a machine turned into what to do about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from vidgen_core.errors import BadRequest, VidgenError, nearest

MIXED = ("no", "fp16", "bf16")


def make_accelerator(config: Mapping[str, Any], folder: Path) -> Any:
    """An ``Accelerator`` for this process; ``accelerate launch`` or ``torchrun`` decide how many there are.

    Raises BadRequest for a tracker that accelerate does not know or that is not installed.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs
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
    accelerator = Accelerator(
        mixed_precision=precision,
        cpu=cpu,
        log_with=trackers or None,
        project_dir=str(folder),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
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


def agreed(value: Any) -> Any:
    """The main process's value, in every process."""
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]


@contextmanager
def memory_explained(options: Mapping[str, Any]) -> Iterator[None]:
    """Say what to switch on where the memory did not suffice."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error).lower()
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not any(
            word in text for word in ("out of memory", "not enough memory", "can't allocate memory")
        ):
            raise
        off = [
            ("trainer.gradient_checkpointing=true", not options["gradient_checkpointing"]),
            ("trainer.mixed_precision=bf16", options["mixed_precision"] == "no"),
            (
                f"trainer.batch_size=1 trainer.accumulation={options['accumulation'] * options['batch_size']}",
                options["batch_size"] > 1,
            ),
            ("trainer.optimizer=adamw8bit", options["optimizer"] == "adamw"),
            ("trainer.trainable=temporal", options["trainable"] == "all"),
            ("trainer.cache=latents", options["cache"] == "none"),
        ]
        mends = ", ".join(mend for mend, helps in off if helps) or "fewer or smaller frames"
        raise VidgenError(
            f"The memory did not suffice for a training step. Switch on, in this order: {mends}; with resume=true the "
            "training goes on from its last checkpoint."
        ) from error
