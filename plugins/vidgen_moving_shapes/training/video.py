"""The objective of the text-to-video model: denoising, and a training-only task that teaches the motion words.

The motion word is decided at high noise (at low noise the frames show the motion), so half of the timesteps are
drawn there, some of them at pure noise, where the caption alone tells where the object is in each frame.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidgen_core import hookimpl
from vidgen_core.data.sample import Batch, stack
from vidgen_core.models import from_images
from vidgen_core.models.backbone import Backbone
from vidgen_core.noise import seed_of
from vidgen_core.run import Run, build_model
from vidgen_core.training.denoising import Denoising
from vidgen_moving_shapes.training.frame_heads import FrameHeads, PathHeads

PURE_NOISE_SHARE, HIGH_NOISE_SHARE = 0.12, 0.43
HIGH_NOISE = 800


class TextToVideo(Denoising):
    """Denoising of clips by the video U-Net and its text encoder, which both train.

    Args:
        image_model: Folder of the text-to-image model to begin from; None goes on from the model of the configuration.
        path_weight: Of the path heads' error; 0 leaves the heads out. At 0.2 the motion words were not read.
        caption_dropout: Share of samples without captions.
    """

    def __init__(self, image_model: str | None = None, path_weight: float = 1.0, caption_dropout: float = 0.1) -> None:
        super().__init__(caption_dropout=caption_dropout, posterior="mean")
        self.image_model = image_model
        self.path_weight = path_weight
        self.heads: dict[str, FrameHeads] = {}

    @hookimpl
    def build_backbone(self, run: Run) -> Backbone:
        """The image model applied to every frame, with temporal layers that start as the identity."""
        if self.image_model is None:
            return build_model(run)
        return from_images.load(self.image_model, seed=run.request.seed)

    @hookimpl(claims=("denoiser", "text_encoder", "path_heads", "identity_heads"))
    def trainable(self, backbone: Backbone) -> dict[str, Tensor]:
        """The parts of the model that train, and the heads."""
        self.heads = {name: heads.to(backbone.device) for name, heads in self.new_heads(backbone).items()}
        parts = {**self.parts(backbone), **self.heads}
        return {f"{part}.{name}": p for part, module in parts.items() for name, p in module.named_parameters()}

    def parts(self, backbone: Backbone) -> dict[str, nn.Module]:
        """What trains of the model, by name."""
        return {"denoiser": backbone.denoiser, "text_encoder": backbone.text_encoder}

    def new_heads(self, backbone: Backbone) -> dict[str, FrameHeads]:
        """The heads that teach, by name; they are thrown away afterwards."""
        return {"path_heads": PathHeads(backbone.denoiser)} if self.path_weight else {}

    @hookimpl
    def losses(self, run: Run, batch: Batch, prediction: Any) -> dict[str, Tensor]:
        """The velocity error, and what the heads misread of every captioned clip."""
        terms = super().losses(run, batch, prediction)
        if batch.timestep is None:
            words = [any(scene.prompt for scene in video.scenes) for video in run.request.videos]
            captioned = torch.tensor(words, dtype=torch.float32, device=prediction.output.device)
            for heads in self.heads.values():
                truth = stack(batch.samples, heads.reads).to(captioned)
                terms |= {name: self.weight(heads) * error for name, error in heads.losses(truth, captioned).items()}
        return terms

    def weight(self, heads: FrameHeads) -> float:
        """Of the error of some heads."""
        return self.path_weight

    def timesteps(self, batch: Batch, count: int) -> Tensor:
        """Stratified: a few of pure noise, many of high noise, the rest uniform."""
        return super().timesteps(batch, count) if batch.timestep is not None else mostly_noisy(batch, count)


def mostly_noisy(batch: Batch, count: int) -> Tensor:
    """(B,) timesteps in [0, count): a few of pure noise, many of high noise, the rest uniform; stratified."""
    rng = np.random.default_rng(seed_of(batch.draw.seed, "timesteps", *batch.draw.numbers))
    part = (rng.permutation(len(batch)) + rng.random(len(batch))) / len(batch)
    high = HIGH_NOISE + (part - PURE_NOISE_SHARE) / HIGH_NOISE_SHARE * (count - HIGH_NOISE)
    anywhere = (part - PURE_NOISE_SHARE - HIGH_NOISE_SHARE) / (1 - PURE_NOISE_SHARE - HIGH_NOISE_SHARE) * count
    drawn = np.where(part < PURE_NOISE_SHARE + HIGH_NOISE_SHARE, high, anywhere)
    drawn = np.where(part < PURE_NOISE_SHARE, count - 1, drawn)
    return torch.from_numpy(drawn.astype(np.int64).clip(0, count - 1))
