"""Train the autoencoder: latents that look like a four times smaller picture.

The denoiser can only learn what the latents show at large amplitude, and ordinary small autoencoders show shape at
a tiny one. So the mean of the first three channels is pulled to the 4x4 averages of the picture; the fourth is free.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from vidgen_moving_shapes.combinations import ENTITIES
from vidgen_moving_shapes.motions import MOTIONS
from vidgen_moving_shapes.palette import GROUNDS
from vidgen_moving_shapes.shapes import CANVAS
from vidgen_moving_shapes.training.progress import AveragedWeights, Budget, learning_rate_factor, log, write_folder
from vidgen_moving_shapes.world import Scene, draw_pair_scene, draw_scene

ALIGNED = 3
"""Latent channels that follow the 4x4 averages."""
PAIR_SHARE = 0.25
KL_WEIGHT = 1e-3
LATENT_DEVIATION = 0.6
"""Standard deviation of every latent channel after folding, that of the 4x4 averages themselves."""


def build_autoencoder() -> AutoencoderKL:
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


def to_tensor(frames: np.ndarray) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1


def draw_images(rng: np.random.Generator, count: int) -> Tensor:
    """First frames of random scenes of one or two objects, (count, 3, CANVAS, CANVAS) in [-1, 1]."""
    return to_tensor(np.concatenate([_draw_any_scene(rng).frames() for _ in range(count)]))


def _draw_any_scene(rng: np.random.Generator) -> Scene:
    first, second = (ENTITIES[i] for i in rng.choice(len(ENTITIES), 2))
    motion, ground = str(rng.choice(MOTIONS)), str(rng.choice(GROUNDS))
    if rng.random() < PAIR_SHARE:
        return draw_pair_scene(rng, first, motion, bool(rng.random() < 0.5), second, ground, frames=1)
    return draw_scene(rng, first, motion, ground, frames=1)


def autoencoder_loss(model: AutoencoderKL, images: Tensor) -> tuple[Tensor, Tensor]:
    """The training loss, and the mean squared reconstruction error in [-1, 1] units."""
    posterior = model.encode(images).latent_dist
    error = model.decode(posterior.sample()).sample.float() - images
    reconstruction = error.abs().mean() + 2 * error.square().mean()
    alignment = functional.mse_loss(posterior.mean[:, :ALIGNED].float(), functional.avg_pool2d(images, 4))
    # Only variances and the free channel pay for information: the aligned means are already told where to be.
    variance_cost = (posterior.var - posterior.logvar - 1).float().mean()
    free_cost = posterior.mean[:, ALIGNED:].float().square().mean()
    loss = reconstruction + 2 * alignment + 0.5 * KL_WEIGHT * (variance_cost + free_cost)
    return loss, error.detach().square().mean()


@torch.no_grad()
def fold_statistics(model: AutoencoderKL, images: Tensor) -> None:
    """Give every latent channel mean 0 and LATENT_DEVIATION, inside the 1x1 convolutions around the latents."""
    means = model.encode(images).latent_dist.mean
    mean, scale = means.mean(dim=(0, 2, 3)), LATENT_DEVIATION / means.std(dim=(0, 2, 3))
    quant, post = model.quant_conv, model.post_quant_conv
    quant.weight[:4] *= scale[:, None, None, None]
    quant.bias[:4] = (quant.bias[:4] - mean) * scale
    quant.bias[4:] += 2 * scale.log()  # the log-variances scale along
    post.bias += (post.weight[..., 0, 0] * mean).sum(dim=1)
    post.weight /= scale[None, :, None, None]


def train(out: Path, minutes: float, batch: int, rate: float, seed: int) -> None:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = build_autoencoder().to(memory_format=torch.channels_last)
    average = AveragedWeights(model, 0.99)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01)
    budget, step = Budget(minutes), 0
    while not budget.spent:
        for group in optimizer.param_groups:
            group["lr"] = rate * learning_rate_factor(step, budget.fraction, floor=0.01)
        images = draw_images(rng, batch).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            loss, error = autoencoder_loss(model, images)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()
        step += 1
        if step % 50 == 0:
            log(f"step {step} loss {loss.item():.4f} psnr {-10 * torch.log10(error / 4).item():.2f}")
    average.copy_to(model)
    model.eval()
    fold_statistics(model, draw_images(rng, 512))
    write_folder(out, model.save_pretrained)
    log(f"saved after {step} steps of {batch} images")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the trained AutoencoderKL")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    train(options.out, options.minutes, options.batch, options.rate, options.seed)


if __name__ == "__main__":
    main()
