"""Overlapping windows sampled together in an order that needs little memory: a wavefront over (window, step).

A frame's next step needs only the windows that hold it. So a window may go on as soon as the windows that overlap it
have caught up, while those far behind it have not even begun: the first windows are finished when about as many are
under way as there are steps, whatever the length of the video. What waits, and the scheduler's steps, are in the main
memory; on the device there is one window at a time. The result is that of going step by step over the whole video, to
the bit. B videos, C channels, F frames, h w latent cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from vidgen_core.run import Run, Window
from vidgen_core.sampling import Denoise, Step, fresh_noise

Cut = Callable[[Run, Sequence[Window], int, int], int]
"""(run, windows, index of a window, step) -> the absolute frame from which the window decides over earlier ones."""


class Segment:
    """Neighbouring frames that the same windows hold, and that therefore take their steps together, in the main memory.

    Args:
        window: These frames alone; it keys their noise.
        holders: The windows that hold them, by index.
    """

    def __init__(self, window: Window, holders: Sequence[int]) -> None:
        self.window, self.holders = window, holders
        self.scheduler: Any = None  # their own: it remembers their last estimates
        self.latents = torch.empty(0)  # B C F h w, once the first holder has begun
        self.prediction: Tensor | None = None  # of the next step, as far as it has come in
        self.came = 0  # holders that it has come from
        self.steps = 0  # steps that are behind the frames

    def begin(self, latents: Tensor, scheduler: Any, first_step: int) -> None:
        """Take the first latents."""
        self.scheduler = scheduler
        self.latents = latents if first_step else latents * scheduler.init_noise_sigma
        scheduler.timesteps = scheduler.timesteps.cpu()
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first_step)

    def take(self, prediction: Tensor, frames: Sequence[int]) -> bool:
        """Take over a holder's prediction (B, C, F, h, w) for some of the frames; whether that was the last holder."""
        if self.prediction is None:
            self.prediction = torch.empty_like(prediction)
        chosen = torch.tensor(frames, dtype=torch.long)
        self.prediction.index_copy_(2, chosen, prediction.index_select(2, chosen))
        self.came += 1
        return self.came == len(self.holders)

    def go_on(self, run: Run, step: Step) -> None:
        """Take the scheduler's step."""
        t = self.scheduler.timesteps[step.index]
        own = Step(step.index, step.total, t, self.window, self.scheduler, self.latents)
        noise = fresh_noise(run, self.window, own)
        self.latents = self.scheduler.step(self.prediction, t, self.latents, return_dict=False, **noise)[0]
        self.prediction, self.came, self.steps = None, 0, step.index + 1

    def release(self) -> None:
        """Drop the tensors of frames that have left."""
        self.scheduler, self.latents = None, torch.empty(0)


class Wavefront:
    """Iterates over the windows in order, each when all its frames are final, with ``latents`` of its whole span.

    Args:
        windows: In the order of time; they may overlap.
        scheduler: (run) -> a fresh scheduler whose timesteps are set.
    """

    def __init__(
        self, run: Run, windows: Sequence[Window], denoise: Denoise, scheduler: Callable[[Run], Any], cut: Cut
    ) -> None:
        self.run, self.windows, self.denoise = run, windows, denoise
        self.make_scheduler, self.cut = scheduler, cut
        self.total = len(scheduler(run).timesteps)
        segments = _segments(windows)
        self.segments = [[s for s in segments if k in s.holders] for k in range(len(windows))]
        self.neighbours = [{k for segment in own for k in segment.holders} for own in self.segments]
        self.predicted = [0] * len(windows)  # steps of each window

    @torch.no_grad()
    def __iter__(self) -> Iterator[Window]:
        for k, window in enumerate(self.windows):
            while any(segment.steps < self.total for segment in self.segments[k]):
                self.predict(self.next_window())
            latents = torch.cat([segment.latents for segment in self.segments[k]], dim=2)
            window.latents = latents.to(self.run.backbone.device)
            for segment in self.segments[k]:
                if segment.holders[-1] == k:
                    segment.release()
            yield window

    def next_window(self) -> int:
        """The first window that can go on: early frames are finished first, and no window begins too soon."""
        return next(k for k in range(len(self.windows)) if self.can_go_on(k))

    def can_go_on(self, k: int) -> bool:
        """Whether all frames of a window have come to its next step."""
        if self.windows[k].first_step + self.predicted[k] == self.total:
            return False
        return all(self.predicted[other] >= self.predicted[k] for other in self.neighbours[k])

    def predict(self, k: int) -> None:
        """Predict one step of a window; those of its frames that waited for no other window take it."""
        window, segments = self.windows[k], self.segments[k]
        sizes = [len(segment.window.span) for segment in segments]
        if self.predicted[k] == 0:
            self._begin(window, segments, sizes)
        index = window.first_step + self.predicted[k]
        t = segments[0].scheduler.timesteps[index]
        device = self.run.backbone.device
        model_input = torch.cat([s.scheduler.scale_model_input(s.latents, t) for s in segments], dim=2).to(device)
        step = Step(index, self.total, t.to(device), window, segments[0].scheduler, model_input)
        prediction = self.denoise(window, step).cpu()
        self.predicted[k] += 1
        # Texts are gathered again at the next step: kept for every window under way, they would outweigh the latents.
        window.inputs = {}
        # The frames go on at different moments, so what is shown is the window as the network saw it.
        self.run.moments.on_step(run=self.run, window=window, step=step, latents=model_input)
        for segment, part in zip(segments, prediction.split(sizes, dim=2), strict=True):
            if segment.take(part, self._decided(k, segment, index)):
                segment.go_on(self.run, step)

    def _begin(self, window: Window, segments: Sequence[Segment], sizes: list[int]) -> None:
        self.run.prepare(window)
        assert window.latents is not None
        latents, window.latents = window.latents.cpu(), None
        for segment, part in zip(segments, latents.split(sizes, dim=2), strict=True):
            if segment.scheduler is None:  # else an earlier window brought these frames
                segment.begin(part, self.make_scheduler(self.run), window.first_step)

    def _decided(self, k: int, segment: Segment, step: int) -> list[int]:
        """Which frames of a segment, counted from its first, a window decides at a step: the last one that may does."""
        cuts = {holder: self.cut(self.run, self.windows, holder, step) for holder in segment.holders}
        deciders = [max(h for h, cut in cuts.items() if cut <= frame) for frame in segment.window.span]
        return [i for i, decider in enumerate(deciders) if decider == k]


def _segments(windows: Sequence[Window]) -> list[Segment]:
    borders = sorted({border for window in windows for border in (window.span.start, window.span.stop)})
    spans = [range(start, stop) for start, stop in pairwise(borders)]
    return [
        Segment(Window(span, span, group=windows[0].group), [k for k, w in enumerate(windows) if span.start in w.span])
        for span in spans
    ]
