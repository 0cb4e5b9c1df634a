"""Make-A-Video (arXiv 2209.14792, section 3.2): pseudo-3D convolutions and attention, conditioned on the frame rate.

B videos, F frames, C channels, H W cells, D width of the time embedding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import TimestepEmbedding, get_timestep_embedding
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from vidgen_core.models.unet2d import ImageBackbone
from vidgen_tune_a_video.along_frames import FrameAttention, FrameConv, zeroed


def layers(backbone: ImageBackbone, fps: Callable[[], float]) -> dict[str, nn.Module]:
    """A 1D convolution behind every spatial one, an attention behind each transformer, and the embedded frame rate.

    Every convolution that looks at neighbours in space is followed by one that looks at neighbours in time: those of
    residual blocks, of down- and upsampling, the first and the last. One of 1 x 1 looks at none: it is a linear map
    of a pixel, inside a shortcut or a transformer, and stays as it is.

    Args:
        fps: Frames per second of the videos of the call in progress.
    """
    made: dict[str, nn.Module] = {"time_embedding": FrameRate(backbone.denoiser.time_embedding, fps)}
    for name, module in backbone.denoiser.named_modules():
        if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1:
            made[name] = DiracConv(module.out_channels)
        elif isinstance(module, Transformer2DModel):
            made[name] = FrameAttention(module, backbone.attention, backbone.attend)
    return made


class DiracConv(nn.Module):
    """The second half of a pseudo-3D convolution: along frames, the identity at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = zeroed(FrameConv(channels))
        nn.init.dirac_(self.conv.weight)

    def forward(self, x: Tensor, frames: int, time: Tensor | None = None) -> Tensor:
        """(B*F, C, H, W) -> the same shape."""
        return self.conv(x.unflatten(0, (-1, frames)).transpose(1, 2)).transpose(1, 2).flatten(0, 1)


class FrameRate(nn.Module):
    """The time embedding + an embedding of the frame rate, which is zero at first.

    Args:
        time_embedding: What it follows; as wide.
        fps: Frames per second of the call in progress.
    """

    def __init__(self, time_embedding: TimestepEmbedding, fps: Callable[[], float]) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(time_embedding.linear_1.in_features, time_embedding.linear_1.out_features)
        self.linear_2 = zeroed(nn.Linear(*time_embedding.linear_2.weight.shape[::-1]))
        self.fps = fps

    def forward(self, x: Tensor, frames: int, time: Tensor | None = None) -> Tensor:
        """(B*F, D) -> the same shape."""
        rate = get_timestep_embedding(torch.tensor([float(self.fps())], device=x.device), self.linear_1.in_features)
        return x + self.linear_2(F.silu(self.linear_1(rate.to(x.dtype))))
