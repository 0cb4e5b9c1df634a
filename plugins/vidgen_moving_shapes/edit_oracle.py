"""The oracle of edits: does an edited clip show what its caption changes, and keep everything else of its source?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidgen_core.errors import BadRequest
from vidgen_moving_shapes.oracle import read_frame, vote
from vidgen_moving_shapes.pair_oracle import VISIBLE_PIXELS, PairReading, read_pair
from vidgen_moving_shapes.shapes import CANVAS
from vidgen_moving_shapes.shown import Shown, read_caption
from vidgen_moving_shapes.world import Entity, Scene

if TYPE_CHECKING:
    from vidgen_core.metrics.footage import Footage

Frames = NDArray[np.uint8]

SMALLEST = 4.0
"""Size in pixels below which nothing counts as an object; the smallest that the world paints has 9."""
LOST = CANVAS * 2**0.5
"""Pixels of error of an object that is not found in a frame: the diagonal, which no found object reaches."""
OVERLAP_PIXELS = 20
"""Of the object behind that the one in front must hide in a frame, before the frame tells their order."""


@dataclass(frozen=True)
class Source:
    """What a source clip shows.

    Attributes:
        shown: Its objects from front to back, and its ground.
        tracks: (objects, F, 2), the centroids as (x, y) pixels, in the order of the objects; NaN where one is not seen.
        overlapping: (F,), the frames in which one object hides a part of the other.
    """

    shown: Shown
    tracks: NDArray[np.float64]
    overlapping: NDArray[np.bool_]

    @classmethod
    def of(cls, scene: Scene, shown: Shown) -> Source:
        """The exact truth of a painted scene."""
        layers = scene.layers[::-1]  # a scene is painted from back to front
        masks = np.stack([layer.coverage() > 0.5 for layer in layers])
        both = masks.all(axis=0).sum(axis=(1, 2)) if len(layers) == 2 else np.zeros(masks.shape[1])
        return cls(shown, np.stack([layer.track.centre for layer in layers]).astype(float), both >= OVERLAP_PIXELS)

    @classmethod
    def read(cls, frames: Frames, objects: int = 1) -> Source:
        """As the oracle reads it from frames (F, CANVAS, CANVAS, 3). Raises BadRequest where the objects are not found.

        Args:
            objects: One, or two that overlap.
        """
        found = _one(frames) if objects == 1 else _two(frames)
        if found is None:
            raise BadRequest(
                f"The source clip does not show {objects} object(s) of Moving Shapes in most of its frames."
            )
        return found


def score_edit(source: Source, caption: str, frames: Frames, tolerance: float = 3.0) -> dict[str, float | None]:
    """How an edited clip fares, by what the oracle reads in it.

    What a clip shows is read by majority vote over its frames. Of two objects, the one that fits more of what the
    caption says of an object, then the one nearer to its track, is taken for it.

    Args:
        caption: The edited prompt; what it says otherwise than the source shows is what is to change.
        frames: (F, CANVAS, CANVAS, 3) uint8, as many as the source has.
        tolerance: Pixels of ``motion_error`` up to which the motion counts as kept.

    Returns:
        ``edited``: 1 if everything that is to change is read as the caption says; None if nothing is to change.
        ``kept``: 1 if everything else of colours, shapes and ground is as in the source.
        ``motion_error``: the mean over frames and objects of the distance in pixels from the source's centroids, where
        an object that is not found counts as the diagonal of the picture.
        ``motion_kept``: 1 if that error is within the tolerance.
        ``success``: 1 if the whole caption is right, the changed and the kept.
        ``occlusion_order``: of two objects, 1 if the same one is in front as in the source, read in those frames in
        which they overlap there: both must be found, and one must hide some of the other in most of them. None for one
        object, or two that never overlap.

    Raises:
        BadRequest: a caption of another number of objects, or frames of another size or number.
    """
    asked, was = read_caption(caption), source.shown
    _check(source, asked, frames)
    wanted = asked.attributes
    changes = {name for name, value in wanted.items() if was.attributes[name] != value}
    found, in_order = (_one(frames), None) if len(asked.entities) == 1 else _matched(frames, source, asked)
    seen = found.shown.attributes if found else {}
    right = {name: seen.get(name) == value for name, value in wanted.items()}
    error = _distance(source.tracks, found.tracks) if found else LOST
    return {
        "edited": float(all(right[name] for name in changes)) if changes else None,
        "kept": float(all(right[name] for name in wanted if name not in changes)),
        "motion_error": error,
        "motion_kept": float(error <= tolerance),
        "success": float(all(right.values())),
        "occlusion_order": in_order if source.overlapping.any() else None,
    }


def _check(source: Source, asked: Shown, frames: Frames) -> None:
    if len(asked.entities) != len(source.shown.entities):
        raise BadRequest(
            f"The edited caption '{asked.caption}' has {len(asked.entities)} object(s), and the source clip "
            f"{len(source.shown.entities)}. An edit keeps their number; metrics.edit_oracle.objects= tells the metric."
        )
    if frames.shape != (len(source.overlapping), CANVAS, CANVAS, 3):
        raise BadRequest(
            f"The edited clip has {len(frames)} frames of {frames.shape[2]}x{frames.shape[1]} pixels. The oracle of "
            f"edits compares it with a source of {len(source.overlapping)} frames of {CANVAS}x{CANVAS}."
        )


# ------------------------------------------------------------------------------------------------ reading


def _one(frames: Frames) -> Source | None:
    """A clip of one object; None where most frames show none."""
    found = [read_frame(frame) for frame in frames]
    there = [frame.size >= SMALLEST for frame in found]
    if np.mean(there) <= 0.5:
        return None
    seen = list(compress(found, there))
    entity = Entity(vote([frame.colour for frame in seen]), vote([frame.shape for frame in seen]))
    track = np.where(np.array(there)[:, None], [frame.position for frame in found], np.nan)
    shown = Shown((entity,), vote([frame.ground for frame in found]))
    return Source(shown, track[None], np.zeros(len(frames), dtype=bool))


def _two(frames: Frames, overlapping: NDArray[np.bool_] | None = None) -> Source | None:
    """A clip of two objects, whose order is read in the given frames; None where two are not found."""
    pair = read_pair(frames, overlapping)
    if pair is None:
        return None
    shown = Shown((pair.front.entity, pair.back.entity), pair.ground)
    return Source(shown, _tracks(pair), pair.hidden >= OVERLAP_PIXELS)


def _tracks(pair: PairReading) -> NDArray[np.float64]:
    """(2, F, 2), NaN where an object is not seen. The place of one that is hidden is known from when it was not."""
    seen = np.stack([item.masks.sum(axis=(1, 2)) >= VISIBLE_PIXELS for item in (pair.front, pair.back)])
    seen[1] |= pair.hidden >= OVERLAP_PIXELS
    return np.where(seen[..., None], np.stack([pair.front.positions, pair.back.positions]), np.nan)


def _matched(frames: Frames, source: Source, asked: Shown) -> tuple[Source | None, float]:
    """Two objects in the source's order, and 1 if the first is in front of the second as it is there."""
    found = _two(frames, source.overlapping)
    if found is None:
        return None, 0.0
    turned = replace(
        found, shown=replace(found.shown, entities=found.shown.entities[::-1]), tracks=found.tracks[::-1].copy()
    )

    def fit(candidate: Source) -> tuple[int, float]:
        seen = candidate.shown.attributes
        return sum(seen[k] == v for k, v in asked.attributes.items()), -_distance(source.tracks, candidate.tracks)

    hides = found.overlapping[source.overlapping]
    ordered = fit(found) >= fit(turned)
    return (found if ordered else turned), float(ordered and len(hides) > 0 and hides.mean() > 0.5)


