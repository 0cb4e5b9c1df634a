"""Depth as a latent channel, as depth-conditioned image models of the Stable Diffusion 2 layout were trained on it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vidgen_core.errors import BadRequest, nearest

EXTREMES_OVER = {"per_frame": (-2, -1), "per_clip": (-3, -2, -1)}
"""What a map's smallest and largest values are looked for in: every frame by itself, or all frames of a video."""


def depth_channel(nearness: Tensor, size: tuple[int, int], normalise: str = "per_frame") -> Tensor:
    """Relative inverse depth as the network reads it: d -> 2 (d - min) / (max - min) - 1, from -1 (far) to 1 (near).

    Resizing and arithmetic are those of diffusers' ``StableDiffusionDepth2ImgPipeline``, but a map without depth,
    which is 0/0 there, becomes zeros. Any a * d + c with a > 0 gives the same channel as d.

    Args:
        nearness: (B, F, H, W), larger is nearer, any scale.
        size: Height and width of the latents.
        normalise: ``per_frame``, which the published model was trained on, lets every frame span -1 .. 1, so that
            depth flickers where an object enters or leaves; ``per_clip`` lets the F frames span it together.

    Returns:
        (B, 1, F, h, w) float32, for the named condition ``channels``.

    Raises:
        BadRequest: a map holds a number that is not finite, or ``normalise`` is unknown.
    """
    if normalise not in EXTREMES_OVER:
        raise BadRequest(f"normalise={normalise} is no way to scale depth.{nearest(normalise, EXTREMES_OVER)}")
    maps = nearness.float()
    broken = (~maps.isfinite()).flatten(2).any(-1).nonzero().tolist()
    if broken:
        video, frame = broken[0]
        raise BadRequest(f"The depth map of frame {frame} of video {video} holds NaN or infinity. Mend the map.")
    maps = functional.interpolate(maps, size, mode="bicubic", align_corners=False)
    low, high = (extreme(maps, EXTREMES_OVER[normalise], keepdim=True) for extreme in (torch.amin, torch.amax))
    # Resizing gives a flat map a relief of rounding errors, one in a million (measured), which must not be stretched.
    flat = high - low <= 1e-5 * torch.maximum(low.abs(), high.abs())
    return torch.where(flat, 0, 2 * (maps - low) / (high - low) - 1)[:, None]
