"""Optical flow by OpenCV's classical estimators: nothing to fetch, the same numbers on every machine with one build."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidgen_core.errors import BadRequest, nearest

SMALLEST = 16
"""Pixels of the shorter side: dense inverse search reads outside smaller pictures."""
FARNEBACK = {"pyr_scale": 0.5, "levels": 3, "winsize": 15, "iterations": 3, "poly_n": 5, "poly_sigma": 1.2, "flags": 0}
"""What OpenCV's own samples take."""
METHODS = ("dis", "farneback")


class OpenCVFlow:
    """Flow of grey frames.

    Args:
        method: ``dis``, dense inverse search (Kroeger et al. 2016) at its medium preset, or ``farneback``, polynomial
            expansion (Farnebäck 2003).

    Raises:
        BadRequest: for another method, where OpenCV is missing, and for frames smaller than SMALLEST.
    """

    def __init__(self, method: str = "dis") -> None:
        if method not in METHODS:
            raise BadRequest(f"flow.method={method} is not known.{nearest(method, METHODS)}")
        try:
            import cv2
        except ImportError as error:
            raise BadRequest(
                f"flow=opencv needs OpenCV, which cannot be imported ({error}): pip install opencv-python-headless. "
                "Or choose another flow=."
            ) from error
        self._cv2: Any = cv2
        preset = cv2.DISOPTICAL_FLOW_PRESET_MEDIUM
        self._dis = self._cv2.DISOpticalFlow_create(preset) if method == "dis" else None

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(P, 2, H, W) of P + 1 frames (P + 1, H, W, 3)."""
        height, width = frames.shape[1:3]
        if min(height, width) < SMALLEST:
            raise BadRequest(f"flow=opencv needs frames of at least {SMALLEST} pixels a side, not {width}x{height}.")
        grey = [self._cv2.cvtColor(frame, self._cv2.COLOR_RGB2GRAY) for frame in frames]
        return np.stack([self._between(*pair).transpose(2, 0, 1) for pair in pairwise(grey)])

    def _between(self, left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.float32]:
        found: NDArray[np.float32]
        if self._dis is not None:
            found = self._dis.calc(left, right, None)
        else:
            found = self._cv2.calcOpticalFlowFarneback(left, right, None, **FARNEBACK)
        return found
