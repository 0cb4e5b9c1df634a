"""Depth as a latent channel, as depth-conditioned image models of the Stable Diffusion 2 layout were trained on it."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def depth_channel(nearness: Tensor, size: tuple[int, int]) -> Tensor:
    """Relative inverse depth as the network reads it: every map resized and stretched to -1 (far) .. 1 (near).

    The arithmetic is that of diffusers' ``StableDiffusionDepth2ImgPipeline``; a map without depth is all far.

    Args:
        nearness: (B, F, H, W), larger is nearer, any scale.
        size: Height and width of the latents.

    Returns:
        (B, 1, F, h, w) float32, for the named condition ``channels``.
    """
    maps = functional.interpolate(nearness.float(), size, mode="bicubic", align_corners=False)
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (2 * (maps - low) / (high - low).clamp(min=1e-6) - 1)[:, None]
