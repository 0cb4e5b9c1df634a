"""The oracle as a metric: does the video of a story show what is told, and keep what is not told to change?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidgen_core.errors import BadRequest
from vidgen_moving_shapes.combinations import Combination
from vidgen_moving_shapes.oracle import UNIT_AREA, Reading, read
from vidgen_moving_shapes.shapes import CANVAS
from vidgen_moving_shapes.told import told

if TYPE_CHECKING:
    from vidgen_core.metrics.footage import Footage

AROUND = 2
"""Frames on each side of a cut in which an object that goes on may not jump."""


class StoryOracle:
    """Scores in 0..1 for a story, on each of which the rendered truth has 1.

    - ``entity``: the share of cuts at which no entity changes unasked. Where the story keeps it, shape and colour are
      those of the scene before, and position and size run on. Where the story replaces it, shape and colour are still
      those of before (a matter of adherence, not of consistency) or those that are told.
    - ``background``: the share of cuts at which the ground does not change unasked, in the same sense.
    - ``text``: the share of scenes that show shape, colour, ground and motion all as told.

    Args:
        jump: Pixels that the centre may move from frame to frame around a cut; an object moves 1.5 at the most.
        growth: Ratio of sizes from frame to frame around a cut; a growing object reaches 1.05.
    """

    columns = ("entity", "background", "text")

    def __init__(self, jump: float = 3.0, growth: float = 1.12) -> None:
        self.jump = jump
        self.growth = growth

    def score(self, footage: Footage) -> dict[str, float | None]:
        """The three scores, and what they are made of; None where a story has no cut."""
        frames, truth = footage.frames, told(footage.captions)
        if frames.shape[1:3] != (CANVAS, CANVAS):
            raise BadRequest(
                f"'{footage.name}' has frames of {frames.shape[2]}x{frames.shape[1]} pixels. The oracle reads Moving "
                f"Shapes of {CANVAS}x{CANVAS}; leave metric=oracle out for other videos."
            )
        scenes = [read(frames[span.start : span.stop]) for span in footage.spans]
        cuts = [self._cut(*pair) for pair in pairwise(zip(scenes, truth, strict=True))]
        right = np.array([_right(*scene) for scene in zip(scenes, truth, strict=True)])
        details: dict[str, float | None] = {
            name: float(share) for name, share in zip(ATTRIBUTES, right.mean(axis=0), strict=True)
        }
        for number, name in enumerate(("identity", "position", "size")):
            values = [cut[0][number] for cut in cuts if cut[0] is not None]
            details[f"kept_{name}"] = _mean(values)
        return {
            "entity": _mean([cut[1] for cut in cuts]),
            "background": _mean([cut[2] for cut in cuts]),
            "text": float(right.all(axis=1).mean()),
            **details,
        }

    def _cut(
        self, before: tuple[Reading, Combination], after: tuple[Reading, Combination]
    ) -> tuple[tuple[bool, bool, bool] | None, bool, bool]:
        """At one cut: what a kept entity keeps (identity, position, size), then entity and ground consistent or not."""
        (old, (old_entity, _, old_ground)), (new, (entity, _, ground)) = before, after
        same = (new.shape, new.colour) == (old.shape, old.colour)
        ground_holds = new.ground == old.ground or (ground != old_ground and new.ground == ground)
        if entity != old_entity:
            return None, same or (new.shape, new.colour) == (entity.shape, entity.colour), ground_holds
        position, size = self._runs_on(old, new)
        return (same, position, size), same and position and size, ground_holds

    def _runs_on(self, old: Reading, new: Reading) -> tuple[bool, bool]:
        positions = np.concatenate([old.positions[-AROUND:], new.positions[:AROUND]])
        sizes = np.maximum(np.concatenate([_extents(old)[-AROUND:], _extents(new)[:AROUND]]), 1e-3)
        steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
        ratios = np.exp(np.abs(np.diff(np.log(sizes))))
        return bool(steps.max() <= self.jump), bool(ratios.max() <= self.growth)


ATTRIBUTES = ("shape", "colour", "ground", "motion")


def _right(reading: Reading, truth: Combination) -> tuple[bool, ...]:
    entity, motion, ground = truth
    return (
        reading.shape == entity.shape,
        reading.colour == entity.colour,
        reading.ground == ground,
        reading.motion == motion,
    )


def _extents(reading: Reading) -> NDArray[np.float64]:
    """Root of the area (F,), pixels, which does not depend on the shape that each frame is read as."""
    return np.array([frame.size * UNIT_AREA[frame.shape] ** 0.5 for frame in reading.frames])


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
