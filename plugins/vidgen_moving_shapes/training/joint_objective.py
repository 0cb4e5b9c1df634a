"""The objective of images and videos together: denoising, and heads that teach the motion words of captioned videos.

As in ``video.py``, the denoising error alone reads no motion word within a small budget. Images show no motion, and
what a video without text is told, an image, tells none: only captioned videos are asked.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vidgen_core import hookimpl
from vidgen_core.data.sample import Batch, stack
from vidgen_core.models.backbone import Backbone
from vidgen_core.run import Run
from vidgen_core.training.denoising import Denoising
from vidgen_moving_shapes.training.frame_heads import PathHeads
from vidgen_moving_shapes.training.video import mostly_noisy


class JointWithPaths(Denoising):
    """Denoising of what the data mixes, and the path heads' error of captioned videos; a method says what trains.

    Args:
        path_weight: Of the heads' error.
    """

    def __init__(self, path_weight: float = 1.0) -> None:
        super().__init__(posterior="mean")
        self.path_weight = path_weight
        self.heads: PathHeads

    @hookimpl(claims="path_heads")
    def trainable(self, backbone: Backbone) -> dict[str, Tensor]:
        """The heads, which are thrown away afterwards."""
        self.heads = PathHeads(backbone.denoiser).to(backbone.device)
        return {f"path_heads.{name}": parameter for name, parameter in self.heads.named_parameters()}

    @hookimpl
    def losses(self, run: Run, batch: Batch, prediction: Any) -> dict[str, Tensor]:
        """The denoising error, and what the heads misread of captioned videos."""
        terms = super().losses(run, batch, prediction)
        captioned = batch.num_frames > 1 and (batch.told is None or "text" in batch.told)
        if captioned and batch.timestep is None:
            truth = stack(batch.samples, self.heads.reads).to(prediction.output)
            asked = torch.ones(len(batch), device=truth.device)
            terms |= {name: self.path_weight * error for name, error in self.heads.losses(truth, asked).items()}
        return terms

    def timesteps(self, batch: Batch, count: int) -> Tensor:
        """Mostly of high noise, where the caption alone tells the motion."""
        return super().timesteps(batch, count) if batch.timestep is not None else mostly_noisy(batch, count)
