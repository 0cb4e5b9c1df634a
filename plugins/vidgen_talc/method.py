"""TALC: time-aligned captions (arXiv 2405.04682, section 3). One clip, several scenes, each frame reads its caption.

Nothing is learned and no layer changes: scenes meet only in the temporal layers of the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from vidgen_core import hookimpl
from vidgen_core.conditioning import text_per_frame
from vidgen_core.errors import BadRequest, nearest
from vidgen_core.request import Request, Scene, VideoRequest
from vidgen_core.run import Group, Run, Window

THEN = " Then, "
"""Joins the captions of the merged baseline, which keep their own full stops."""


def build(mode: str = "time_aligned", scene_frames: int | Sequence[int] | None = None, crossfade: int = 0) -> Timeline:
    """The object that runs the chosen caption mode.

    Args:
        mode: ``time_aligned`` (the method), or one of the paper's baselines: ``merged`` captions in one clip,
            ``separate`` clips, one for each scene.
        scene_frames: Frames of each scene, or one number for all; None divides ``num_frames``, or gives every scene
            the model's own number of frames.
        crossfade: Frames over which the embeddings of neighbouring captions are blended, centred on their border.
    """
    if mode not in MODES:
        raise BadRequest(f"talc.mode={mode} is not a mode.{nearest(mode, MODES)}")
    if crossfade < 0 or (crossfade and mode != "time_aligned"):
        raise BadRequest(f"talc.crossfade={crossfade} needs talc.mode=time_aligned and a number of frames, 0 or more.")
    return MODES[mode](scene_frames, crossfade)


class Timeline:
    """Lays the scenes of every video on absolute frames; what the three modes share."""

    def __init__(self, scene_frames: int | Sequence[int] | None, crossfade: int) -> None:
        self.scene_frames = scene_frames
        self.crossfade = crossfade

    @hookimpl
    def prepare_request(self, request: Request) -> Request:
        """Scenes on frames; raises BadRequest where captions and frame counts do not match."""
        spans = {self.spans(request, video) for video in request.videos}
        totals = {sum(span) for span in spans}
        if len(totals) > 1:
            raise BadRequest(
                f"Videos of {' and '.join(map(str, sorted(totals)))} frames cannot be denoised in one batch. "
                "Use batch_size=1, or give num_frames."
            )
        shortest = min(frames for span in spans for frames in span)
        if self.crossfade > shortest:
            raise BadRequest(
                f"talc.crossfade={self.crossfade} is longer than the shortest scene of {shortest} frames, which would "
                "never show its own caption alone."
            )
        videos = tuple(self.laid_out(v, self.spans(request, v)) for v in request.videos)
        return request.replace(videos=videos, num_frames=totals.pop())

    def spans(self, request: Request, video: VideoRequest) -> tuple[int, ...]:
        """Frames of each scene: as given, or ``num_frames`` divided as evenly as it goes, or the default for each."""
        if video.spans:
            return video.spans
        scenes = len(video.prompts)
        given, total = self.scene_frames, request.num_frames if "num_frames" in request.given else None
        if given is None:
            if total is None:
                return (request.num_frames,) * scenes
            if total < scenes:
                raise BadRequest(f"num_frames={total} is too short for {scenes} scenes of at least one frame each.")
            return tuple((i + 1) * total // scenes - i * total // scenes for i in range(scenes))
        counts = tuple(given) if isinstance(given, Sequence) else (given,) * scenes
        if len(counts) != scenes:
            raise BadRequest(
                f"talc.scene_frames has {len(counts)} numbers for {scenes} scenes. Give one for each, or one for all."
            )
        if any(type(count) is not int or count < 1 for count in counts):
            raise BadRequest(
                f"talc.scene_frames={list(counts)}: every scene needs at least one frame, as a whole number."
            )
        if total is not None and total != sum(counts):
            raise BadRequest(
                f"talc.scene_frames adds up to {sum(counts)} frames, but num_frames={total}. "
                f"Write num_frames={sum(counts)}."
            )
        return counts

    def laid_out(self, video: VideoRequest, spans: Sequence[int]) -> VideoRequest:
        """The video with one scene per caption."""
        negatives = video.negative_prompts * (len(spans) if len(video.negative_prompts) == 1 else 1)
        stops = [sum(spans[: i + 1]) for i in range(len(spans))]
        scenes = [
            Scene(prompt, stop - span, stop, negative)
            for prompt, span, stop, negative in zip(video.prompts, spans, stops, negatives, strict=True)
        ]
        return dataclasses.replace(video, scenes=tuple(scenes))

    @hookimpl(claims="text")
    def condition(self, run: Run, window: Window) -> dict[str, Any]:
        """``text``: the caption of each absolute frame of the window."""
        if not self.crossfade:
            return {"text": text_per_frame(run, window)}
        return {"text": text_per_frame(run, window, lambda video, frame: self.blended(run, video, frame))}

    def blended(self, run: Run, video: int, frame: int) -> int:
        """The text row of a frame: its own caption, or a mix with the neighbour's where a border is near."""
        scenes = run.request.videos[video].scenes
        for left, right in pairwise(scenes):
            place = (frame + 0.5 - left.stop) / self.crossfade + 0.5
            if 0 < place < 1:
                return run.texts.blend(left.prompt, right.prompt, place)
        return run.texts.rows([scenes[run.request.videos[video].scene_at(frame)].prompt])[0]


class Merged(Timeline):
    """The merged-captions baseline: one text, "c1 Then, c2 ...", for all frames of one clip."""

    def laid_out(self, video: VideoRequest, spans: Sequence[int]) -> VideoRequest:
        negatives = dict.fromkeys(n for n in video.negative_prompts if n)
        scene = Scene(THEN.join(filter(None, video.prompts)), 0, sum(spans), ", ".join(negatives))
        return dataclasses.replace(video, scenes=(scene,))


class Separate(Timeline):
    """The merged-videos baseline: one clip for each scene, with its own noise, put one after another."""

    @hookimpl
    def prepare_request(self, request: Request) -> Request:
        """As the others, but every video of a batch must have the same cuts."""
        if len({self.spans(request, video) for video in request.videos}) > 1:
            raise BadRequest("talc.mode=separate needs the same scene lengths in a whole batch. Use batch_size=1.")
        return super().prepare_request(request)

    @hookimpl
    def plan(self, run: Run) -> list[Group]:
        """A group of one window for each scene: groups draw their noise afresh."""
        spans = [range(scene.start, scene.stop) for scene in run.request.videos[0].scenes]
        return [Group((Window(span, span, index=i, group=i),)) for i, span in enumerate(spans)]


MODES: dict[str, type[Timeline]] = {"time_aligned": Timeline, "merged": Merged, "separate": Separate}
