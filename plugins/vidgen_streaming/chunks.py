"""The plan of a long video: chunks one after the other, each beginning with frames that are known already."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

from vidgen_core import hookimpl
from vidgen_core.errors import BadRequest
from vidgen_core.models.backbone import Backbone
from vidgen_core.request import Request
from vidgen_core.run import FrameBlock, Group, Run, Window
from vidgen_streaming.refine import Refinement
from vidgen_streaming.start import Start


def chunks(num_frames: int, chunk: int, overlap: int, start: Start | None = None) -> list[Group]:
    """A group of one window for each chunk; together they keep exactly ``num_frames``.

    A window's span is always ``chunk`` frames, as the model was trained: the first begins at 0, the others ``overlap``
    frames before what they keep. So the span of the last may reach beyond the end, and after an image, before 0.

    Args:
        start: Frames that are known; they are delivered as they are, in windows of a chunk at most.
    """
    windows: list[Window] = []
    known = 0 if start is None else start.count
    for first in range(0, known, chunk):
        span = range(first, min(first + chunk, known))
        assert start is not None
        windows.append(Window(span, span, given=partial(start.read, span)))
    if not windows:
        windows.append(Window(range(chunk), range(min(chunk, num_frames))))
    while (stop := windows[-1].keep.stop) < num_frames:
        span = range(stop - overlap, stop - overlap + chunk)
        windows.append(Window(span, range(stop, min(span.stop, num_frames))))
    for index, window in enumerate(windows):
        window.index = window.group = index
    return [Group((window,)) for window in windows]


class Chunked:
    """A long video in chunks of the length that the model knows; the chunks know nothing of each other.

    Args:
        chunk: Frames denoised together.
        overlap: How many of them are known already.
        fit: What is done with an image or video of another size.
        refine: Whether the finished frames are refined.
        **refinement: ``refine_<key>`` for every key of ``Refinement``.
    """

    def __init__(
        self, chunk: int = 16, overlap: int = 0, fit: str = "exact", refine: bool = False, **refinement: Any
    ) -> None:
        options = {key.removeprefix("refine_"): value for key, value in refinement.items()}
        self.refinement = Refinement(**options) if refine else None
        if not 0 <= overlap < chunk:
            raise BadRequest(
                f"streaming.overlap={overlap} must be less than streaming.chunk={chunk}: every chunk sees known frames "
                "and must add new ones."
            )
        self.chunk, self.overlap, self.fit = chunk, overlap, fit
        self.start: Start | None = None

    @hookimpl
    def prepare_request(self, request: Request) -> None:
        """Look at the start before anything heavy: there, readable, of the right size and length."""
        if request.image is None and request.video is None:
            return
        if request.image is not None and request.video is not None:
            raise BadRequest("image= and video= are both given, but a video has one beginning. Leave one out.")
        if self.start is None:
            self.start = Start(request, self.fit)
        count = self.start.count
        if request.video is not None and count < self.overlap:
            raise BadRequest(
                f"video={request.video} has {count} frames, but a chunk must see {self.overlap} known ones. Give a "
                f"longer video, one frame of it as image=, or streaming.overlap={max(count, 1)}."
            )
        if count >= request.num_frames:
            raise BadRequest(
                f"num_frames={request.num_frames}, but the start has {count} already, which count. Ask for more."
            )

    @hookimpl
    @contextmanager
    def attach(self, run: Run, backbone: Backbone) -> Iterator[None]:
        """Open what refines."""
        with nullcontext() if self.refinement is None else self.refinement.opened(run, backbone):
            yield

    @hookimpl
    def finish_frames(self, blocks: Iterator[FrameBlock]) -> Iterator[FrameBlock]:
        """The finished frames, refined where that is asked for."""
        return blocks if self.refinement is None else self.refinement.refined(blocks)

    @hookimpl
    def plan(self, run: Run) -> list[Group]:
        """A group for each chunk, so that each draws its noise afresh."""
        return chunks(run.request.num_frames, self.chunk, self.overlap, self.start)
