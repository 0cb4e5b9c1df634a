"""The oracle for clips of one scene: what the caption says of looks, and what it says of motion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vidgen_core.errors import BadRequest
from vidgen_moving_shapes.oracle import read
from vidgen_moving_shapes.shapes import CANVAS
from vidgen_moving_shapes.told import told

if TYPE_CHECKING:
    from vidgen_core.metrics.footage import Footage


class CaptionOracle:
    """Scores in 0..1, on each of which a rendered clip has 1.

    - ``looks``: 1 where shape, colour and ground are all as told.
    - ``motion``: 1 where the motion is as told.
    - ``in_one_piece``: the share of frames that show the shape and the colour of the clip, whatever was told, where
      place and size run on from the frame before.

    Args:
        jump: Pixels that the centre may move from frame to frame; an object moves 1.5 in each of the world's.
        growth: Ratio of sizes from frame to frame; a growing object reaches 1.05 in each of the world's.
    """

    columns = ("looks", "motion", "in_one_piece")

    def __init__(self, jump: float = 5.0, growth: float = 1.2) -> None:
        self._jump, self._growth = jump, np.log(growth)

    def score(self, footage: Footage) -> dict[str, float | None]:
        """The three, and what ``looks`` is made of. Raises BadRequest for other frames or several scenes."""
        scenes = told(footage.captions)
        if len(scenes) != 1 or footage.frames.shape[1:3] != (CANVAS, CANVAS):
            raise BadRequest(
                f"'{footage.name}' is no clip of one scene and {CANVAS}x{CANVAS} pixels, which is what "
                "metric=caption_oracle reads. Leave it out; metric=oracle reads stories."
            )
        ((entity, motion, ground),) = scenes
        shown = read(footage.frames)
        right = {
            "shape": shown.shape == entity.shape,
            "colour": shown.colour == entity.colour,
            "ground": shown.ground == ground,
        }
        same = np.array([(f.shape, f.colour) == (shown.shape, shown.colour) for f in shown.frames])
        steps = np.linalg.norm(np.diff(shown.positions, axis=0), axis=1)
        ratios = np.abs(np.diff(np.log(np.maximum(shown.sizes, 1e-3))))
        runs_on = np.concatenate([[True], (steps <= self._jump) & (ratios <= self._growth)])
        return {
            "looks": float(all(right.values())),
            "motion": float(shown.motion == motion),
            "in_one_piece": float((same & runs_on).mean()),
            **{name: float(value) for name, value in right.items()},
        }
