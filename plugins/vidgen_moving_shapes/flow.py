"""Optical flow without an estimator: the oracle tells where the one object is, and everything else stands still."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vidgen_core.errors import BadRequest
from vidgen_moving_shapes.edit_oracle import SMALLEST
from vidgen_moving_shapes.oracle import UNIT_AREA, object_mask, read_frame
from vidgen_moving_shapes.shapes import CANVAS


class ObjectFlow:
    """The flow of a clip of one object: its mask moves with its centre and grows around it; the ground is 0.

    Between two frames of which one shows no object nothing moves.
    """

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(P, 2, CANVAS, CANVAS) of P + 1 frames (P + 1, CANVAS, CANVAS, 3). Raises BadRequest for another size."""
        if frames.shape[1:3] != (CANVAS, CANVAS):
            raise BadRequest(
                f"flow=moving_shapes reads frames of {CANVAS}x{CANVAS} pixels, not {frames.shape[2]}x"
                f"{frames.shape[1]}. Frames of Moving Shapes must not be resized: metrics.mawe.resize=0."
            )
        rows, columns = np.mgrid[:CANVAS, :CANVAS].astype(np.float32)
        pixels = np.stack([columns, rows])
        flows = np.zeros((len(frames) - 1, *pixels.shape), np.float32)
        readings = [read_frame(frame) for frame in frames]
        for flow, frame, (now, then) in zip(flows, frames, pairwise(readings), strict=False):
            if min(now.size, then.size) < SMALLEST:
                continue
            # By the areas: a frame that is read as another shape would make the size jump.
            growth = (then.size**2 * UNIT_AREA[then.shape] / (now.size**2 * UNIT_AREA[now.shape])) ** 0.5
            centre, target = (np.array(reading.position, np.float32)[:, None, None] for reading in (now, then))
            mask = object_mask(frame)
            flow[:, mask] = (target + (pixels - centre) * growth - pixels)[:, mask]
        return flows
