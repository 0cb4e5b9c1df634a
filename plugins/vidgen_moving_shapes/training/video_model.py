"""The video model as training sees it: built from the image model, fed with one text per frame."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel, UNet3DConditionModel
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoTokenizer, CLIPTextModel, PreTrainedTokenizerFast

from vidgen_moving_shapes.training.autoencoder import to_tensor
from vidgen_moving_shapes.training.clips import CaptionedClip
from vidgen_moving_shapes.training.diffusion import build_scheduler, noised, use_materialised_attention
from vidgen_moving_shapes.training.text import WIDTH, encode_captions

HEAD_WIDTH = 16
TEMPORAL_PARTS = ("temp_convs", "temp_attentions", "transformer_in")


def is_temporal(name: str) -> bool:
    """Whether a parameter of the video U-Net has no counterpart in the image U-Net."""
    return any(part in name for part in TEMPORAL_PARTS)


def build_unet(image_unet: UNet2DConditionModel) -> UNet3DConditionModel:
    """The image model applied to every frame: temporal layers start as the identity."""
    unet = UNet3DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock3D", "CrossAttnDownBlock3D"),
        up_block_types=("CrossAttnUpBlock3D", "UpBlock3D"),
        block_out_channels=(64, 128),
        layers_per_block=1,
        norm_num_groups=16,
        cross_attention_dim=WIDTH,
        attention_head_dim=HEAD_WIDTH,  # here the width of a head
    )
    missing, unexpected = unet.load_state_dict(image_unet.state_dict(), strict=False)
    if unexpected or not all(is_temporal(name) for name in missing):
        raise ValueError(f"the image model does not fit: missing {missing}, unexpected {unexpected}")
    for name, weight in unet.named_parameters():
        if is_temporal(name) and "proj_out" in name:
            nn.init.zeros_(weight)
    return without_dropout(unet)


def without_dropout(unet: UNet3DConditionModel) -> UNet3DConditionModel:
    """The temporal convolutions of the class have a dropout of 0.1 that so small a model cannot afford."""
    for module in unet.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return unet


class FrameText:
    """Gives every frame its own text: UNet3DConditionModel itself repeats one text over all frames."""

    def __init__(self, unet: UNet3DConditionModel) -> None:
        self.text: Tensor | None = None
        """(B * F, L, C), or None for one text a clip."""
        for module in unet.modules():
            if isinstance(module, Transformer2DModel):
                module.register_forward_pre_hook(self._replace, with_kwargs=True)

    def _replace(
        self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self.text is not None:
            keywords["encoder_hidden_states"] = self.text
        return arguments, keywords


@dataclass
class VideoModel:
    """The parts that the video loss needs."""

    tokenizer: PreTrainedTokenizerFast
    text_encoder: CLIPTextModel
    unet: UNet3DConditionModel
    vae: AutoencoderKL
    scheduler: DDIMScheduler

    def __post_init__(self) -> None:
        use_materialised_attention(self.unet)
        self.vae.requires_grad_(False)
        self.trained = nn.ModuleDict({"text_encoder": self.text_encoder, "unet": self.unet}).train()
        self._frame_text = FrameText(self.unet)

    @classmethod
    def from_image_pipeline(cls, folder: Path) -> "VideoModel":
        return cls(
            AutoTokenizer.from_pretrained(folder, subfolder="tokenizer"),
            CLIPTextModel.from_pretrained(folder, subfolder="text_encoder"),
            build_unet(UNet2DConditionModel.from_pretrained(folder, subfolder="unet")),
            AutoencoderKL.from_pretrained(folder, subfolder="vae"),
            build_scheduler(),
        )

    @classmethod
    def from_pipeline(cls, folder: Path) -> "VideoModel":
        """Go on from a video pipeline folder."""
        return cls(
            AutoTokenizer.from_pretrained(folder, subfolder="tokenizer"),
            CLIPTextModel.from_pretrained(folder, subfolder="text_encoder"),
            without_dropout(UNet3DConditionModel.from_pretrained(folder, subfolder="unet")),
            AutoencoderKL.from_pretrained(folder, subfolder="vae"),
            build_scheduler(),
        )

    def parts(self) -> dict[str, Any]:
        """The parts of a pipeline folder by name."""
        names = ("tokenizer", "text_encoder", "unet", "vae", "scheduler")
        return {name: getattr(self, name) for name in names}

    @torch.no_grad()
    def encode(self, clips: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Latent means (B, 4, F, h, w) of clips (F, H, W, 3)."""
        frames = to_tensor(np.concatenate(clips))
        latents = self.vae.encode(frames).latent_dist.mean.float()
        return latents.unflatten(0, (len(clips), -1)).transpose(1, 2)

    def predict(self, noisy: Tensor, timesteps: Tensor, captions: Sequence[Sequence[str]]) -> Tensor:
        """The velocity (B, 4, F, h, w); every clip has as many captions, over equal shares of its frames."""
        frames, scenes = noisy.shape[2], len(captions[0])
        flat = [caption for clip in captions for caption in clip]
        text = encode_captions(self.tokenizer, self.text_encoder, flat)
        self._frame_text.text = text.repeat_interleave(frames // scenes, dim=0) if scenes > 1 else None
        return self.unet(noisy, timesteps, text[::scenes]).sample.float()

    def loss(self, clips: Sequence[CaptionedClip], timesteps: Tensor) -> Tensor:
        """Velocity errors (B,) of a batch of clips of one length."""
        noisy, velocity = noised(self.scheduler, self.encode([clip.frames for clip in clips]), timesteps)
        predicted = self.predict(noisy, timesteps, [clip.captions for clip in clips])
        return functional.mse_loss(predicted, velocity, reduction="none").mean(dim=(1, 2, 3, 4))
