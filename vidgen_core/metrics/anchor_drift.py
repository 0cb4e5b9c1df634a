"""Drift: how far does a long video leave the looks of its first frame, the anchor?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vidgen_core.metrics.clip import AT_ONCE
from vidgen_core.metrics.footage import no_score

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vidgen_core.metrics.clip import Clip
    from vidgen_core.metrics.footage import Footage


class AnchorDrift:
    """Every later frame beside the first, over all of them and over the last few.

    - ``anchor_similarity``: cosine of the CLIP image features, a share with 1 as the best.
    - ``colour_drift``: Hellinger distance of the colour histograms, 0 for the same colours and 1 where none is shared.

    Args:
        end_frames: Frames that the scores ``.._end`` are the means of.
        bins: Levels of each of the three colours in the histogram.
    """

    columns = ("anchor_similarity", "anchor_similarity_end", "colour_drift", "colour_drift_end")
    numbers = ("colour_drift", "colour_drift_end")
    needs_captions = False

    def __init__(self, clip: Clip, end_frames: int = 8, bins: int = 8) -> None:
        self._clip, self._end, self._bins = clip, end_frames, bins

    def score(self, footage: Footage) -> dict[str, float | None]:
        """None for a video of one frame."""
        features = self._clip.frames(footage).numpy()
        if len(features) == 1:
            no_score("anchor_drift", footage, "has one frame and none that could drift")
            return dict.fromkeys(self.columns)
        colours = np.concatenate([histograms(frames, self._bins) for frames in footage.blocks(AT_ONCE)])
        shared = np.sqrt(colours[1:] * colours[0]).sum(axis=1)
        found: dict[str, float | None] = {}
        for name, values in (
            ("anchor_similarity", features[1:] @ features[0]),
            ("colour_drift", np.sqrt(np.maximum(1 - shared, 0))),  # rounding may leave a little less than nothing
        ):
            found |= {name: float(values.mean()), f"{name}_end": float(values[-self._end :].mean())}
        return found


def histograms(frames: NDArray[np.uint8], bins: int) -> NDArray[np.float64]:
    """The share of pixels of every colour, (F, bins ** 3), of frames (F, H, W, 3)."""
    levels = frames.astype(np.intp) * bins // 256
    colours = (levels @ (bins**2, bins, 1)).reshape(len(frames), -1)
    counts = [np.bincount(frame, minlength=bins**3) for frame in colours]
    return np.stack(counts) / colours.shape[1]
