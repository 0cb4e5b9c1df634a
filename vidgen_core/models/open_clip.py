"""OpenCLIP's layout of an image encoder: a vision transformer of that library, read into transformers' own class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vidgen_core.errors import BadRequest
from vidgen_core.models.loading import check_names

TEXT = (
    "token_embedding.",
    "positional_embedding",
    "transformer.",
    "ln_final.",
    "text_projection",
    "logit_scale",
)
"""Beginnings of the names of the text half, which an image encoder does without."""

NAMES = (
    ("vision_model.", ""),
    ("embeddings.class_embedding", "visual.class_embedding"),
    ("embeddings.patch_embedding.", "visual.conv1."),
    ("embeddings.position_embedding.weight", "visual.positional_embedding"),
    ("pre_layrnorm.", "visual.ln_pre."),
    ("post_layernorm.", "visual.ln_post."),
    ("visual_projection.weight", "visual.proj"),
    ("encoder.layers.", "visual.transformer.resblocks."),
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
    (".self_attn.out_proj.", ".attn.out_proj."),
    (".self_attn.q_proj.", ".attn.in_proj_"),
    (".self_attn.k_proj.", ".attn.in_proj_"),
    (".self_attn.v_proj.", ".attn.in_proj_"),
)
"""Parts of names: those of transformers, and OpenCLIP's, where one tensor holds queries, keys and values."""

GEOMETRY = {
    "visual.conv1.weight": 4,
    "visual.positional_embedding": 2,
    "visual.proj": 2,
    "visual.transformer.resblocks.0.mlp.c_fc.weight": 2,
}
"""The tensors whose shapes tell the encoder's, and their numbers of dimensions."""

MOST_HEADS = 16
"""Published encoders have a head for every 64 features, but the larger ones (ViT-H, g, bigG) wider heads instead."""


def vision_tower(
    tensors: Mapping[str, Tensor],
    prefix: str = "",
    *,
    name: str,
    head_width: int | None = None,
    activation: str = "gelu",
    dtype: torch.dtype = torch.float32,
) -> Any:
    """The ``CLIPVisionModelWithProjection`` of a checkpoint in OpenCLIP's layout, with every tensor accounted for.

    Layers, widths, patch and image size are read from the shapes. The tensors are taken, not copied, where they have
    the dtype already.

    Args:
        tensors: ``<prefix>visual.*``; the text half under the same prefix is dropped, other prefixes are left alone.
        name: What errors call the checkpoint.
        head_width: Features of an attention head, which no shape tells; None takes that of the published encoders.
        activation: ``gelu``, or ``quick_gelu``, which OpenAI's own weights were trained with.

    Raises:
        BadRequest: tensors are missing, unexpected or of another shape (all are named), or heads do not fit the width.
    """
    from accelerate import init_empty_weights
    from transformers import CLIPVisionModelWithProjection

    own_prefix = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    given = {key: tensor for key, tensor in own_prefix.items() if not key.startswith(TEXT)}
    config = _geometry({key: list(tensor.shape) for key, tensor in given.items()}, prefix, name, head_width)
    config.hidden_act = activation
    with init_empty_weights():
        tower = CLIPVisionModelWithProjection(config)
    layout: dict[str, list[int]] = {}
    for key, tensor in tower.state_dict().items():
        shape = list(tensor.shape)
        if key == "visual_projection.weight":
            shape.reverse()
        elif _part(key) is not None:
            shape[0] *= 3
        layout[prefix + published(key)] = shape
    check_names(layout, {prefix + key: list(tensor.shape) for key, tensor in given.items()}, name)
    tower.load_state_dict({key: _own(key, given).to(dtype) for key in tower.state_dict()}, assign=True)
    return tower.eval().requires_grad_(False)


def published(name: str) -> str:
    """OpenCLIP's name of the tensor that holds the one of this name in transformers."""
    for ours, theirs in NAMES:
        name = name.replace(ours, theirs)
    return name


def _own(key: str, given: Mapping[str, Tensor]) -> Tensor:
    """The tensor of transformers' name ``key``, out of those of OpenCLIP."""
    tensor, part = given[published(key)], _part(key)
    if part is not None:
        return tensor.chunk(3)[part]
    return tensor.T.contiguous() if key == "visual_projection.weight" else tensor


def _part(key: str) -> int | None:
    """Which third of the fused projection a tensor is; None for any that is whole."""
    parts = [i for i, part in enumerate(("q_proj", "k_proj", "v_proj")) if f".{part}." in key]
    return parts[0] if parts else None


def _geometry(shapes: Mapping[str, list[int]], prefix: str, name: str, head_width: int | None) -> Any:
    """The configuration of the encoder whose tensors have these shapes."""
    from transformers import CLIPVisionConfig

    lacking = [prefix + key for key, dimensions in GEOMETRY.items() if len(shapes.get(key, ())) != dimensions]
    if lacking:
        raise BadRequest(
            f"'{name}' holds no vision transformer in OpenCLIP's layout: {', '.join(lacking)} should be there, and "
            "tell its size. Give an image encoder of that layout, such as ViT-H-14's, and the prefix of its names."
        )
    conv, positions, projection, fc = (shapes[key] for key in GEOMETRY)
    width, channels, _, patch = conv
    head_width = head_width or width // max(1, min(width // 64, MOST_HEADS))
    if width % head_width:
        raise BadRequest(
            f"The image encoder in '{name}' is {width} features wide, which heads of {head_width} do not divide. Give "
            "the head width that it was trained with."
        )
    layers = {key.split(".")[3] for key in shapes if key.startswith("visual.transformer.resblocks.")}
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=fc[0],
        projection_dim=projection[1],
        num_hidden_layers=len(layers),
        num_attention_heads=width // head_width,
        num_channels=channels,
        image_size=patch * math.isqrt(positions[0] - 1),
        patch_size=patch,
    )
