"""The two CLIP scores of papers on video editing, as the LOVEU-TGVE evaluation computes them.

Both are shares here, as all scores are; tables show them times 100, which are the numbers that the papers print.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from vidgen_core.metrics.clip import Clip
    from vidgen_core.metrics.footage import Footage


class FrameConsistency:
    """The mean cosine over all pairs of different frames' features: neighbours and the far ends of a video alike.

    Args:
        resize: Side in pixels of the square that every frame is made first; 0 leaves frames as they are.
    """

    columns = ("frame_consistency",)

    def __init__(self, clip: Clip, resize: int = 480) -> None:
        self._clip, self._resize = clip, resize

    def score(self, footage: Footage) -> dict[str, float | None]:
        """1 for a still picture, also for a single frame, of which there is no pair."""
        features = self._clip.frames(footage, self._resize).double()
        count = len(features)
        if count == 1:
            return {"frame_consistency": 1.0}
        # The sum over all pairs is the squared length of the features' sum; each frame with itself gives its own.
        pairs = features.sum(0).square().sum() - features.square().sum()
        return {"frame_consistency": float(pairs / (count * (count - 1)))}


class TextualFaithfulness:
    """The mean over frames of the model's logit for the frame's caption: the cosine times the checkpoint's own scale.

    A published CLIP multiplies by 100, so that the share is the cosine; the logits of other models are comparable
    among themselves only.

    Args:
        resize: Side in pixels of the square that every frame is made first; 0 leaves frames as they are.
    """

    columns = ("textual_faithfulness",)

    def __init__(self, clip: Clip, resize: int = 480) -> None:
        self._clip, self._resize = clip, resize

    def score(self, footage: Footage) -> dict[str, float | None]:
        """The logits by 100; every frame counts alike, so longer scenes count more."""
        features, texts = self._clip.frames(footage, self._resize), self._clip.texts(footage.captions)
        fits = [features[span.start : span.stop] @ text for span, text in zip(footage.spans, texts, strict=True)]
        return {"textual_faithfulness": self._clip.scale * float(torch.cat(fits).mean()) / 100}
