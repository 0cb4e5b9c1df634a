"""Sparse spatio-temporal attention (arXiv 2212.11565, section 3.2): frame i attends to the first frame and to i - 1.

    out_i = softmax(Q_i [K_0 ; K_{i-1}]^T / sqrt(d)) [V_0 ; V_{i-1}]

Frames 0 and 1 see frame 0 twice, which is plain attention to it. Keys and values are projected once per frame. Where
the kernel tells the logarithm of each query's normaliser, no key is ever copied: the two halves are attended one after
the other and merged, exactly. B videos, F frames, h heads, N tokens of a frame, d head width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from vidgen_core.attention import Attend, attended, project_out, split_heads
from vidgen_tune_a_video.merged_attention import merges, two_sources


class SparseCausalAttention:
    """The processor of a self-attention over folded frames (B*F, N, D).

    Args:
        backend: The kernel's name; ``math`` materialises every score, as the published code does.
        attend: The kernel.
        frames: Tells F of the call in progress.
    """

    def __init__(self, backend: str, attend: Attend, frames: Callable[[], int]) -> None:
        self.backend = backend
        self.attend = attend
        self.frames = frames

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        frames = self.frames()
        q, k, v = (split_heads(to(hidden_states), attn.heads) for to in (attn.to_q, attn.to_k, attn.to_v))
        q, k, v = (x.unflatten(0, (-1, frames)) for x in (q, k, v))
        return project_out(attn, attended(attn, self.over_frames, q, k, v).flatten(0, 1))

    def over_frames(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, F, h, N, d) -> the same shape."""
        if self.backend == "math":
            return _materialised(self.attend, q, k, v)
        if q.shape[1] > 2 and self.backend == "sdpa" and merges(q):
            return _merged(self.attend, q, k, v)
        return _concatenated(self.attend, q, k, v)


def _materialised(attend: Attend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As published, all of (B, F, h, N, d): every frame's keys are gathered twice over and all scores are made."""
    before = torch.arange(q.shape[1], device=q.device).sub(1).clamp(min=0)
    k, v = (torch.cat([x[:, :1].expand_as(x), x[:, before]], dim=3) for x in (k, v))
    return attend(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)).view_as(q)


def _concatenated(attend: Attend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """With any kernel: frames 0 and 1 attend to frame 0 alone, later ones to both frames' keys put together."""
    first = _to_first(attend, q[:, :2], k, v)
    if q.shape[1] <= 2:
        return first
    k, v = (torch.cat([x[:, :1].expand_as(x[:, 1:-1]), x[:, 1:-1]], dim=3) for x in (k, v))
    later = q[:, 2:]
    out = attend(later.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1))
    return torch.cat([first, out.view_as(later)], dim=1)


def _merged(attend: Attend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Without a copy of any key: later frames attend to the first and to the one before, and the two are merged."""
    first = _to_first(attend, q[:, :2], k, v)
    later = q[:, 2:]
    out = two_sources(later, k[:, 0], v[:, 0], k[:, 1:-1], v[:, 1:-1])
    return torch.cat([first, out], dim=1)


def _to_first(attend: Attend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Queries (B, F, h, N, d) of several frames over the keys of frame 0: frames are folded into the query axis."""
    folded = q.transpose(1, 2).flatten(2, 3)  # B h F*N d
    out = attend(folded, k[:, 0], v[:, 0])
    return out.unflatten(2, (q.shape[1], -1)).transpose(1, 2)
