"""The tiny model under the names of VGen's published checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor
from vidgen_tf_t2v import networks, published

from vidgen_core.models.backbone import Backbone

KNOWN = published.Geometry(1, (32, 64), (True, False), latents=4, head_width=8, heads=8, text_width=32)


def checkpoint(backbone: Backbone, conditions: tuple[str, ...] = ("depth", "masked")) -> dict[str, Tensor]:
    """The tiny model and drawn layers of the method."""
    own = networks.fresh(backbone.denoiser, image_width=64, conditions=conditions, gain=0.1).state_dict()
    tensors = {published.own_name(name): tensor for name, tensor in own.items()}
    first = [backbone.denoiser.conv_in.weight] + ([own["stem.weight"]] if conditions else [])
    return tensors | network(backbone) | {published.FIRST: torch.cat(first, dim=1).detach()}


def network(backbone: Backbone) -> dict[str, Tensor]:
    """The network alone, in the layout of ModelScope and SR600."""
    state = backbone.denoiser.state_dict().items()
    return {
        published.unet_name(name, KNOWN): tensor[..., None] if published.along_time(name) else tensor
        for name, tensor in state
    }
