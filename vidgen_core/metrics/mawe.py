"""MAWE, the motion-aware warp error (Henschel et al. 2024, arXiv 2403.14773): warp error for the amount of motion.

A frame is moved by its optical flow and compared with the next one. What follows the flow costs nothing, and more
motion forgives more error, so that neither a still picture nor flicker does well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidgen_core.metrics.flow import LEAST_MOTION, motion, neighbours
from vidgen_core.metrics.footage import no_score

if TYPE_CHECKING:
    from vidgen_core.metrics.flow import Flow
    from vidgen_core.metrics.footage import Footage

C = 9.5
"""The published constant, which brings both factors to one scale."""


def warp(frame: NDArray[np.uint8], flow: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A frame (H, W, 3) moved along its forward flow (2, H, W), and where (H, W) anything arrived.

    Every pixel goes to the nearest one to its target, halves to the even one; what leaves the picture is dropped. Of
    several that arrive at one place the last in raster order stays; where nothing arrives the frame is black.
    """
    height, width = frame.shape[:2]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    x, y = np.rint(columns + flow[0]), np.rint(rows + flow[1])
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    target = (y[inside] * width + x[inside]).astype(np.intp)
    moved = np.zeros((height * width, 3), frame.dtype)
    moved[target] = frame[inside]  # NumPy assigns in order: the last one stays
    known = np.zeros(height * width, dtype=bool)
    known[target] = True
    return moved.reshape(frame.shape), known.reshape(height, width)


def warp_error(left: NDArray[np.uint8], right: NDArray[np.uint8], flow: NDArray[np.float32]) -> float:
    """The mean squared difference, of values in 0..255, between a frame (H, W, 3) moved along ``flow`` and the next.

    Only pixels where something arrived count; 0 where nothing arrived at all.
    """
    moved, known = warp(left, flow)
    difference = right[known].astype(np.float64) - moved[known]
    return float((difference**2).mean()) if len(difference) else 0.0


def mean_of_ratios(errors: Sequence[float], motions: Sequence[float], c: float = C, least: float = 0.0) -> float | None:
    """What the published program computes: the mean over pairs of error / (c motion).

    Pairs with ``motion <= least`` are left out, since their ratio says nothing; None where no other is left.
    """
    ratios = [error / (c * moved) for error, moved in zip(errors, motions, strict=True) if moved > least]
    return float(np.mean(ratios)) if ratios else None


def ratio_of_means(errors: Sequence[float], motions: Sequence[float], c: float = C, least: float = 0.0) -> float | None:
    """What the paper defines: the video's mean error / (c mean motion), over all pairs; None where nothing moves."""
    return float(np.mean(errors) / (c * np.mean(motions))) if len(motions) and np.mean(motions) > least else None


class Mawe:
    """MAWE of the code and of the paper; lower is better.

    Args:
        flow: Estimates the flow of the resized frames.
        resize: Side in pixels of the square that every frame becomes first, as published; 0 leaves frames as they are.
        least_motion: Mean pixels of motion up to which a pair is still: ``mean_of_ratios`` leaves it out, and the
            report counts it.
    """

    columns = numbers = ("mawe", "mawe_of_means")
    needs_captions = False

    def __init__(self, flow: Flow, resize: int = 720, least_motion: float = LEAST_MOTION) -> None:
        self._flow, self._resize, self._least = flow, resize, least_motion
        self._pairs = self._still = 0

    def score(self, footage: Footage) -> dict[str, float | None]:
        """Both, and what they are made of: the mean error, the mean motion in pixels, the number of still pairs."""
        errors: list[float] = []
        motions: list[float] = []
        for block in neighbours(footage):
            frames = resized(block, self._resize)
            flows = self._flow(frames)
            motions += motion(flows).tolist()
            errors += map(warp_error, frames, frames[1:], flows)
        if not motions:
            no_score("mawe", footage, "has one frame and no pair to compare")
            return dict.fromkeys(self.columns)
        still = sum(moved <= self._least for moved in motions)
        if still == len(motions):
            no_score("mawe", footage, f"moves by no more than {self._least} pixels in every pair of frames")
        self._pairs, self._still = self._pairs + len(motions), self._still + still
        return {
            "mawe": mean_of_ratios(errors, motions, least=self._least),
            "mawe_of_means": ratio_of_means(errors, motions, least=self._least),
            "mawe_error": float(np.mean(errors)),
            "mawe_motion": float(np.mean(motions)),
            "mawe_still_pairs": float(still),
        }

    def account(self) -> Mapping[str, int]:
        """Pairs of all videos, and how many were still."""
        return {"pairs": self._pairs, "still pairs left out": self._still}


def resized(frames: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Frames (F, H, W, 3) as squares: bilinear without antialiasing, whatever their aspect, as published."""
    if not side:
        return frames
    import torch
    from torch.nn.functional import interpolate

    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    square = interpolate(pixels, (side, side), mode="bilinear", align_corners=False)
    found: NDArray[np.uint8] = square.round().byte().permute(0, 2, 3, 1).numpy()
    return found
