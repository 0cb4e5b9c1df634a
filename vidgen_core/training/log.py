"""What a training leaves to read: ``log.jsonl``, any accelerate tracker, and lines or a bar with the time left."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from vidgen_core.json_lines import add_line
from vidgen_core.training.disk import disk_explained

if TYPE_CHECKING:
    from accelerate import Accelerator


NAMED = 8
"""Samples that a message names."""


class TrainingLog:
    """Written by the main process.

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
        self.skipped: dict[str, str] = {}  # items of the data that no process could use -> why
        self.left_out = ""  # samples of the last step whose gradients were no numbers
        if self._skipped_file.is_file():
            self.skipped = {entry["item"]: entry["reason"] for entry in _whole_lines(self._skipped_file)}
        if not accelerator.is_main_process:
            return
        if self._file.is_file():
            kept = [json.dumps(entry) for entry in _whole_lines(self._file) if entry["step"] <= start]
            fresh = self._file.with_name(".log.jsonl")
            fresh.write_text("".join(f"{line}\n" for line in kept))
            fresh.replace(self._file)
        if self._stream.isatty():
            self._draw()

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """One line of named numbers after ``step`` steps, with the number of items that were ``skipped`` so far."""
        if self.skipped:
            numbers = {**numbers, "skipped": len(self.skipped)}
        if self._accelerator.is_main_process:
            # JSON knows no NaN.
            values = {k: round(v, 8) if math.isfinite(v) else None for k, v in numbers.items()}
            with disk_explained(self._file, "The checkpoints stay"), self._file.open("a") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
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

    def skip(self, items: Iterable[tuple[str, str]]) -> None:
        """Name items of the data that were broken and replaced, each once, in ``skipped.jsonl``.

        Args:
            items: Name and reason of those of all processes, the same in each.
        """
        for name, reason in items:
            if name not in self.skipped:
                self.skipped[name] = reason
                if self._accelerator.is_main_process:
                    with disk_explained(self._skipped_file, "The checkpoints stay"):
                        entry = json.dumps({"item": name, "reason": reason}, ensure_ascii=False)
                        add_line(self._skipped_file, entry)
                self.say(f"skipped {len(self.skipped)}: {name} ({reason})")

    def leave_out(self, step: int, samples: Sequence[tuple[str, bool]]) -> None:
        """Name the samples of a step whose gradients were no numbers, those of every process.

        Args:
            samples: Of this process: the name, and whether the loss that it is part of was no number itself. Where
                some were, the others are not named.
        """
        from accelerate.utils import gather_object

        found = gather_object([(bool(broken), name) for name, broken in samples])
        certain = [name for broken, name in found if broken]
        names = list(dict.fromkeys(certain or [name for _, name in found]))
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        self.left_out = ", ".join(f"'{name}'" for name in names[:NAMED]) + more
        # A gradient scaler finds its scale by trying: its steps are no news.
        if self._accelerator.scaler is None or certain:
            self.say(f"step {step} is left out, its gradients are NaN or infinite: {self.left_out}")

    def close(self) -> None:
        """Say how much was skipped, take the bar away and let the trackers finish."""
        if self.skipped:
            items = f"{len(self.skipped)} item{'s' if len(self.skipped) > 1 else ''}"
            self.say(f"{items} of the data could not be used and others took their places: '{self._skipped_file}'")
        if self._bar is not None:
            self._bar.stop()
        # Not accelerate's end_training: it would end the processes too, and another training may follow.
        for tracker in self._accelerator.trackers:
            tracker.finish()

    def _draw(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("left"))
        self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(file=self._stream))
        self._bar.start()
        self._task = self._bar.add_task("training", total=self._steps, completed=self._start)


def _whole_lines(file: Path) -> list[dict[str, Any]]:
    """The entries of a file of JSON lines; a line that a crash left torn is none."""
    entries = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return entries


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
