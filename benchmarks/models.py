"""Random models of ModelScope's shape, and the same job for vidgen and for diffusers' own pipeline."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from vidgen_core import hookimpl
from vidgen_core.models.backbone import Backbone
from vidgen_core.models.tiny import SCHEDULER
from vidgen_core.moments import Moments
from vidgen_core.request import Request, VideoRequest, single_scene
from vidgen_core.run import CORE_HOOKS, Run, frames, opened

SIZES = {
    # ModelScope's layout with narrower blocks: 133 M parameters, 0.27 TFLOP a guided step of 16 x 16 x 16 latents
    "130m": {"block_out_channels": (96, 192, 384, 384), "attention_head_dim": 32},
    "2m": {"block_out_channels": (32, 64), "attention_head_dim": 16, "layers_per_block": 1},
    "modelscope": {"block_out_channels": (320, 640, 1280, 1280), "attention_head_dim": 64},
}
TOKENS, WIDTH = 77, 1024


def make(size: str, dtype: torch.dtype = torch.float32, vae: bool = False, device: str = "cpu") -> Backbone:
    """A backbone of random weights; equal calls give equal weights."""
    from diffusers import AutoencoderKL, UNet3DConditionModel

    torch.manual_seed(0)
    blocks = len(SIZES[size]["block_out_channels"])  # type: ignore[arg-type]
    with torch.device(device):
        unet = UNet3DConditionModel(
            cross_attention_dim=WIDTH,
            down_block_types=("CrossAttnDownBlock3D",) * (blocks - 1) + ("DownBlock3D",),
            up_block_types=("UpBlock3D",) + ("CrossAttnUpBlock3D",) * (blocks - 1),
            **SIZES[size],
        )
        decoder = (
            AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                block_out_channels=(128, 256, 512, 512) if size == "modelscope" else (32, 64, 128, 128),
                layers_per_block=2,
                latent_channels=4,
            )
            if vae
            else None
        )
    unet = torch.nn.Module.to(unet, dtype).eval()
    if decoder is not None:
        decoder = torch.nn.Module.to(decoder, dtype).eval()
    return Backbone(unet, decoder, scheduler_config=SCHEDULER)


def texts(device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Embeddings (1, L, D) of a prompt and of a negative prompt."""
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(1, TOKENS, WIDTH, generator=generator).to(device) for _ in range(2))  # type: ignore[return-value]


class Given:
    """A method that starts from given latents, so that both sides start from the same noise."""

    def __init__(self, latents: Tensor) -> None:
        self.latents = latents

    @hookimpl
    def start_latents(self) -> Tensor:
        return self.latents


def vidgen_job(
    backbone: Backbone, latents: Tensor, steps: int, placement: dict[str, Any] | None = None, decode: bool = False
) -> Tensor | int:
    """Latents after ``steps`` guided steps of vidgen, or the number of frames that were decoded and dropped."""
    _, _, count, height, width = latents.shape
    request = single_scene(Request((VideoRequest(("a",), ("b",)),), count, height * 8, width * 8, 8, 0, 9.0, steps))
    moments = Moments({"given": Given(latents)}, defaults=CORE_HOOKS)
    run = Run(request, {"placement": placement or {}, "scheduler": {}}, moments)
    positive, negative = texts()
    with opened(run, backbone):
        run.texts.put(["a", "b"], torch.cat([positive, negative]))
        if decode:
            return sum(len(block.span) for block in frames(run))
        (group,) = run.groups
        from vidgen_core.sampling import denoiser

        (window,) = moments.sample(run=run, group=group, denoise=denoiser(run))
        assert window.latents is not None
        return window.latents


def pipeline(backbone: Backbone) -> Any:
    """diffusers' TextToVideoSDPipeline around the same weights."""
    from diffusers import DDIMScheduler, TextToVideoSDPipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = TextToVideoSDPipeline(
            backbone.vae, None, None, backbone.denoiser, DDIMScheduler.from_config(dict(SCHEDULER))
        )
    pipe.set_progress_bar_config(disable=True)
    if backbone.vae is None:
        pipe.vae_scale_factor = 8
    return pipe


def pipeline_job(pipe: Any, latents: Tensor, steps: int, decode: bool = False) -> Any:
    """The same job by the pipeline: latents (1, C, F, h, w), or the decoded video."""
    positive, negative = texts(str(latents.device))
    dtype = pipe.unet.dtype
    return pipe(
        prompt_embeds=positive.to(dtype),
        negative_prompt_embeds=negative.to(dtype),
        latents=latents.to(dtype),
        num_frames=latents.shape[2],
        height=latents.shape[3] * 8,
        width=latents.shape[4] * 8,
        num_inference_steps=steps,
        guidance_scale=9.0,
        output_type="pt" if decode else "latent",
    ).frames
