"""The published layout, VGen's ``.pth``: ModelScope's U-Net under names of its own, and what TF-T2V adds to it.

The network is diffusers' ``UNet3DConditionModel`` with the channels of the latents. TF-T2V's first convolution also
reads the channels of spatial conditions. A convolution of concatenated channels is a sum of two, so those become a
layer of the method (``stem``), and the U-Net stays the stock one, which every other method knows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vidgen_core.errors import BadRequest
from vidgen_core.models.loading import check_names
from vidgen_tf_t2v.networks import Networks, empty

FIRST, STEM = "input_blocks.0.0.weight", "stem.weight"
"""The first convolution as published; our name of its last input channels."""

HEADS = 8
"""Of the first transformer over time as published; diffusers makes no other number."""

ENDS = {
    "conv_in": "input_blocks.0.0",
    "transformer_in": "input_blocks.0.1",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
"""Parts of the U-Net outside its blocks: diffusers' names, and the published ones."""

PLACES = {"resnets": "0", "temp_convs": "0.temopral_conv", "attentions": "1", "temp_attentions": "2"}
"""Parts of one layer: diffusers' names, and their places in a published block, whose misspelling is theirs."""

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
"""Parts of a residual block."""

OWN = {
    "image": "pre_image_condition",
    "histogram": "hist_context_embedding",
    "fps": "fps_embedding",
}
"""Parts of the method: our names, and the published ones."""

MAP_ENCODER = {
    "conv_in": "_embedding.0",
    "conv_mid": "_embedding.3",
    "conv_out": "_embedding.5",
    "over_time": "_embedding_after.layers",
    "norm": "0.norm",
    "to_qkv": "0.fn.to_qkv",
    "to_out": "0.fn.to_out.0",
    "linear_in": "1.net.0.0",
    "linear_out": "1.net.2",
}
"""Parts of the encoder of one spatial condition."""

_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.(\w+)\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Geometry:
    """What names and shapes of a checkpoint tell of its U-Net.

    Attributes:
        layers: Residual blocks of every level of the encoder half.
        channels: Of every level.
        attends: Whether a level has transformers.
        latents: Channels of the latents.
        head_width: Of every attention.
        heads: Of the first transformer over time.
        text_width: Features of a text token.
    """

    layers: int
    channels: tuple[int, ...]
    attends: tuple[bool, ...]
    latents: int
    head_width: int
    heads: int
    text_width: int

    def config(self) -> dict[str, Any]:
        """Arguments of ``UNet3DConditionModel``."""
        blocks = [f"{'CrossAttn' if attends else ''}{{}}Block3D" for attends in self.attends]
        return {
            "sample_size": 32,
            "in_channels": self.latents,
            "out_channels": self.latents,
            "down_block_types": tuple(block.format("Down") for block in blocks),
            "up_block_types": tuple(block.format("Up") for block in reversed(blocks)),
            "block_out_channels": self.channels,
            "layers_per_block": self.layers,
            "cross_attention_dim": self.text_width,
            "attention_head_dim": self.head_width,
        }


def geometry(shapes: Mapping[str, list[int]], name: str, head_width: int | None = None) -> Geometry:
    """The geometry of a checkpoint with these names and shapes.

    Args:
        name: What errors call the checkpoint.
        head_width: Which no shape tells; None takes the first transformer to have as many heads as published.

    Raises:
        BadRequest: it is of another layout, or heads do not fit its widths.
    """

    def shape(key: str, dimensions: int) -> list[int]:
        if len(shapes.get(key, ())) != dimensions:
            raise BadRequest(
                f"'{name}' is no text-to-video checkpoint in VGen's layout: '{key}' should be there, and tells its "
                "size. Give one such as tft2v_t2v_non_ema_512000.pth."
            )
        return shapes[key]

    shape(FIRST, 4)
    blocks = {int(key.split(".")[1]) for key in shapes if re.match(r"input_blocks\.\d+\.", key)}
    ends = [i for i in blocks if f"input_blocks.{i}.op.weight" in shapes]
    per_level = min(ends, default=len(blocks))
    firsts = [1 + level * per_level for level in range(len(ends) + 1)]
    channels = tuple(shape(f"input_blocks.{i}.0.out_layers.3.weight", 4)[0] for i in firsts)
    inner = shape("input_blocks.0.1.proj_in.weight", 3)[0]
    head_width = head_width or inner // HEADS
    if any(width % head_width for width in (inner, *channels)):
        raise BadRequest(
            f"Heads of {head_width} features do not divide the widths of '{name}'. Give the head width that it was "
            "trained with: model.head_width=..."
        )
    return Geometry(
        layers=per_level - 1,
        channels=channels,
        attends=tuple(f"input_blocks.{i}.1.norm.weight" in shapes for i in firsts),
        latents=shape("out.2.weight", 4)[0],
        head_width=head_width,
        heads=inner // head_width,
        text_width=shape("middle_block.1.transformer_blocks.0.attn2.to_k.weight", 2)[1],
    )


