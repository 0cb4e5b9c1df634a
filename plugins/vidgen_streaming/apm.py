"""APM, the appearance preservation module (arXiv 2403.14773, section 4.2): the long-term memory of a video.

The image embedding of one anchor frame becomes tokens, and every text cross-attention mixes them into its text with a
weight of its own.

B videos, U distinct texts, L text tokens, T image tokens, D features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Resampler(nn.Sequential):
    """Image embeddings (B, E) as tokens (B, T, D).

    Args:
        width: E.
        hidden: Width of the hidden layer; 1280 as published.
        tokens: T; 16 as published.
        text_width: D.
    """

    def __init__(self, width: int, hidden: int, tokens: int, text_width: int) -> None:
        super().__init__(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, tokens * text_width))
        self.width, self.text_width = width, text_width

    def forward(self, embedding: Tensor) -> Tensor:
        tokens: Tensor = super().forward(embedding)
        return tokens.unflatten(-1, (-1, self.text_width))


class Mix(nn.Module):
    """Mixes image tokens into the text of one cross-attention (equation 4 of the paper); the text alone at first.

    The tokens are the convolution's channels: it slides along the D features.
    """

    def __init__(self, text_tokens: int, image_tokens: int, width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(()))
        self.conv = nn.Conv1d(text_tokens + image_tokens, text_tokens, 3, padding="same")
        self.conv_ln = nn.LayerNorm(width)

    def forward(self, text: Tensor, tokens: Tensor) -> Tensor:
        """(U, L, D) from text of that shape and the image tokens (U, T, D) of each."""
        mixed = self.conv_ln(self.conv(torch.cat([text, tokens], dim=1)))
        return text + F.silu(self.alpha) * mixed
