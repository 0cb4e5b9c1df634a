"""Text-to-video models around ``UNet3DConditionModel``: ModelScope, ZeroScope, and any folder of that layout."""

from __future__ import annotations

from typing import Any

import torch

from vidgen_core.models import loading
from vidgen_core.models.backbone import Backbone


def load(
    path: str,
    *,
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
    trained_frames: int = 0,
    denoiser: Any = None,
) -> Backbone:
    """The backbone in a diffusers folder, a folder of an installed package (``pkg://``), or a hub id.

    Args:
        variant: Which weight files to prefer, such as ``fp16``; the plain ones where there are none.
        trained_frames: Frames the model was trained for; a longer clip warns.
        denoiser: A network to take in the place of the folder's UNet.

    Raises:
        BadRequest: the folder is no model, or its weights are missing, damaged, pickled or of another shape.
    """
    from diffusers import UNet3DConditionModel

    path = loading.resolve(path)
    small = loading.small_parts(path)
    return Backbone(
        denoiser or loading.load_component(UNet3DConditionModel, path, "unet", dtype, variant),
        **loading.large_parts(path, dtype, variant),
        **small,
        trained_frames=trained_frames,
    )


def load_denoiser(path: str, *, dtype: torch.dtype = torch.float32, scheduler_config: Any = None) -> Backbone:
    """Only the UNet of a folder, for work on latents with supplied embeddings."""
    from diffusers import UNet3DConditionModel

    unet = loading.load_component(UNet3DConditionModel, loading.resolve(path), "unet", dtype)
    return Backbone(unet, scheduler_config=scheduler_config)