def _distance(tracks: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """The mean over objects and frames of the distance in pixels, LOST where either is not seen."""
    return float(np.nan_to_num(np.linalg.norm(tracks - others, axis=-1), nan=LOST).mean())


# ------------------------------------------------------------------------------------------------ metric


class EditOracle:
    """``score_edit`` as a metric: a video is an edit of a source clip, and its caption the edited prompt.

    Args:
        source: The source clip, or a folder of them; an edit's name is that of its source, or begins with it and ``_``.
            None where the footage names its own, as that of an experiment does.
        objects: In the source clips and their edits; two adds the column ``occlusion_order``.
        tolerance: Pixels of motion error up to which the motion counts as kept.
    """

    def __init__(self, source: str | None, objects: int = 1, tolerance: float = 3.0) -> None:
        from vidgen_core.models.loading import located

        self.columns = ("edited", "kept", "motion_kept", "success", *(("occlusion_order",) if objects == 2 else ()))
        self._source, self._objects, self._tolerance = located(source) if source else None, objects, tolerance
        self._read = cache(self._read_source)

    def score(self, footage: Footage) -> dict[str, float | None]:
        """The scores, and ``motion_error`` in pixels, which is no column."""
        if len(footage.captions) != 1:
            raise BadRequest(f"'{footage.name}' has {len(footage.captions)} captions; an edit has one.")
        source = self._read(footage.source or self._clip_of(footage.name))
        found = score_edit(source, footage.captions[0], footage.frames, self._tolerance)
        return {name: value for name, value in found.items() if name in (*self.columns, "motion_error")}

    def _clip_of(self, name: str) -> Path:
        from vidgen_core.evaluation.folder import video_files

        if self._source is None:
            raise BadRequest(
                "metric=edit_oracle compares with source clips: metrics.edit_oracle.source=<clip or folder>."
            )
        if not self._source.is_dir():
            return self._source
        clips = video_files(self._source)
        fitting = [clip for clip in clips if name == clip or name.startswith(f"{clip}_")]
        if not fitting:
            raise BadRequest(f"metrics.edit_oracle.source={self._source} has no clip of which '{name}' is an edit.")
        return clips[max(fitting, key=len)]

    def _read_source(self, clip: Path) -> Source:
        from vidgen_core.video import read_video

        return Source.read(read_video(clip), self._objects)
