"""The objective of the autoencoder: latents that look like a four times smaller picture.

The denoiser can only learn what the latents show at large amplitude, and ordinary small autoencoders show shape at
a tiny one. So the mean of the first three channels is pulled to the 4x4 averages of the picture; the fourth is free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from vidgen_core import hookimpl
from vidgen_core.data.pixels import to_model_range
from vidgen_core.data.sample import Batch, Draw
from vidgen_core.models.backbone import Backbone
from vidgen_core.run import Run
from vidgen_core.training.denoising import keyed_normal
from vidgen_moving_shapes.shapes import CANVAS
from vidgen_moving_shapes.training.fresh import fresh_weights
from vidgen_moving_shapes.training.images import Images

ALIGNED = 3
"""Latent channels that follow the 4x4 averages."""
KL_WEIGHT = 1e-3
LATENT_DEVIATION = 0.6
"""Standard deviation of every latent channel after folding, that of the 4x4 averages themselves."""
FOLDED_OVER = 512
"""Pictures, of which training saw none, from which the statistics of the latents are taken."""


@dataclass
class Coded:
    """Pictures (B, 3, H, W) in -1..1, what was decoded of them, and the mean and variance (B, 4, h, w) between."""

    pictures: Tensor
    decoded: Tensor
    mean: Tensor
    log_variance: Tensor


class Autoencoder:
    """Reconstruction of single pictures through a fresh ``AutoencoderKL``, which ends with unit-like latents."""

    @hookimpl
    def build_backbone(self, run: Run) -> Backbone:
        """A fresh autoencoder and nothing else."""
        with fresh_weights(run.request.seed, "autoencoder"):
            vae = build_autoencoder()
        return Backbone(None, vae.to(memory_format=torch.channels_last))

    @hookimpl(claims="vae")
    def trainable(self, backbone: Backbone) -> dict[str, Tensor]:
        """The whole autoencoder."""
        return {f"vae.{name}": parameter for name, parameter in backbone.vae.named_parameters()}

    @hookimpl
    def training_step(self, run: Run, batch: Batch) -> Coded:
        """Encode, draw from the posterior, decode; only the first frame of a sample is looked at."""
        vae, device = run.backbone.vae, run.backbone.device
        frames = torch.stack([sample.frames[0] for sample in batch.samples if sample.frames is not None])
        pictures = to_model_range(frames.to(device)).contiguous(memory_format=torch.channels_last)
        posterior = vae.encode(pictures).latent_dist
        noise = keyed_normal(batch, posterior.mean.shape[1:], "posterior").to(posterior.mean)
        decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        return Coded(pictures, decoded.float(), posterior.mean.float(), posterior.logvar.float())

    @hookimpl
    def losses(self, prediction: Any) -> dict[str, Tensor]:
        """``reconstruction``, ``alignment`` of the first channels, and ``information``, the price of the others."""
        error = prediction.decoded - prediction.pictures
        averages = functional.avg_pool2d(prediction.pictures, 4)
        # Only variances and the free channel pay for information: the aligned means are already told where to be.
        variances = (prediction.log_variance.exp() - prediction.log_variance - 1).mean()
        free = prediction.mean[:, ALIGNED:].square().mean()
        return {
            "reconstruction": error.abs().mean() + 2 * error.square().mean(),
            "alignment": 2 * functional.mse_loss(prediction.mean[:, :ALIGNED], averages),
            "information": 0.5 * KL_WEIGHT * (variances + free),
        }

    @hookimpl
    def finish_training(self, run: Run, backbone: Backbone) -> None:
        """Fold mean and scale of the latents into the convolutions around them."""
        images = Images("all", pairs=0.25)
        draw = Draw(tuple(range(FOLDED_OVER)), 0, 0, 0, 1.0, run.request.seed - 1)
        frames = torch.cat([sample.frames for sample in images.draw(draw).samples if sample.frames is not None])
        fold_statistics(backbone.vae.eval(), to_model_range(frames.to(backbone.device)))


def build_autoencoder() -> AutoencoderKL:
    """0.65 M parameters; a picture of 64x64 pixels becomes 4 channels of 16x16 cells."""
    return AutoencoderKL(
        sample_size=CANVAS,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


@torch.no_grad()
def fold_statistics(model: AutoencoderKL, pictures: Tensor) -> None:
    """Give every latent channel mean 0 and LATENT_DEVIATION over pictures (N, 3, H, W), inside the 1x1 convolutions
    around the latents."""
    means = model.encode(pictures).latent_dist.mean
    mean, scale = means.mean(dim=(0, 2, 3)), LATENT_DEVIATION / means.std(dim=(0, 2, 3))
    quant, post = model.quant_conv, model.post_quant_conv
    quant.weight[:4] *= scale[:, None, None, None]
    quant.bias[:4] = (quant.bias[:4] - mean) * scale
    quant.bias[4:] += 2 * scale.log()  # the log-variances scale along
    post.bias += (post.weight[..., 0, 0] * mean).sum(dim=1)
    post.weight /= scale[None, :, None, None]
