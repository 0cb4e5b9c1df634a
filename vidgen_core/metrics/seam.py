"""Seams: do frames differ more where two chunks of a long video join than inside the chunks?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vidgen_core.metrics.flow import neighbours
from vidgen_core.metrics.footage import no_score

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vidgen_core.metrics.chunks import Chunks
    from vidgen_core.metrics.footage import Footage


class Seam:
    """The mean difference of neighbouring frames over the joins, by the mean over all other pairs; 1 is seamless."""

    columns = numbers = ("seam",)
    needs_captions = False

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks

    def score(self, footage: Footage) -> dict[str, float | None]:
        """The ratio, and both means: absolute differences of values in 0..1."""
        if footage.count == 1:
            no_score("seam", footage, "has one frame and no pair to compare")
            return {"seam": None}
        joins = [chunk.start - 1 for chunk in self._chunks.of(footage)[1:]]  # pair p is of the frames p and p + 1
        steps = np.concatenate([_differences(frames) for frames in neighbours(footage)])
        at_joins, inside = steps[joins], np.delete(steps, joins)
        if not len(at_joins):
            no_score("seam", footage, "was made in one chunk")
            return {"seam": None}
        if not inside.any():
            no_score("seam", footage, "shows no change inside its chunks that the joins could be compared with")
            return {"seam": None, "seam_at_joins": float(at_joins.mean())}
        return {
            "seam": float(at_joins.mean() / inside.mean()),
            "seam_at_joins": float(at_joins.mean()),
            "seam_inside": float(inside.mean()),
        }


def _differences(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.abs(np.diff(frames.astype(np.float32) / 255, axis=0)).mean(axis=(1, 2, 3), dtype=np.float64)
