"""The objective that tunes the video model on stories: what later captions leave out is read from earlier frames."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vidgen_core import hookimpl
from vidgen_core.data.sample import Batch
from vidgen_core.models.backbone import Backbone
from vidgen_core.run import Run
from vidgen_moving_shapes.training.frame_heads import IdentityHeads, PathHeads
from vidgen_moving_shapes.training.video import TextToVideo


class Stories(TextToVideo):
    """Denoising of stories by the U-Net; the text encoder is frozen, as TALC's published tuning has it.

    Args:
        path_weight: Of the path heads' error; 0 leaves them out.
        identity_weight: Of the identity heads' error; 0 leaves them out.
        caption_dropout: Share of stories without captions.
    """

    def __init__(self, path_weight: float = 1.0, identity_weight: float = 1.0, caption_dropout: float = 0.1) -> None:
        super().__init__(None, path_weight, caption_dropout)
        self.identity_weight = identity_weight
        self.identity_heads: IdentityHeads | None = None

    @hookimpl
    def trainable(self, backbone: Backbone) -> dict[str, Tensor]:
        """The U-Net and the heads."""
        parts: dict[str, nn.Module] = {"denoiser": backbone.denoiser}
        if self.path_weight:
            self.heads = parts["path_heads"] = PathHeads(backbone.denoiser).to(backbone.device)
        if self.identity_weight:
            self.identity_heads = parts["identity_heads"] = IdentityHeads(backbone.denoiser).to(backbone.device)
        return {f"{part}.{name}": p for part, module in parts.items() for name, p in module.named_parameters()}

    @hookimpl
    def losses(self, run: Run, batch: Batch, prediction: Any) -> dict[str, Tensor]:
        """The velocity error, and what the heads misread."""
        terms = super().losses(run, batch, prediction)
        if self.identity_heads is not None and batch.timestep is None:
            identity = torch.stack([sample.extra["identity"] for sample in batch.samples]).to(prediction.output.device)
            captioned = [any(scene.prompt for scene in video.scenes) for video in run.request.videos]
            error = self.identity_heads.loss(identity, torch.tensor(captioned).to(identity))
            terms["identity"] = self.identity_weight * error
        return terms
