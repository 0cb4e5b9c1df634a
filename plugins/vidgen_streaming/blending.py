"""Randomized blending (StreamingT2V, arXiv 2403.14773, section 4.3): a long video refined in overlapping chunks.

Every chunk of C frames is predicted by itself. In the O frames that it shares with the chunk before it, a cut, drawn
anew for each chunk and step, decides whose prediction moves a frame on: up to the cut the earlier chunk's, from there
the later one's. What is blended is the guided prediction: neighbours see the same noisy frame, so this is the same as
to blend their estimates of the clean one, and any scheduler of diffusers can take the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from vidgen_core import hookimpl
from vidgen_core.errors import BadRequest
from vidgen_core.noise import seed_of
from vidgen_core.run import Group, Run, Window
from vidgen_core.sampling import Denoise
from vidgen_streaming.wavefront import Wavefront


def scheduled(run: Run) -> Any:
    """The run's own scheduler with its timesteps set."""
    scheduler = run.make_scheduler()
    run.timesteps(scheduler)
    return scheduler


class RandomizedBlending:
    """Owns ``plan`` and ``sample``: chunks of one video, blended at every step.

    Neither depends on how many chunks are in memory: noise is keyed by step and absolute frame, cuts by step and chunk.

    Args:
        chunk: C, frames that are denoised together. A shorter video is one chunk.
        overlap: O, frames that a chunk shares with the one before it, 0 <= O < C; the last chunk ends with the video
            and shares more where the numbers do not divide.
        whole_overlap: Cuts come from {0, .., O}, as in the paper; else from {0, .., O - 1}, as in the released code,
            where the earlier chunk never decides the whole overlap.
        scheduler: (run) -> a fresh scheduler whose timesteps are set.

    Raises BadRequest for an overlap that is not below the chunk.
    """

    def __init__(
        self,
        chunk: int,
        overlap: int,
        whole_overlap: bool = False,
        scheduler: Callable[[Run], Any] = scheduled,
    ) -> None:
        if not 0 <= overlap < chunk:
            raise BadRequest(
                f"Chunks of {chunk} frames cannot share {overlap} with the next: each must bring a frame of its own. "
                f"Use an overlap from 0 to {max(chunk - 1, 0)}."
            )
        self.chunk, self.overlap = chunk, overlap
        self.whole_overlap = whole_overlap
        self.scheduler = scheduler

    def spans(self, frames: int) -> list[range]:
        """The frames of each chunk of a video of so many frames."""
        size = min(self.chunk, frames)
        starts = [*range(0, frames - size, self.chunk - self.overlap), frames - size]
        return [range(start, start + size) for start in starts]

    @hookimpl
    def plan(self, run: Run) -> list[Group]:
        """One group; a chunk keeps its frames up to where the next one begins."""
        if run.moments.owners("after_step"):
            raise BadRequest(
                f"'{run.moments.owners('after_step')[0]}' corrects windows after each step, but frames of blended "
                "chunks move on at different moments. Leave it out, or plan without blending."
            )
        spans = self.spans(run.request.num_frames)
        borders = [*(span.start for span in spans), run.request.num_frames]
        keeps = [range(start, stop) for start, stop in pairwise(borders)]
        return [Group(tuple(map(Window, spans, keeps, range(len(spans)))))]

    @hookimpl
    def sample(self, run: Run, group: Group, denoise: Denoise) -> Iterator[Window]:
        """The chunks as their frames are final: about as many as there are steps are under way, in the main memory."""
        return iter(Wavefront(run, group.windows, denoise, self.scheduler, self.cut))

    def cut(self, run: Run, windows: Sequence[Window], chunk: int, step: int) -> int:
        """The absolute frame from which a chunk decides at a step."""
        span = windows[chunk].span
        shared = windows[chunk - 1].span.stop - span.start if chunk else 0
        draw = seed_of(run.request.seed, run.stage, "cut", windows[chunk].group, step, chunk)
        return span.start + draw % max(shared + self.whole_overlap, 1)
