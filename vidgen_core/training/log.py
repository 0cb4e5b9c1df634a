"""What a training leaves to read: ``log.jsonl``, any accelerate tracker, and lines or a bar with the time left."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from accelerate import Accelerator


class TrainingLog:
    """Written by the main process, but for the items that each process skips.

    Args:
        folder: Of the training.
        accelerator: Its trackers get every number too.
        steps: Optimiser steps in all.
        start: Steps that were done before; later lines of an earlier run are dropped.
    """

    def __init__(
        self, folder: Path, accelerator: Accelerator, steps: int, start: int, stream: TextIO | None = None
    ) -> None:
        self._file = folder / "log.jsonl"
        self._skipped_file = folder / "skipped.jsonl"
        self._accelerator = accelerator
        self._steps = steps
        self._start = start
        self._begun = time.perf_counter()
        self._stream = stream or sys.stderr
        self._bar: Any = None
        self._task: Any = None
        self.skipped: dict[str, str] = {}  # items of the data that could not be used -> why
        if not accelerator.is_main_process:
            return
        if start and self._file.is_file():
            kept = [line for line in self._file.read_text().splitlines() if json.loads(line)["step"] <= start]
            self._file.write_text("".join(f"{line}\n" for line in kept))
        if self._stream.isatty():
            self._draw()

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """One line of named numbers after ``step`` steps."""
        if self._accelerator.is_main_process:
            with self._file.open("a") as file:
                file.write(json.dumps({"step": step, **{k: round(v, 8) for k, v in numbers.items()}}) + "\n")
        self._accelerator.log(numbers, step=step)

    def show(self, step: int, numbers: dict[str, float], line: bool) -> None:
        """Move the bar; where there is none, print a line if it is time for one."""
        if not self._accelerator.is_main_process:
            return
        words = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=f"step {step}/{self._steps}  {words}")
        elif line:
            done = step - self._start
            left = (time.perf_counter() - self._begun) / max(done, 1) * (self._steps - step)
            print(f"step {step}/{self._steps}  {words}  left {_clock(left)}", file=self._stream, flush=True)

    def say(self, message: str) -> None:
        """One line for the user."""
        if self._accelerator.is_main_process:
            (self._bar.console.print if self._bar is not None else lambda m: print(m, file=self._stream, flush=True))(
                message
            )

    def skip(self, items: tuple[tuple[str, str], ...]) -> None:
        """Name items of the data that were broken and replaced, each once, in ``skipped.jsonl``."""
        for name, reason in items:
            if name not in self.skipped:
                self.skipped[name] = reason
                with self._skipped_file.open("a") as file:  # every process reads other items; short lines do not mix
                    file.write(json.dumps({"item": name, "reason": reason}, ensure_ascii=False) + "\n")
                self.say(f"skipped {len(self.skipped)}: {name} ({reason})")

    def close(self) -> None:
        """Take the bar away and let the trackers finish."""
        if self._bar is not None:
            self._bar.stop()
        self._accelerator.end_training()

    def _draw(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("left"))
        self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(file=self._stream))
        self._bar.start()
        self._task = self._bar.add_task("training", total=self._steps, completed=self._start)


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
