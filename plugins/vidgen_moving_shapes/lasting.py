"""The oracle for long videos: is the object at the end still the one that was told, and the one of the beginning?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidgen_core.errors import BadRequest
from vidgen_moving_shapes.oracle import object_mask, read
from vidgen_moving_shapes.shapes import CANVAS
from vidgen_moving_shapes.told import told

if TYPE_CHECKING:
    from vidgen_core.metrics.footage import Footage


class Lasting:
    """What the last frames show, against the caption and against the first frames.

    - ``colour_lasts``, ``shape_lasts``: 1 where the last frames show the colour and the shape that were told.
    - ``tint_drift``: how far object and ground have moved from their tints in the first frames, as the mean of two
      distances of RGB in 0..255. No caption tells a tint, so only a video that remembers keeps it.

    Args:
        frames: How many frames at each end are read.
    """

    columns = ("colour_lasts", "shape_lasts", "tint_drift")
    numbers = ("tint_drift",)

    def __init__(self, frames: int = 4) -> None:
        self.frames = frames

    def score(self, footage: Footage) -> dict[str, float | None]:
        """The three, and ``ground_lasts``."""
        entity, _, ground = told(footage.captions)[-1]
        first = footage.frames[: self.frames]
        last = footage.frames[-self.frames :]
        if last.shape[1:3] != (CANVAS, CANVAS):
            raise BadRequest(
                f"'{footage.name}' has frames of {last.shape[2]}x{last.shape[1]} pixels. The oracle reads Moving "
                f"Shapes of {CANVAS}x{CANVAS}; leave metric=lasting out for other videos."
            )
        shown = read(last)
        drift = [np.linalg.norm(a - b) for a, b in zip(_tints(first), _tints(last), strict=True)]
        return {
            "colour_lasts": float(shown.colour == entity.colour),
            "shape_lasts": float(shown.shape == entity.shape),
            "tint_drift": float(np.mean(drift)),
            "ground_lasts": float(shown.ground == ground),
        }


def _tints(frames: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The median colours (3,) of object and ground over some frames."""
    masks = np.stack([object_mask(frame) for frame in frames])
    if not masks.any():
        return (np.median(frames.reshape(-1, 3), axis=0),) * 2
    return np.median(frames[masks], axis=0), np.median(frames[~masks], axis=0)
