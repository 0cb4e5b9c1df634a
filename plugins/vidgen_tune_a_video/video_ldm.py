"""VideoLDM (arXiv 2304.08818, section 3.1): temporal layers mixed into a frozen image model by learned weights.

    z = l_theta(x),    z' = l_phi(z),    out = alpha z + (1 - alpha) z'

B videos, F frames, C channels, H W cells, D width of the time embedding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from vidgen_core.models.unet2d import ImageBackbone
from vidgen_tune_a_video.along_frames import FrameAttention, FrameConv, zeroed


def layers(backbone: ImageBackbone) -> dict[str, nn.Module]:
    """A residual block behind each spatial one and an attention behind each transformer, each with its own alpha."""
    made: dict[str, nn.Module] = {}
    for name, module in backbone.denoiser.named_modules():
        if isinstance(module, ResnetBlock2D):
            made[name] = Mixed(FrameResnet(module))
        elif isinstance(module, Transformer2DModel):
            made[name] = Mixed(FrameAttention(module, backbone.attention, backbone.attend))
    return made


class Mixed(nn.Module):
    """alpha z + (1 - alpha) layer(z), alpha = sigmoid(a), a = 0 at first.

    Args:
        layer: A ``TemporalLayer`` that changes nothing at first: a sigmoid never skips it.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.a = nn.Parameter(torch.zeros(()))

    @property
    def alpha(self) -> Tensor:
        """The image model's share, in (0, 1)."""
        return self.a.sigmoid()

    def forward(self, z: Tensor, frames: int, time: Tensor | None = None) -> Tensor:
        """(B*F, C, H, W) -> the same shape."""
        # In this form an unchanged z' leaves z as it is, bit for bit.
        return z + (1 - self.alpha) * (self.layer(z, frames, time) - z)


class FrameResnet(nn.Module):
    """z + two convolutions along frames; norms over all frames of a video, and the time embedding in between.

    Args:
        spatial: The residual block that it follows; as wide, and with as many groups.
    """

    def __init__(self, spatial: ResnetBlock2D) -> None:
        super().__init__()
        channels, groups, eps = spatial.out_channels, spatial.norm2.num_groups, spatial.norm2.eps
        self.norm1 = nn.GroupNorm(groups, channels, eps)
        self.conv1 = FrameConv(channels)
        self.time_emb_proj = nn.Linear(spatial.time_emb_proj.in_features, channels)
        self.norm2 = nn.GroupNorm(groups, channels, eps)
        self.conv2 = zeroed(FrameConv(channels))

    def forward(self, z: Tensor, frames: int, time: Tensor | None = None) -> Tensor:
        """(B*F, C, H, W), time (B*F, D) -> (B*F, C, H, W)."""
        assert time is not None
        y = z.unflatten(0, (-1, frames)).transpose(1, 2)  # B C F H W
        y = self.conv1(F.silu(self.norm1(y)))
        y = y + self.time_emb_proj(F.silu(time)).unflatten(0, (-1, frames)).transpose(1, 2)[..., None, None]
        y = self.conv2(F.silu(self.norm2(y)))
        return z + y.transpose(1, 2).flatten(0, 1)
