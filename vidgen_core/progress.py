"""What the user sees while a run goes on: the placement, windows and steps, and when it will be done."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TextIO

from vidgen_core import hookimpl

if TYPE_CHECKING:
    from vidgen_core.models.backbone import Backbone
    from vidgen_core.run import Run, Window
    from vidgen_core.sampling import Step


class Progress(AbstractContextManager["Progress"]):
    """An observer that draws a bar on a terminal, and writes one plain line per window elsewhere.

    Work is counted in frames: a window at step 5 of 20 has done a quarter of the frames it keeps. So the estimate
    needs no list of windows, and windows that are sampled jointly count right. A run inside the run adds its frames.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._bar: Any = None
        self._task: Any = None
        self._start = 0.0
        self._through: dict[str, float] = {}  # stage -> frames of its windows that are through
        self._under_way: dict[tuple[str, int], float] = {}  # stage and index of a window that is not -> its frames done

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    @hookimpl
    def attach(self, run: Run, backbone: Backbone) -> None:
        """A run begins: print where tensors live."""
        if run.stage != "base":
            print(f"placement of {run.stage}: {run.placement}", file=self._stream, flush=True)
            return
        self._through, self._under_way = {}, {}
        self._start = time.perf_counter()
        videos = run.request.videos
        if len(run.config["videos"]) > 1:
            names = ", ".join(video.name or str(video.index) for video in videos)
            print(f"video {names} ({videos[-1].index + 1} of {len(run.config['videos'])})", file=self._stream)
        print(f"placement: {run.placement}", file=self._stream, flush=True)
        if self._stream.isatty():
            self._draw(run.request.num_frames)

    @hookimpl
    def on_step(self, run: Run, window: Window, step: Step) -> None:
        """A step of a window is done."""
        self._count(run.stage, window.index, len(window.keep), (step.index + 1) / step.total)
        stage = "" if run.stage == "base" else f"{run.stage} "
        frames = f"{stage}frames {window.keep.start}-{window.keep.stop - 1} of {run.request.num_frames}"
        if self._bar is not None:
            words = f"{frames}, step {step.index + 1}/{step.total}"
            total = run.request.num_frames * len(self._through)
            done = sum(self._through.values()) + sum(self._under_way.values())
            self._bar.update(self._task, total=total, completed=done, description=words)
        elif step.index + 1 == step.total:
            seconds = time.perf_counter() - self._start
            print(f"{frames}: {step.total} steps done after {seconds:.1f} s", file=self._stream, flush=True)

    def _count(self, stage: str, window: int, frames: int, share: float) -> None:
        # Windows that are through become one number: a step must not cost more the longer the video.
        self._through.setdefault(stage, 0)
        self._under_way[stage, window] = frames * share
        if share == 1:
            self._through[stage] += self._under_way.pop((stage, window))

    def _draw(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        if self._bar is None:
            columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("left"))
            self._bar = Bar(*columns, TimeRemainingColumn(), console=Console(file=self._stream))
            self._bar.start()
        self._task = self._bar.add_task("sampling", total=total)
