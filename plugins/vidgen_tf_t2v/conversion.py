"""`vidgen convert` for the published layout, both ways.

A published checkpoint becomes diffusers' own network and the method's file beside it; what was trained here becomes the
published file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vidgen_core.convert import Converted
from vidgen_core.errors import BadRequest
from vidgen_core.models.tuned import DENOISER
from vidgen_tf_t2v.ddim import DIFFUSIONS
from vidgen_tf_t2v.networks import STEM as CHANNELS
from vidgen_tf_t2v.published import (
    FIRST,
    HEADS,
    STEM,
    Geometry,
    along_time,
    is_published,
    models,
    own_name,
    reads_conditions,
    unet_name,
)

UNET = "unet/diffusion_pytorch_model.safetensors"
METHOD = "methods/tf_t2v.safetensors"
PUBLISHED = "tf_t2v.safetensors"


def converted(tensors: Mapping[str, Tensor]) -> Converted | None:
    """Either direction, by the names; None for other tensors.

    Raises BadRequest for a checkpoint that cannot be had in the other layout.
    """
    if is_published(tensors):
        return as_diffusers(tensors)
    if "image.0.weight" in tensors and f"{DENOISER}conv_in.weight" in tensors:
        return as_published(tensors)
    return None


def as_diffusers(tensors: Mapping[str, Tensor]) -> Converted:
    """A ``UNet3DConditionModel`` with its scheduler, and beside it what TF-T2V adds."""
    name = "the checkpoint"
    unet, own, known = models({key: list(tensor.shape) for key, tensor in tensors.items()}, name)
    if known.heads != HEADS:
        raise BadRequest(
            f"The checkpoint's first layer over time has {known.heads} heads, and diffusers knows {HEADS} only. It "
            "needs no conversion: model=tf_t2v model.path=<file>."
        )
    network = {}
    for key in unet.state_dict():
        tensor = tensors[unet_name(key, known)]
        network[key] = tensor.squeeze(-1) if along_time(key) else tensor
    first = tensors[FIRST]
    network["conv_in.weight"] = first[:, : known.latents]
    added = {key: tensors[own_name(key)] for key in own.state_dict() if key != STEM}
    conditions = reads_conditions(tensors)
    if conditions:
        added[STEM] = first[:, known.latents :]
    files: dict[str, Mapping[str, Tensor]] = {UNET: network}
    if added:
        files[METHOD] = added
    how = "vidgen method=tf_t2v" if conditions else "vidgen"
    said = f"{how} model=tf_t2v model.path={{folder}} prompt='...'"
    if not conditions:
        said += "; unless it is SR600, which has the same names and is used as it is: tf_t2v.refine=<file>"
    return Converted(
        files=files,
        use=said,
        left_out={},
        configs={
            "unet/config.json": json.loads(unet.to_json_string()),
            "scheduler/scheduler_config.json": DIFFUSIONS["v_zero_snr" if conditions else "eps"],
        },
    )


def as_published(tensors: Mapping[str, Tensor]) -> Converted:
    """VGen's names for what `vidgen train method=tf_t2v` learnt, with the channels that no condition was trained for.

    Raises BadRequest where only a part of the network was trained.
    """
    base = {name.removeprefix(DENOISER): t for name, t in tensors.items() if name.startswith(DENOISER)}
    own = {name: t for name, t in tensors.items() if not name.startswith(DENOISER)}
    known = _geometry(base)
    found = {own_name(name): tensor for name, tensor in own.items() if name != STEM}
    for name, tensor in base.items():
        found[unet_name(name, known)] = tensor[..., None] if along_time(name) else tensor
    first = base["conv_in.weight"]
    stem = own.get(STEM)
    if stem is None:
        stem = first.new_zeros(len(first), CHANNELS, *first.shape[2:])
    found[FIRST] = torch.cat([first, stem], dim=1)
    try:
        models({name: list(tensor.shape) for name, tensor in found.items()}, "what was trained")
    except BadRequest as error:
        raise BadRequest(
            f"This holds a part of the network only, or one of another kind, and no published file: {error} Train "
            "with trainer.trainable=all."
        ) from error
    return Converted(
        files={PUBLISHED: found},
        use=f"vidgen method=tf_t2v model=tf_t2v model.path={{folder}}/{PUBLISHED} prompt='...'; VGen reads it once "
        "torch has saved it as .pth, with the schedule that it was trained on",
        left_out={},
        added={} if STEM in own else {FIRST: CHANNELS * first[:, :1].numel()},
    )


def _geometry(base: Mapping[str, Any]) -> Geometry:
    """As much of it as names need."""

    def numbers(pattern: str) -> set[int]:
        return {int(match[1]) for name in base if (match := re.match(pattern, name))}

    levels = sorted(numbers(r"down_blocks\.(\d+)\."))
    attends = tuple(level in numbers(r"down_blocks\.(\d+)\.attentions\.") for level in levels)
    layers = len(numbers(r"down_blocks\.0\.resnets\.(\d+)\."))
    return Geometry(layers, (), attends, latents=0, head_width=0, heads=HEADS, text_width=0)
