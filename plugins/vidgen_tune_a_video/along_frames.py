"""What temporal layers of several systems are made of: a convolution and an attention along the frames of each pixel.

B videos, F frames, C channels, H W cells of a feature map.
"""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from vidgen_core.attention import Attend, SelfAttention

Layer = TypeVar("Layer", bound=nn.Module)


class FrameConv(nn.Conv1d):
    """A 1D convolution along the frames of every pixel, of kernel 3; zeros lie before the first and after the last."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, H, W) -> the same shape."""
        # As a 2D one over (frames, pixels): pixels stay side by side in memory, which is twice as fast.
        y = F.conv2d(x.flatten(3), self.weight[..., None], self.bias, padding=(1, 0))
        return y.unflatten(3, x.shape[3:])


class FrameAttention(nn.Module):
    """x + attention over the frames of each pixel, which knows their order by sinusoids added to its input.

    Its output projection starts at zero, weight and bias, so that a fresh layer changes nothing.

    Args:
        transformer: The spatial transformer that it follows; as wide, and with as many heads.
        backend: The kernel's name.
        attend: The kernel.
    """

    def __init__(self, transformer: Transformer2DModel, backend: str, attend: Attend) -> None:
        super().__init__()
        spatial = transformer.transformer_blocks[0].attn1
        self.norm = nn.LayerNorm(transformer.in_channels)
        self.attention = Attention(
            transformer.in_channels,
            heads=spatial.heads,
            dim_head=transformer.in_channels // spatial.heads,
            upcast_attention=spatial.upcast_attention,
            processor=SelfAttention(backend, attend),
        )
        zeroed(self.attention.to_out[0])

    def forward(self, x: Tensor, frames: int, time: Tensor | None = None) -> Tensor:
        """(B*F, C, H, W) -> the same shape."""
        y = self.norm(by_pixel(x, frames))
        places = get_timestep_embedding(torch.arange(frames, device=x.device), y.shape[-1])
        return x + by_frame(self.attention(y + places.to(y.dtype)), x)


def by_pixel(x: Tensor, frames: int) -> Tensor:
    """(B*F, C, H, W) -> (B*H*W, F, C)."""
    return x.unflatten(0, (-1, frames)).permute(0, 3, 4, 1, 2).flatten(0, 2)


def by_frame(y: Tensor, like: Tensor) -> Tensor:
    """(B*H*W, F, C) -> (B*F, C, H, W), the shape of ``like``."""
    return y.unflatten(0, (-1, *like.shape[2:])).permute(0, 3, 4, 1, 2).reshape(like.shape)


def zeroed(layer: Layer) -> Layer:
    """The layer, with all its parameters zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
