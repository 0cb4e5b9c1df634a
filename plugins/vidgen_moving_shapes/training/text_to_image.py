"""The objective of the text-to-image model: denoising by UNet2DConditionModel and its text encoder, both fresh."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from vidgen_core import hookimpl
from vidgen_core.models.backbone import Backbone
from vidgen_core.models.loading import load_component, resolve
from vidgen_core.models.unet2d import ImageBackbone
from vidgen_core.run import Run, build_model
from vidgen_core.training.denoising import Denoising
from vidgen_moving_shapes.tokenizer import build_tokenizer
from vidgen_moving_shapes.training.fresh import SCHEDULER, fresh_weights
from vidgen_moving_shapes.training.text import WIDTH, build_text_encoder


class TextToImage(Denoising):
    """Denoising of pictures by the image U-Net and its text encoder, which both train.

    Args:
        autoencoder: Folder with the trained ``vae``; None goes on from the model of the configuration.
        caption_dropout: Share of samples without captions.
    """

    def __init__(self, autoencoder: str | None = None, caption_dropout: float = 0.1) -> None:
        super().__init__(timesteps="stratified", caption_dropout=caption_dropout, posterior="mean")
        self.autoencoder = autoencoder

    @hookimpl
    def build_backbone(self, run: Run) -> Backbone:
        """A fresh U-Net and text encoder over the autoencoder's latents."""
        if self.autoencoder is None:
            return build_model(run)
        tokenizer = build_tokenizer()
        with fresh_weights(run.request.seed, "text_to_image"):
            unet, text_encoder = build_unet(), build_text_encoder(tokenizer)
        vae = load_component(AutoencoderKL, resolve(self.autoencoder), "vae", torch.float32)
        return ImageBackbone(unet, vae, text_encoder, tokenizer, scheduler_config=SCHEDULER)

    @hookimpl(claims=("denoiser", "text_encoder"))
    def trainable(self, backbone: Backbone) -> dict[str, Tensor]:
        """The U-Net and the text encoder."""
        parts = {"denoiser": backbone.denoiser, "text_encoder": backbone.text_encoder}
        return {f"{part}.{name}": p for part, module in parts.items() for name, p in module.named_parameters()}


def build_unet() -> UNet2DConditionModel:
    """3.9 M parameters over latents (4, 16, 16)."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 128),
        layers_per_block=1,
        norm_num_groups=16,
        cross_attention_dim=WIDTH,
        attention_head_dim=8,  # here the number of heads: 8 heads of 16
        use_linear_projection=True,
    )
