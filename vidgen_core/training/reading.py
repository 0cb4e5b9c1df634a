"""What the processes of a training read, side by side: what one of them finds broken, all of them know.

A process that ended alone would leave the others waiting, and what was learnt since the last checkpoint lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from vidgen_core.errors import BadRequest, VidgenError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from vidgen_core.data.sample import Batch
    from vidgen_core.training.log import TrainingLog


class Unreadable(Exception):
    """A process can read no further, and all of them raise this. ``error``: why."""

    def __init__(self, error: VidgenError) -> None:
        super().__init__(str(error))
        self.error = error


def side_by_side(batches: Iterator[Batch], accelerator: Accelerator, log: TrainingLog) -> Iterator[Batch]:
    """The batches of this process, each read when those of the others are. Raises Unreadable."""
    while True:
        batch = read_together(lambda: next(batches), accelerator, log)
        assert batch is not None
        yield batch


def read_together(read: Callable[[], Batch | None], accelerator: Accelerator, log: TrainingLog) -> Batch | None:
    """What ``read`` gives in this process; what any process left out as broken is named in the log.

    Every process calls this as often as the others. Raises Unreadable in all of them where ``read`` raised a
    VidgenError in one.
    """
    batch: Batch | None = None
    error: VidgenError | None = None
    skipped: Mapping[str, str] = {}
    try:
        batch = read()
        skipped = dict(batch.skipped) if batch is not None else {}
    except VidgenError as found:
        error, skipped = found, getattr(found, "broken", {})
    news = [(name, reason) for name, reason in skipped.items() if name not in log.skipped]
    failed, found_anew = summed([error is not None, len(news)], accelerator)
    if found_anew:
        log.skip(_gathered(news))
    if failed:
        told = _gathered([] if error is None else [(isinstance(error, BadRequest), str(error))])
        refused, message = told[0]
        raise Unreadable(error or (BadRequest if refused else VidgenError)(message))
    return batch


@contextmanager
def saved_first(save: Callable[[], None]) -> Iterator[None]:
    """Save before an error of the data ends the training, which it does as what it is."""
    try:
        yield
    except Unreadable as unreadable:
        save()
        raise unreadable.error from None


def summed(numbers: list[int], accelerator: Accelerator) -> list[int]:
    """The sums over all processes, each of which calls this."""
    if accelerator.num_processes == 1:
        return numbers
    total = accelerator.reduce(torch.tensor(numbers, device=accelerator.device), "sum")
    return [int(number) for number in total.tolist()]


def _gathered(found: list[Any]) -> list[Any]:
    from accelerate.utils import gather_object

    gathered: list[Any] = gather_object(found)
    return gathered
