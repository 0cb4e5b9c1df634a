"""Stagnation: does a long video still move at its end as it did at its beginning?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vidgen_core.metrics.flow import LEAST_MOTION, motion, neighbours
from vidgen_core.metrics.footage import no_score

if TYPE_CHECKING:
    from vidgen_core.metrics.chunks import Chunks
    from vidgen_core.metrics.flow import Flow
    from vidgen_core.metrics.footage import Footage


class Stagnation:
    """The share of its motion that a video has lost: 0 moves on as it began, 1 stands still, below 0 it moves more.

    Motion is the mean length of the optical flow, over the pairs inside a chunk: a jump at a join is no motion.

    Args:
        ends: Share of the chunks, and at least one, that is compared at the beginning and at the end; 0 to 0.5.
        least_motion: Mean pixels a frame up to which the first chunks stand still, and there is nothing to lose.
    """

    columns = numbers = ("stagnation",)
    needs_captions = False

    def __init__(self, flow: Flow, chunks: Chunks, ends: float = 0.25, least_motion: float = LEAST_MOTION) -> None:
        self._flow, self._chunks, self._ends, self._least = flow, chunks, ends, least_motion

    def score(self, footage: Footage) -> dict[str, float | None]:
        """The score, and in pixels a frame the motion of the first and of the last chunks, and of each in order.

        The report has them all in ``results.json``: ``motion_chunk_000`` and so on, as means over the videos too.
        """
        chunks = [chunk for chunk in self._chunks.of(footage) if len(chunk) > 1] if footage.count > 1 else []
        if len(chunks) < 2:
            no_score("stagnation", footage, "has fewer than two chunks of two frames or more")
            return {"stagnation": None}
        steps = np.concatenate([motion(self._flow(frames)) for frames in neighbours(footage)])
        by_chunk = [steps[chunk.start : chunk.stop - 1].mean() for chunk in chunks]
        some = max(int(self._ends * len(chunks)), 1)
        first, last = float(np.mean(by_chunk[:some])), float(np.mean(by_chunk[-some:]))
        moves = first > self._least
        if not moves:
            no_score("stagnation", footage, f"moves by no more than {self._least} pixels in its first chunks")
        series = {f"motion_chunk_{index:03d}": float(mean) for index, mean in enumerate(by_chunk)}
        score = 1 - last / first if moves else None
        return {"stagnation": score, "motion_first": first, "motion_last": last, **series}