def unet_name(name: str, known: Geometry) -> str:
    """The published name of what diffusers' U-Net calls ``name``."""
    for ours, theirs in ENDS.items():
        if name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    if middle := _MIDDLE.fullmatch(name):
        kind, number, inside = middle.groups()
        place = PLACES[kind].replace("0", "3", 1) if number == "1" else PLACES[kind]
        return f"middle_block.{place}.{_inside(kind, inside)}"
    block = _BLOCK.fullmatch(name)
    assert block is not None, name
    side, level, kind, number, inside = block.groups()
    side, first = ("input", 1) if side == "down" else ("output", 0)
    first += int(level) * (known.layers + 1)
    if kind == "downsamplers":
        return f"input_blocks.{first + known.layers}.op.{inside.removeprefix('conv.')}"
    if kind == "upsamplers":
        place = "3" if known.attends[-1 - int(level)] else "1"
        return f"output_blocks.{first + known.layers}.{place}.{inside}"
    return f"{side}_blocks.{first + int(number)}.{PLACES[kind]}.{_inside(kind, inside)}"


def _inside(kind: str, name: str) -> str:
    part, _, leaf = name.partition(".")
    return f"{RESNET[part]}.{leaf}" if kind == "resnets" else name


def own_name(name: str) -> str:
    """The published name of what ``Networks`` calls ``name``; that of the stem is the whole convolution's."""
    if name == STEM:
        return FIRST
    part, _, rest = name.partition(".")
    if part in OWN:
        return f"{OWN[part]}.{rest}"
    condition, *places, leaf = rest.split(".")
    inside = [MAP_ENCODER.get(place, place) for place in places]
    if condition == "masked" and places[0] == "over_time":
        condition = "mask"  # the two halves of this one have different names
    return f"{condition}{'.'.join(inside)}.{leaf}"


def is_published(shapes: Mapping[str, Any]) -> bool:
    """Whether these are names of the published layout."""
    return FIRST in shapes


def reads_conditions(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a checkpoint's first convolution reads spatial conditions beside the latents: TF-T2V's do."""
    first, last = tensors.get(FIRST), tensors.get("out.2.weight")
    return first is not None and last is not None and first.shape[1] > last.shape[0]


def models(shapes: Mapping[str, list[int]], name: str, head_width: int | None = None) -> tuple[Any, Networks, Geometry]:
    """The U-Net and the method's modules that a checkpoint of these names and shapes holds, on the meta device.

    Arguments are those of ``geometry``. Raises BadRequest unless every name and shape is accounted for; all that are
    not are named.
    """
    known = geometry(shapes, name, head_width)
    stem = shapes[FIRST][1] - known.latents

    def own_shape(ours: str) -> list[int] | None:
        found = shapes.get(own_name(ours))
        if ours != STEM or found is None:
            return found
        return [found[0], stem, *found[2:]] if stem else None

    unet = _unet(known)
    own = empty(own_shape)
    layout = {own_name(key): list(tensor.shape) for key, tensor in own.state_dict().items()}
    for key, tensor in unet.state_dict().items():
        layout[unet_name(key, known)] = [*tensor.shape, 1] if along_time(key) else list(tensor.shape)
    layout[FIRST][1] = known.latents + stem
    check_names(layout, shapes, name)
    return unet, own, known


def _unet(known: Geometry) -> Any:
    from diffusers import UNet3DConditionModel
    from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel

    with torch.device("meta"):
        unet = UNet3DConditionModel(**known.config())
        if known.heads != HEADS:
            unet.transformer_in = TransformerTemporalModel(known.heads, known.head_width, known.channels[0])
    return unet


def along_time(key: str) -> bool:
    """Whether a linear layer of diffusers' is a convolution over one frame as published."""
    return re.search(r"(temp_attentions\.\d+|transformer_in)\.proj_(in|out)\.weight$", key) is not None


def read_unet(tensors: Mapping[str, Tensor], name: str, dtype: torch.dtype, head_width: int | None = None) -> Any:
    """The U-Net of a checkpoint's tensors, which carries the method's along (``carried``).

    Tensors that have the dtype already are not copied. Raises BadRequest as ``models`` does.
    """
    unet, own, known = models({key: list(tensor.shape) for key, tensor in tensors.items()}, name, head_width)
    first = tensors[FIRST]
    own_tensors = {key: tensors[own_name(key)] for key in own.state_dict()}
    if STEM in own_tensors:
        own_tensors[STEM] = first[:, known.latents :].clone()
    state = {}
    for key in unet.state_dict():
        tensor = tensors[unet_name(key, known)]
        state[key] = (tensor.squeeze(-1) if along_time(key) else tensor).to(dtype)
    state["conv_in.weight"] = first[:, : known.latents].to(dtype, copy=True)
    unet.load_state_dict(state, assign=True)
    # On the network, not on a method's object: that is made anew for every batch of a request, the network is not.
    unet.carried = own_tensors
    return unet.eval()


def carried(network: Any) -> dict[str, Tensor]:
    """The method's tensors, under our names, that a U-Net of a published checkpoint carries along; else none."""
    return dict(getattr(network, "carried", {}))
