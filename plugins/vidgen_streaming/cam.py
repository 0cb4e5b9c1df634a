"""CAM, the conditional attention module (arXiv 2403.14773, section 4.1): the short-term memory of a chunk.

A trainable copy of the U-Net's encoder reads the noisy first frames of a chunk and the known frames they must become;
every skip of the U-Net, and its mid block's output, attends to the copy's features over time, pixel by pixel.

N videos times guidance branches, F frames of a chunk, K known frames, C channels, h w cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidgen_core.attention import Attend, split_heads

WIDTHS = (32, 96, 256, 512)
"""Channels of the frame embedding, as published; each but the first halves the resolution."""

HEAD_WIDTH = 64
"""Width of a merger's heads; narrower layers have one head."""


class FrameEmbedding(nn.Module):
    """Known frames (N, K, 3, H, W) in [-1, 1] as features (N, K, C, h, w); zero until it is trained.

    Args:
        widths: Channels at the full resolution and after every halving.
        out_channels: C, that of the U-Net's first layer.
    """

    def __init__(self, widths: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for before, after in pairwise(widths):
            self.blocks.append(nn.Conv2d(before, before, 3, padding=1))
            self.blocks.append(nn.Conv2d(before, after, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def forward(self, frames: Tensor) -> Tensor:
        x = F.silu(self.conv_in(frames.flatten(0, 1)))
        for block in self.blocks:
            x = F.silu(block(x))
        embedded: Tensor = self.conv_out(x).unflatten(0, frames.shape[:2])
        return embedded


@dataclass
class Features:
    """What the encoder's copy gives: ``skips`` in the U-Net's order and ``mid``, each (N * K, C, h, w)."""

    skips: tuple[Tensor, ...]
    mid: Tensor


class FeatureEncoder(nn.Module):
    """A copy of the encoder half of a ``UNet3DConditionModel``, and the embedding of known frames."""

    def __init__(self, unet: Any, widths: Sequence[int]) -> None:
        super().__init__()
        self.conv_in = unet.conv_in
        self.time_proj = unet.time_proj
        self.time_embedding = unet.time_embedding
        self.transformer_in = unet.transformer_in
        self.down_blocks = unet.down_blocks
        self.mid_block = unet.mid_block
        self.controlnet_cond_embedding = FrameEmbedding(widths, unet.config.block_out_channels[0])

    def forward(self, sample: Tensor, t: Tensor, embedded: Tensor, placeholder: Tensor) -> Features:
        """Features of noisy frames.

        Args:
            sample: (N, C, K, h, w), the noisy latents of the chunk's first frames.
            t: The timestep, one or N.
            embedded: (N, K, C, h, w), the known frames; frame j goes with noisy frame j.
            placeholder: (N, 1, D), for the stock layers; the processors hold the text.
        """
        count, _, frames = sample.shape[:3]
        time = self.time_proj(t.reshape(-1).to(sample.device).expand(count)).to(sample.dtype)
        time = self.time_embedding(time).repeat_interleave(frames, dim=0)
        text = placeholder.repeat_interleave(frames, dim=0)
        x = self.conv_in(sample.transpose(1, 2).flatten(0, 1))
        x = self.transformer_in(x, num_frames=frames, return_dict=False)[0] if frames > 1 else x
        x = x + embedded.flatten(0, 1)
        skips = (x,)
        for block in self.down_blocks:
            if getattr(block, "has_cross_attention", False):
                x, more = block(hidden_states=x, temb=time, encoder_hidden_states=text, num_frames=frames)
            else:
                x, more = block(hidden_states=x, temb=time, num_frames=frames)
            skips += more
        return Features(skips, self.mid_block(x, time, encoder_hidden_states=text, num_frames=frames))


class Merger(nn.Module):
    """A skip attends to the encoder's features over time, per pixel, and adds what it reads; zero until it is trained.

    All frames of the chunk read all known frames; there are no positions and no mask.
    """

    def __init__(self, channels: int, groups: int = 32) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in: Any = nn.Linear(channels, channels)
        self.attention = nn.Module()
        for name in ("to_q", "to_k", "to_v"):
            self.attention.add_module(name, nn.Linear(channels, channels, bias=False))
        self.attention.to_out = nn.ModuleList([nn.Linear(channels, channels)])
        self.proj_out: Any = nn.Linear(channels, channels)
        self.heads = max(channels // HEAD_WIDTH, 1)

    def forward(self, skip: Tensor, feature: Tensor, videos: int, attend: Attend) -> Tensor:
        """(N * F, C, h, w) from a skip of that shape and features (N * K, C, h, w) of N ``videos``."""
        h, w = skip.shape[-2:]
        framed = skip.unflatten(0, (videos, -1)).transpose(1, 2)  # N C F h w: statistics are over the frames too
        tokens = self.norm(framed).permute(0, 3, 4, 2, 1).flatten(0, 2)  # (N h w) F C
        known = feature.unflatten(0, (videos, -1)).permute(0, 3, 4, 1, 2).flatten(0, 2)  # (N h w) K C
        layers: Any = self.attention
        q = split_heads(layers.to_q(self.proj_in(tokens)), self.heads)
        k, v = split_heads(layers.to_k(known), self.heads), split_heads(layers.to_v(known), self.heads)
        read = attend(q, k, v).transpose(1, 2).flatten(2)
        read = self.proj_out(layers.to_out[0](read))
        return skip + read.unflatten(0, (videos, h, w)).permute(0, 3, 4, 1, 2).flatten(0, 1)

    @torch.no_grad()
    def fuse(self) -> None:
        """For inference: two layers with nothing between them become one; only rounding changes."""
        layers: Any = self.attention
        layers.to_q, self.proj_in = _joined(self.proj_in, layers.to_q), nn.Identity()
        self.proj_out, layers.to_out[0] = _joined(layers.to_out[0], self.proj_out), nn.Identity()


def _joined(first: Any, second: Any) -> nn.Linear:
    """One linear layer for two in a row, multiplied in single precision."""
    weight = second.weight.float()
    bias = F.linear(first.bias.float(), weight, None if second.bias is None else second.bias.float())
    layer = nn.Linear(first.in_features, second.out_features, device="meta")
    layer.weight = nn.Parameter((weight @ first.weight.float()).to(second.weight))
    layer.bias = nn.Parameter(bias.to(second.weight))
    return layer


class Mergers(nn.Module):
    """One merger for every skip of a U-Net and one for its mid block's output."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        channels, groups = skip_channels(unet), unet.config.norm_num_groups
        self.down = nn.ModuleList(Merger(c, groups) for c in channels)
        self.mid = Merger(unet.config.block_out_channels[-1], groups)

    def __iter__(self) -> Iterator[Merger]:
        for merger in (*self.down, self.mid):
            assert isinstance(merger, Merger)
            yield merger

    def reset(self, gain: float = 0.0) -> None:
        """What is read counts nothing at the beginning of a training; with a ``gain``, something at random."""
        for merger in self:
            nn.init.zeros_(merger.proj_out.bias)
            if gain:
                nn.init.normal_(merger.proj_out.weight, std=gain)
            else:
                nn.init.zeros_(merger.proj_out.weight)


def skip_channels(unet: Any) -> list[int]:
    """Channels of every skip, in the order in which the encoder makes them."""
    channels = [unet.config.block_out_channels[0]]
    for block in unet.down_blocks:
        width = block.resnets[0].out_channels
        channels += [width] * (len(block.resnets) + len(block.downsamplers or ()))
    return channels


@contextmanager
def merged(
    unet: nn.Module, mergers: Mergers, attend: Attend, features: Callable[[Tensor, Tensor], Features | None]
) -> Iterator[None]:
    """Every skip and the mid output of the network pass their mergers, inside the context.

    Args:
        features: (the network's input (N, C, F, h, w), its timestep) -> features, or None for a call without any.
    """
    found: Features | None = None
    videos = 0

    def before(module: Any, args: tuple[Any, ...]) -> None:
        nonlocal found, videos
        videos, found = len(args[0]), features(args[0], args[1])

    def after(module: Any, args: Any, out: Any) -> None:
        nonlocal found
        found = None  # features must not outlive the call

    def mid(module: Any, args: Any, out: Tensor) -> Tensor:
        return out if found is None else mergers.mid(out, found.mid, videos, attend)

    def up(first: int) -> Callable[..., Any]:
        def merge(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            if found is None:
                return args, kwargs
            skips = tuple(
                mergers.down[i](skip, found.skips[i], videos, attend)
                for i, skip in enumerate(kwargs["res_hidden_states_tuple"], first)
            )
            return args, {**kwargs, "res_hidden_states_tuple": skips}

        return merge

    network: Any = unet
    with ExitStack() as stack:
        handles = [
            network.register_forward_pre_hook(before),
            network.register_forward_hook(after, always_call=True),
            network.mid_block.register_forward_hook(mid),
        ]
        place = len(mergers.down)
        for block in network.up_blocks:
            place -= len(block.resnets)
            handles.append(block.register_forward_pre_hook(up(place), with_kwargs=True))
        for handle in handles:
            stack.callback(handle.remove)
        yield


def fresh_encoder(unet: Any, widths: Sequence[int]) -> FeatureEncoder:
    """The encoder's copy of a ``UNet3DConditionModel`` with the U-Net's own weights, as a training begins."""
    encoder = empty_encoder(unet, widths).to_empty(device="cpu")
    own = encoder.state_dict()
    copied = {name: tensor for name, tensor in unet.state_dict().items() if name in own}
    encoder.load_state_dict(copied, strict=False)
    for layer in (encoder.controlnet_cond_embedding.conv_in, *encoder.controlnet_cond_embedding.blocks):
        assert isinstance(layer, nn.Conv2d)
        layer.reset_parameters()
    last = encoder.controlnet_cond_embedding.conv_out
    nn.init.zeros_(last.weight)
    assert last.bias is not None
    nn.init.zeros_(last.bias)
    return encoder


def empty_encoder(unet: Any, widths: Sequence[int]) -> FeatureEncoder:
    """The same without weights, on the meta device."""
    with torch.device("meta"):
        return FeatureEncoder(type(unet).from_config(unet.config), widths)
