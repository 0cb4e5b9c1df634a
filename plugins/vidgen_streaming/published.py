"""The published checkpoint, ``streaming_t2v.ckpt``: one file with every part under a prefix of its own.

``unet.`` is CAM, not the U-Net; ``base_model.`` is the U-Net with the mergers and the mixes inside.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from vidgen_core.errors import BadRequest
from vidgen_core.models.tuned import read_tensors

FROZEN = ("vae.", "text_encoder.")
"""Parts that are copies of public weights, which the model's own folder brings."""

IMAGE_ENCODER = "image_encoder.model."
"""Prefix of the anchor's encoder, in OpenCLIP's layout."""

_MERGER = re.compile(r"cross_attention_merger_(?:down_blocks\.(\d+)|mid_block)\.temporal_transformer\.(.+)")
_MIX = re.compile(r"(.+\.attn2)\.(alpha|conv\.\w+|conv_ln\.\w+)")


@dataclass
class Parts:
    """A checkpoint's tensors, sorted.

    Attributes:
        own: Under the names of ``Networks``.
        base: Of the U-Net, under its own names.
        image_encoder: In OpenCLIP's layout, without a prefix.
    """

    own: dict[str, Tensor] = field(default_factory=dict)
    base: dict[str, Tensor] = field(default_factory=dict)
    image_encoder: dict[str, Tensor] = field(default_factory=dict)


def is_published(names: Iterable[str]) -> bool:
    """Whether these are the names of the published layout."""
    return any(name.startswith(("base_model.", "unet.")) for name in names)


def read(file: Path) -> tuple[Parts, str]:
    """A method's file, ours or the published one, and the model that it was learnt on, or "".

    Raises BadRequest for one that is damaged, holds no weights, or is a pickle that would run code.
    """
    if file.suffix == ".ckpt":
        tensors, base = _lightning(file), ""
    else:
        tensors, base = read_tensors(file)
    if is_published(tensors):
        return sorted_parts(tensors), base
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith("denoiser.")}
    learnt = {name.removeprefix("denoiser."): t for name, t in tensors.items() if name.startswith("denoiser.")}
    encoder = {name.removeprefix(IMAGE_ENCODER): own.pop(name) for name in list(own) if name.startswith(IMAGE_ENCODER)}
    return Parts(own, learnt, encoder), base


def _lightning(file: Path) -> dict[str, Tensor]:
    try:
        # mmap: 12.9 GB are not read twice, and parts that are not wanted never.
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # UnpicklingError, OSError, EOFError, RuntimeError: all are files
        raise BadRequest(
            f"'{file}' cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:160]}). It is damaged, "
            "or a pickle that would run code."
        ) from error
    tensors = found.get("state_dict", found) if isinstance(found, Mapping) else None
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise BadRequest(f"'{file}' holds no weights: a dictionary of names and tensors was expected.")
    return dict(tensors)


def sorted_parts(tensors: Mapping[str, Tensor]) -> Parts:
    """The parts of a published checkpoint. Raises BadRequest for a name that belongs to none."""
    parts, unknown = Parts(), []
    layers = attention_order(name.removeprefix("base_model.") for name in tensors if name.startswith("base_model."))
    for name, tensor in tensors.items():
        prefix, _, inside = name.partition(".")
        if prefix == "unet":
            parts.own[f"cam.{inside}"] = tensor
        elif prefix == "resampler":
            parts.own[f"resampler.{inside.removeprefix('context_embedding.')}"] = tensor
        elif name.startswith(IMAGE_ENCODER):
            parts.image_encoder[name.removeprefix(IMAGE_ENCODER)] = tensor
        elif prefix == "base_model" and (merger := _MERGER.fullmatch(inside)):
            place = "mid" if merger[1] is None else f"down.{merger[1]}"
            parts.own[f"mergers.{place}.{merger[2]}"] = tensor
        elif prefix == "base_model" and (mix := _MIX.fullmatch(inside)):
            parts.own[f"mixes.{layers.index(mix[1])}.{mix[2]}"] = tensor
        elif prefix == "base_model":
            parts.base[inside] = tensor
        elif not name.startswith(FROZEN):
            unknown.append(name)
    if unknown:
        raise BadRequest(f"The checkpoint holds {len(unknown)} tensors of no known part, first '{unknown[0]}'.")
    return parts


def attention_order(names: Iterable[str]) -> list[str]:
    """The mixed cross-attentions in the order of the U-Net's modules: down, up, mid; blocks by number."""
    found = {match[1] for name in names if (match := _MIX.fullmatch(name)) and match[2] == "alpha"}
    sides = ("down_blocks", "up_blocks", "mid_block")  # as UNet3DConditionModel registers them

    def place(path: str) -> tuple[int, list[int]]:
        return sides.index(path.partition(".")[0]), [int(part) for part in path.split(".") if part.isdigit()]

    return sorted(found, key=place)
