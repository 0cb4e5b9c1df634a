"""The objective of the depth-to-image model: the text-to-image model with the exact depth as a fifth latent channel."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidgen_core import hookimpl
from vidgen_core.data.sample import stack
from vidgen_core.depth_map import depth_channel
from vidgen_core.models import unet2d
from vidgen_core.models.backbone import Backbone
from vidgen_core.run import Run, Window, build_model
from vidgen_moving_shapes.training.text_to_image import TextToImage
from vidgen_moving_shapes.world import Entity, draw_pair_scene

EXAMPLE = (Entity("red", "circle"), "moves right", True, Entity("blue", "square"), "white")
"""The scene whose depth the samples of a training are given."""


class DepthToImage(TextToImage):
    """Denoising of pictures whose depth is given.

    Args:
        image_model: Folder of the text-to-image model to begin from; None goes on from the model of the configuration.
        caption_dropout: Share of samples without captions.
    """

    def __init__(self, image_model: str | None = None, caption_dropout: float = 0.1) -> None:
        super().__init__(caption_dropout=caption_dropout)
        self.image_model = image_model

    @hookimpl
    def build_backbone(self, run: Run) -> Backbone:
        """The image model with a fifth channel that it does not read yet."""
        return build_model(run) if self.image_model is None else with_depth_channel(self.image_model)

    @hookimpl(claims="channels")
    def condition(self, run: Run, window: Window) -> dict[str, Any]:
        """``channels``: the depth of the batch, or of the example while samples are drawn."""
        if run.batch is not None:
            nearness = stack(run.batch.samples, "nearness")
            size = tuple(side // run.backbone.scale_factor for side in nearness.shape[-2:])
        else:
            nearness = example_nearness(len(run.request.videos), len(window.span))
            size = run.backbone.latent_shape(run.request.height, run.request.width)[1:]
        return {"channels": depth_channel(nearness, (size[0], size[1]))}


def example_nearness(videos: int, frames: int) -> Tensor:
    """(videos, frames, CANVAS, CANVAS), all videos alike."""
    nearness = draw_pair_scene(np.random.default_rng(0), *EXAMPLE).nearness()
    return torch.from_numpy(nearness[np.linspace(4, 11, frames).astype(int)]).expand(videos, -1, -1, -1)


def with_depth_channel(image_model: str) -> unet2d.ImageBackbone:
    """A text-to-image model whose first convolution reads one more channel, with zero weights.

    A new backbone, because what a backbone reads follows from its network.
    """
    base = unet2d.load(image_model)
    unet = base.denoiser
    narrow = unet.conv_in
    wide = nn.Conv2d(narrow.in_channels + 1, narrow.out_channels, narrow.kernel_size, padding=narrow.padding)
    with torch.no_grad():
        wide.weight.zero_()
        wide.weight[:, : narrow.in_channels] = narrow.weight
        wide.bias.copy_(narrow.bias)  # type: ignore[union-attr]
    unet.conv_in = wide
    unet.register_to_config(in_channels=wide.in_channels)
    backbone = unet2d.ImageBackbone(
        unet, base.vae, base.text_encoder, base.tokenizer, scheduler_config=base.scheduler_config, weights=base.weights
    )
    backbone.pipeline = "StableDiffusionDepth2ImgPipeline"
    return backbone
