"""Optical flow: how far every pixel of a frame moves until the next. ``flow=`` chooses who estimates it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from vidgen_core.metrics.footage import Footage

AT_ONCE = 8
"""Frames that are in memory together, and one more."""


class Flow(Protocol):
    """Estimates forward flow. Built once for an evaluation from ``_target_`` and the options of its YAML file."""

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(P, 2, H, W), pixels along x and then y, from each of P + 1 frames (P + 1, H, W, 3) to the one after it."""
        ...


LEAST_MOTION = 0.001
"""Mean pixels of flow up to which a pair of frames is still: no estimator says 0 of frames that only look the same."""


def neighbours(footage: Footage) -> Iterator[NDArray[np.uint8]]:
    """A video in blocks (f, H, W, 3) of at least two frames, each pair of neighbours in exactly one block."""
    last = None
    for block in footage.blocks(AT_ONCE):
        frames = block if last is None else np.concatenate([last, block])
        if len(frames) > 1:
            yield frames
        last = frames[-1:]


def motion(flows: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean length in pixels (P,) of flows (P, 2, H, W)."""
    lengths: NDArray[np.float64] = np.hypot(flows[:, 0], flows[:, 1]).mean(axis=(1, 2), dtype=np.float64)
    return lengths
