"""Image models around ``UNet2DConditionModel`` (the Stable Diffusion 1.x and 2.x layouts), frame by frame.

A video of such a model is a stack of images: B videos of F frames are B * F rows of the network's batch. One frame is
an image. Methods that turn an image model into a video model build on this backbone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vidgen_core.errors import BadRequest
from vidgen_core.models import loading
from vidgen_core.models.backbone import Backbone, ModelInput


class ImageBackbone(Backbone):
    """A denoiser of the UNet2D family with its VAE and text encoder; every frame is denoised by itself."""

    pipeline = "StableDiffusionPipeline"

    frames = 1
    """F of the network's call in progress, or of the last; temporal layers that a method inserts read it."""

    def _denoise(self, network: Any, latents: Tensor, t: Tensor, inputs: ModelInput) -> Tensor:
        batch, _, frames = latents.shape[:3]
        self.frames = frames
        rows = latents.transpose(1, 2).flatten(0, 1)  # (B*F, C, h, w), the order in which texts are gathered
        if t.ndim and len(t) > 1:  # in training every video has a timestep of its own
            t = t.repeat_interleave(frames)
        assert inputs.placeholder is not None
        text = inputs.placeholder.expand(batch, frames, -1).reshape(batch * frames, 1, -1)
        out: Tensor = network(rows, t, encoder_hidden_states=text, return_dict=False)[0]
        return out.unflatten(0, (batch, frames)).transpose(1, 2)


def load(
    path: str,
    *,
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
    trained_frames: int = 0,
    denoiser: Any = None,
) -> ImageBackbone:
    """The backbone in a diffusers folder, a folder of an installed package (``pkg://``), or a hub id.

    Args:
        variant: Which weight files to prefer, such as ``fp16``; the plain ones where there are none.
        trained_frames: Frames the model was trained for; 0 where frames know nothing of each other.
        denoiser: A network to take in the place of the folder's UNet.

    Raises:
        BadRequest: the folder is no model, or its weights are missing, damaged, pickled or of another shape; or the
            network wants conditions beside text and latent channels, as SDXL does.
    """
    from diffusers import UNet2DConditionModel

    path = loading.resolve(path)
    small = loading.small_parts(path)
    unet = denoiser or loading.load_component(UNet2DConditionModel, path, "unet", dtype, variant)
    refuse_unknown_conditions(unet, path)
    backbone = ImageBackbone(
        unet,
        **loading.large_parts(path, dtype, variant),
        **small,
        trained_frames=trained_frames,
    )
    backbone.pipeline = loading.pipeline_of(path) or ImageBackbone.pipeline
    return backbone


def refuse_unknown_conditions(unet: Any, path: str) -> None:
    """Raise BadRequest for a network that reads what this backbone cannot give it."""
    for key in ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type"):
        if unet.config.get(key) is not None:
            raise BadRequest(
                f"The model '{path}' reads more than text: its {key} is '{unet.config[key]}'. Stable Diffusion 1.x "
                "and 2.x, and models of their layout, can be used."
            )
