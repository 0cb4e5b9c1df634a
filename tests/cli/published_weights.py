"""What StreamingT2V learns, drawn for the tiny model, in the published layout: a checkpoint of a few megabytes."""

from __future__ import annotations

import re
from functools import cache

import torch
from torch import Tensor, nn
from vidgen_streaming.networks import Networks

from vidgen_core.attention import attentions
from vidgen_core.models import tiny

FROZEN = ("vae.decoder.conv_in.weight", "text_encoder.text_model.final_layer_norm.bias")
MERGER = "base_model.cross_attention_merger_"


def encoder() -> dict[str, Tensor]:
    """A small image encoder in OpenCLIP's layout, with what is left of its text half."""
    norms = {name: nn.LayerNorm(64) for name in ("ln_1", "ln_2")}
    mlp = nn.ModuleDict({"c_fc": nn.Linear(64, 64), "c_proj": nn.Linear(64, 64)})
    block = nn.ModuleDict({**norms, "attn": nn.MultiheadAttention(64, 1), "mlp": mlp})
    visual = nn.ModuleDict(
        {
            "conv1": nn.Conv2d(3, 64, 14, bias=False),
            "ln_pre": nn.LayerNorm(64),
            "ln_post": nn.LayerNorm(64),
            "transformer": nn.ModuleDict({"resblocks": nn.ModuleList([block])}),
        }
    )
    shapes = {"class_embedding": (64,), "positional_embedding": (5, 64), "proj": (64, 64)}
    free = {name: torch.randn(shape) for name, shape in shapes.items()}
    tensors = {f"visual.{name}": tensor for name, tensor in (free | visual.state_dict()).items()}
    return {**tensors, "logit_scale": torch.ones(())}


@cache
def published() -> dict[str, Tensor]:
    """What StreamingT2V learns for the tiny model, drawn, under its published names."""
    torch.manual_seed(0)
    unet = tiny.build(seed=1).denoiser
    layers = [name for name, module in attentions(unet) if module.is_cross_attention]
    networks = Networks()
    networks.add_cam(unet, gain=0.1)
    networks.add_apm(len(layers), text_tokens=77, text_width=32, image_width=64, hidden=8, gain=0.1)

    def named(name: str) -> str:
        name = re.sub(r"^cam", "unet", name)
        name = re.sub(r"^resampler", "resampler.context_embedding", name)
        name = re.sub(r"^mergers\.down\.(\d+)", rf"{MERGER}down_blocks.\1.temporal_transformer", name)
        name = re.sub(r"^mergers\.mid", f"{MERGER}mid_block.temporal_transformer", name)
        return re.sub(r"^mixes\.(\d+)", lambda found: f"base_model.{layers[int(found[1])]}", name)

    tensors = {f"base_model.{name}": tensor for name, tensor in unet.state_dict().items()}
    tensors |= {named(name): tensor for name, tensor in networks.state_dict().items()}
    tensors |= {f"image_encoder.model.{name}": tensor for name, tensor in encoder().items()}
    return tensors | {name: torch.ones(2) for name in FROZEN}
