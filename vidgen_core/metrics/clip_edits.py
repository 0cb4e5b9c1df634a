"""The two CLIP scores of papers on video editing, as the LOVEU-TGVE evaluation computes them.

Both are shares here, as all scores are; tables show them times 100, which are the numbers that the papers print.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from vidgen_core.metrics.clip import Clip
    from vidgen_core.metrics.footage import Footage


class FrameScore(ABC):
    """One number by the features of a video's frames.

    Args:
        resize: Side in pixels of the square that every frame is made first; 0 leaves frames as they are.
    """

    columns: tuple[str]

    def __init__(self, clip: Clip, resize: int = 480) -> None:
        self._clip, self._resize = clip, resize

    def score(self, footage: Footage) -> dict[str, float | None]:
        """The number, by its column."""
        return {self.columns[0]: self.value(self._clip.frames(footage, self._resize), footage)}

    @abstractmethod
    def value(self, features: Tensor, footage: Footage) -> float:
        """The number of a video whose frames have these features (F, D), of unit length."""


class FrameConsistency(FrameScore):
    """The mean cosine over all pairs of different frames' features: neighbours and the far ends of a video alike."""

    columns = ("frame_consistency",)

    def value(self, features: Tensor, footage: Footage) -> float:
        """1 for a still picture, also for a single frame, of which there is no pair."""
        features, count = features.double(), len(features)
        if count == 1:
            return 1.0
        # The sum over all pairs is the squared length of the features' sum; each frame with itself gives its own.
        pairs = features.sum(0).square().sum() - features.square().sum()
        return float(pairs / (count * (count - 1)))


class TextualFaithfulness(FrameScore):
    """The mean over frames of the model's logit for the frame's caption: the cosine times the checkpoint's own scale.

    A published CLIP multiplies by 100, so that the share is the cosine; the logits of other models are comparable
    among themselves only.
    """

    columns = ("textual_faithfulness",)

    def value(self, features: Tensor, footage: Footage) -> float:
        """The logits by 100; every frame counts alike, so longer scenes count more."""
        texts = self._clip.texts(footage.captions)
        fits = [features[span.start : span.stop] @ text for span, text in zip(footage.spans, texts, strict=True)]
        return self._clip.scale * float(torch.cat(fits).mean()) / 100
