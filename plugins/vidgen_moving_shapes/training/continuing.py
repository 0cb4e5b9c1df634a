"""The objective that teaches the video model to go on: its frames before are told, and heads ask what they show."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from vidgen_streaming.training import Continuation

from vidgen_core import hookimpl
from vidgen_core.data.sample import Batch, stack
from vidgen_core.models.backbone import Backbone
from vidgen_core.run import Run
from vidgen_moving_shapes.training.frame_heads import FrameHeads, IdentityHeads, PlaceHeads
from vidgen_moving_shapes.training.video import mostly_noisy


class Continuing(Continuation):
    """Denoising of the last chunk, and the errors of heads that read place and identity from it.

    Args:
        head_weight: Of the heads' errors.
        **options: As for the objective ``streaming``.
    """

    def __init__(self, head_weight: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.head_weight = head_weight
        self.heads: dict[str, FrameHeads] = {}

    @hookimpl(claims=("place_heads", "identity_heads"))
    def trainable(self, backbone: Backbone) -> dict[str, Tensor]:
        """The heads; the method says what trains of itself."""
        unet = backbone.denoiser
        made = {"place_heads": PlaceHeads(unet), "identity_heads": IdentityHeads(unet)}
        self.heads = {name: heads.to(backbone.device) for name, heads in made.items()}
        return {f"{part}.{name}": p for part, heads in self.heads.items() for name, p in heads.named_parameters()}

    @hookimpl
    def losses(self, run: Run, batch: Batch, prediction: Any) -> dict[str, Tensor]:
        """The denoising error, and what the heads misread."""
        terms = super().losses(run, batch, prediction)
        if batch.timestep is None:
            known = torch.ones(len(batch), device=prediction.output.device)
            frames = prediction.output.shape[2]
            for heads in self.heads.values():
                truth = stack(batch.samples, heads.reads)[:, -frames:].to(known)
                terms |= {name: self.head_weight * error for name, error in heads.losses(truth, known).items()}
        return terms

    def timesteps(self, batch: Batch, count: int) -> Tensor:
        """Mostly of high noise, where the past alone tells what to show."""
        return super().timesteps(batch, count) if batch.timestep is not None else mostly_noisy(batch, count)
