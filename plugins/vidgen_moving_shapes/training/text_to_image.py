"""Train the text-to-image model: UNet2DConditionModel and its text encoder, on single frames of the world."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from vidgen_moving_shapes.captions import clip_caption, image_caption
from vidgen_moving_shapes.combinations import TRAINING_COMBINATIONS
from vidgen_moving_shapes.tokenizer import build_tokenizer
from vidgen_moving_shapes.training.autoencoder import to_tensor
from vidgen_moving_shapes.training.diffusion import (
    build_scheduler,
    noised,
    stratified_timesteps,
    use_materialised_attention,
)
from vidgen_moving_shapes.training.pipeline_folder import write_pipeline
from vidgen_moving_shapes.training.progress import (
    AveragedWeights,
    Budget,
    learning_rate_factor,
    log,
    write_folder,
)
from vidgen_moving_shapes.training.text import WIDTH, build_text_encoder, encode_captions
from vidgen_moving_shapes.world import CLIP_FRAMES, draw_scene

EMPTY_SHARE = 0.1
"""Captions replaced by the empty one, for classifier-free guidance."""
MOTION_SHARE = 0.4
"""Captions that also name the motion of the clip an image is from, so that the video model can start from them."""
THE_SHARE = 0.1


def build_unet() -> UNet2DConditionModel:
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


def draw_captioned_image(rng: np.random.Generator) -> tuple[NDArray[np.uint8], str]:
    """A frame (1, CANVAS, CANVAS, 3) uint8 of a training clip, and a caption of it."""
    entity, motion, ground = TRAINING_COMBINATIONS[rng.integers(len(TRAINING_COMBINATIONS))]
    moment = int(rng.integers(CLIP_FRAMES))
    frame = draw_scene(rng, entity, motion, ground)[moment : moment + 1].frames()
    article = "the" if rng.random() < THE_SHARE else "a"
    kind = rng.random()
    if kind < EMPTY_SHARE:
        return frame, ""
    if kind < EMPTY_SHARE + MOTION_SHARE:
        return frame, clip_caption(entity, motion, ground, article)
    return frame, image_caption(entity, ground, article)


@dataclass
class ImageModel:
    """The parts that the image loss needs."""

    tokenizer: PreTrainedTokenizerFast
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    scheduler: DDIMScheduler

    def loss(self, rng: np.random.Generator, batch: int) -> tuple[Tensor, Tensor]:
        """Velocity errors (batch,) of fresh images, and their timesteps (batch,)."""
        frames, captions = zip(*(draw_captioned_image(rng) for _ in range(batch)), strict=True)
        with torch.no_grad():
            latents = self.vae.encode(to_tensor(np.concatenate(frames))).latent_dist.mean.float()
        timesteps = stratified_timesteps(batch)
        noisy, velocity = noised(self.scheduler, latents, timesteps)
        text = encode_captions(self.tokenizer, self.text_encoder, captions)
        predicted = self.unet(noisy, timesteps, text).sample.float()
        return functional.mse_loss(predicted, velocity, reduction="none").mean(dim=(1, 2, 3)), timesteps


def build_image_model(vae_folder: Path, start: Path | None) -> ImageModel:
    """A fresh model, or the weights of the pipeline folder `start`."""
    tokenizer = build_tokenizer()
    return ImageModel(
        tokenizer,
        CLIPTextModel.from_pretrained(start, subfolder="text_encoder") if start else build_text_encoder(tokenizer),
        UNet2DConditionModel.from_pretrained(start, subfolder="unet") if start else build_unet(),
        AutoencoderKL.from_pretrained(vae_folder).requires_grad_(False),
        build_scheduler(),
    )


def train(model: ImageModel, out: Path, minutes: float, batch: int, rate: float, seed: int) -> None:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    use_materialised_attention(model.unet)
    trained = torch.nn.ModuleList([model.text_encoder, model.unet]).train()
    average = AveragedWeights(trained, 0.998)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01)
    budget, step = Budget(minutes), 0
    while not budget.spent:
        for group in optimizer.param_groups:
            group["lr"] = rate * learning_rate_factor(step, budget.fraction)
        with torch.autocast("cpu", torch.bfloat16):
            errors, timesteps = model.loss(rng, batch)
        errors.mean().backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()
        step += 1
        if step % 50 == 0:
            high = errors[timesteps >= 500].mean()
            log(f"step {step} images {step * batch} loss {errors.mean():.4f} at high noise {high:.4f}")
    average.copy_to(trained)
    write_folder(out, lambda folder: write_pipeline(folder, "StableDiffusionPipeline", vars(model)))
    log(f"saved after {step} steps of {batch} images")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, required=True, help="folder of the trained AutoencoderKL")
    parser.add_argument("--out", type=Path, required=True, help="pipeline folder to write")
    parser.add_argument("--minutes", type=float, default=11.0)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="pipeline folder whose weights to go on from")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = build_image_model(options.vae, options.start)
    train(model, options.out, options.minutes, options.batch, options.rate, options.seed)


if __name__ == "__main__":
    main()
