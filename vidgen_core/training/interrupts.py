"""A training that is asked to end finishes its step and writes a checkpoint first."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Inside the context, the first Ctrl-C or SIGTERM only sets ``asked``; a second one ends the process at once.

    Several processes do not see a signal at the same step, so there (``active=False``) it acts as always.
    """

    def __init__(self, active: bool) -> None:
        self.asked = False
        self._active = active
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if self._active:
            try:
                self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
            except ValueError:
                pass  # not the main thread: signals are somebody else's
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
