"""A training that is asked to end finishes its step and writes a checkpoint first."""

from __future__ import annotations

import signal
from contextlib import suppress
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Inside the context, the first Ctrl-C or SIGTERM only sets ``asked``; a second one ends the process at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        with suppress(ValueError):  # not the main thread: signals are somebody else's
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def asked_anywhere(self, accelerator: Accelerator) -> bool:
        """Whether any process was asked to end: a signal does not reach all of them in the same step."""
        if accelerator.num_processes == 1:
            return self.asked
        asked = torch.tensor(float(self.asked), device=accelerator.device)
        return bool(accelerator.reduce(asked, "sum") > 0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
