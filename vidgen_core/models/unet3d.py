"""Text-to-video models around ``UNet3DConditionModel``: ModelScope, ZeroScope, and any folder of that layout."""

from __future__ import annotations

from typing import Any

import torch

from vidgen_core.errors import BadRequest, nearest
from vidgen_core.models import loading
from vidgen_core.models.backbone import Backbone

DIFFUSIONS = {"v_zero_snr": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}}
"""What a model can be trained to tell instead: the velocity, from pure noise on (arXiv 2305.08891)."""


def load(
    path: str,
    *,
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
    trained_frames: int = 0,
    diffusion: str | None = None,
    denoiser: Any = None,
) -> Backbone:
    """The backbone in a diffusers folder, a folder of an installed package (``pkg://``), or a hub id.

    Args:
        variant: Which weight files to prefer, such as ``fp16``; the plain ones where there are none.
        trained_frames: Frames the model was trained for; a longer clip warns.
        diffusion: What a training is to make of it, one of ``DIFFUSIONS``; None is as the folder's scheduler says.
        denoiser: A network to take in the place of the folder's UNet.

    Raises:
        BadRequest: the folder is no model, or its weights are missing, damaged, pickled or of another shape; or an
            unknown diffusion.
    """
    if diffusion is not None and diffusion not in DIFFUSIONS:
        raise BadRequest(f"model.diffusion={diffusion} is not known.{nearest(diffusion, DIFFUSIONS)}")
    from diffusers import UNet3DConditionModel

    path = loading.resolve(path)
    small = loading.small_parts(path)
    if diffusion is not None:
        small["scheduler_config"] = {**small["scheduler_config"], **DIFFUSIONS[diffusion]}
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
