"""Video Diffusion Models (arXiv 2204.03458, section 3): the space-time factorised U-Net, with relative positions.

Its convolutions are 1 x k x k, which are the image model's on each frame; what it adds is attention along frames.

B videos, F frames, C channels, H W cells, h heads, R the farthest distance with a position of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from vidgen_core.attention import attended, split_heads
from vidgen_core.models.unet2d import ImageBackbone
from vidgen_tune_a_video.along_frames import by_frame, by_pixel, zeroed


def layers(backbone: ImageBackbone, reach: int, images: Callable[[], int]) -> dict[str, nn.Module]:
    """An attention along frames behind each spatial transformer.

    Args:
        reach: R, in frames.
        images: How many of the last frames of the call in progress are images of their own.
    """
    named = backbone.denoiser.named_modules()
    return {name: RelativeAttention(m, reach, images) for name, m in named if isinstance(m, Transformer2DModel)}


def _with_added(added: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=added.to(q.dtype))


class RelativeAttention(nn.Module):
    """x + attention over the frames of each pixel, whose scores have a learned part for each distance in time.

        A_ij = q_i . k_j / sqrt(d) + B[clip(j - i, -R, R) + R]

    The order of frames is known by B alone. B and the output projection start at zero. The kernels of ``attention=``
    add nothing to scores, so torch's own is used whichever is chosen; it is one of F x F a pixel.

    Args:
        transformer: The spatial transformer that it follows; as wide, and with as many heads.
        reach: R, in frames.
        images: How many of the last frames of the call in progress are images: they attend to themselves alone, and
            no other frame to them (joint training, section 3 of the paper).
    """

    def __init__(self, transformer: Transformer2DModel, reach: int, images: Callable[[], int] = lambda: 0) -> None:
        super().__init__()
        width, spatial = transformer.in_channels, transformer.transformer_blocks[0].attn1
        self.heads, self.upcast_attention = spatial.heads, spatial.upcast_attention
        self.reach, self.images = reach, images
        self.norm = nn.LayerNorm(width)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.positions = nn.Parameter(torch.zeros(2 * reach + 1, self.heads))  # B
        self.to_out = zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor, frames: int, time: Tensor | None = None) -> Tensor:
        """(B*F, C, H, W) -> the same shape."""
        y = self.norm(by_pixel(x, frames))
        q, k, v = (split_heads(to(y), self.heads) for to in (self.to_q, self.to_k, self.to_v))
        mixed = attended(self, partial(_with_added, self.added(frames)), q, k, v)
        return x + by_frame(self.to_out(mixed.transpose(1, 2).flatten(2)), x)

    def added(self, frames: int) -> Tensor:
        """(h, F, F): what is added to the score of query i and key j; minus infinity forbids the pair."""
        place = torch.arange(frames, device=self.positions.device)
        apart = (place - place[:, None]).clamp(-self.reach, self.reach)
        image = place >= frames - self.images()
        forbidden = (image | image[:, None]) & (apart != 0)
        return self.positions[apart + self.reach].permute(2, 0, 1).masked_fill(forbidden, -torch.inf)
