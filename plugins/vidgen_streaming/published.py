"""The published checkpoint, ``streaming_t2v.ckpt``: one file with every part under a prefix of its own.

``unet.`` is CAM, not the U-Net; ``base_model.`` is the U-Net with the mergers and the mixes inside.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from vidgen_core.convert import Converted
from vidgen_core.errors import BadRequest
from vidgen_core.models.loading import check_layout
from vidgen_core.models.tuned import DENOISER, is_over_time, read_tensors

if TYPE_CHECKING:
    from vidgen_core.run import Run

FROZEN = ("vae.", "text_encoder.")
"""Parts that are copies of public weights, which the model's own folder brings."""

SIGNS = ("unet.controlnet_cond_embedding.", "base_model.cross_attention_merger_")
"""Beginnings of names that no other layout has."""

IMAGE_ENCODER = "image_encoder.model."
"""Prefix of the anchor's encoder, in OpenCLIP's layout."""

AS_PUBLISHED = "scheduler=ddim scheduler.eta=1 guidance_scale=7.5"
"""How the released chunks are sampled; the model's own defaults are those of its short videos."""

_MERGER = re.compile(r"cross_attention_merger_(?:down_blocks\.(\d+)|mid_block)\.temporal_transformer\.(.+)")
_MIX = re.compile(r"((?:down_blocks|up_blocks|mid_block)\..+\.attn2)\.(alpha|conv\.\w+|conv_ln\.\w+)")


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

    def check(self, unet: nn.Module, layers: int, source: str) -> None:
        """Raise BadRequest where half of APM is missing, or the U-Net's tensors or APM's mixes are not the model's.

        What was trained here holds the layers that trained; where there are others the U-Net must be whole.

        Args:
            layers: Text attentions of the U-Net.
            source: What errors call the checkpoint.
        """
        if any(map(is_over_time, self.base)):
            check_layout(unet, {name: list(tensor.shape) for name, tensor in self.base.items()}, source)
        mixes = {name.split(".")[1] for name in self.own if name.startswith("mixes.")}
        if mixes and len(mixes) != layers:
            raise BadRequest(
                f"'{source}' mixes image tokens into {len(mixes)} text attentions, but the model has {layers}. Give "
                "the model that it was learnt on (model=, model.path=), or copy the file again."
            )
        if bool(mixes) != any(name.startswith("resampler.") for name in self.own):
            raise BadRequest(
                f"'{source}' has half of APM: its {'resampler is' if mixes else 'mixes are'} missing. Copy the file "
                "again."
            )


def check_sampling(parts: Parts, run: Run, source: str) -> None:
    """Say so where the released model, which is told by its whole U-Net, is not sampled as it was released."""
    eta = (run.config.get("scheduler") or {}).get("eta")
    if any(map(is_over_time, parts.base)) and (eta, run.request.guidance_scale) != (1, 7.5):
        run.warn(f"'{source}' was released with chunks that were sampled otherwise than here: {AS_PUBLISHED}.")


def is_published(names: Iterable[str]) -> bool:
    """Whether these are the names of the published layout."""
    return any(name.startswith(SIGNS) for name in names)


def read(file: Path) -> tuple[Parts, str]:
    """A method's file, ours or the published one, and the model that it was learnt on, or "".

    Raises BadRequest for one that is damaged, holds no weights, or is a pickle that would run code.
    """
    tensors, base = read_tensors(file)
    if is_published(tensors):
        return sorted_parts(tensors), base
    parts = Parts()
    for name, tensor in tensors.items():
        if name.startswith(DENOISER):
            parts.base[name.removeprefix(DENOISER)] = tensor
        elif name.startswith(IMAGE_ENCODER):
            parts.image_encoder[name.removeprefix(IMAGE_ENCODER)] = tensor
        else:
            parts.own[name] = tensor
    return parts, base


def converted(tensors: Mapping[str, Tensor]) -> Converted | None:
    """The published checkpoint as the file that ``read`` takes just as well; None for another layout.

    Raises BadRequest unless every tensor is of a part, and every part is whole: what is not is named.
    """
    if not is_published(tensors):
        return None
    parts = sorted_parts(tensors)
    check_whole(parts)
    base = {f"{DENOISER}{name}": tensor for name, tensor in parts.base.items()}
    encoder = {f"{IMAGE_ENCODER}{name}": tensor for name, tensor in parts.image_encoder.items()}
    return Converted(
        files={"methods/streaming.safetensors": {**parts.own, **base, **encoder}},
        left_out=dict.fromkeys(FROZEN, "a copy of public weights, which the model's own folder brings"),
        use="vidgen method=streaming model=modelscope weights={folder}/methods/streaming.safetensors "
        f"{AS_PUBLISHED} prompt='...'",
    )


def check_whole(parts: Parts, source: str = "the checkpoint") -> None:
    """Raise BadRequest unless the U-Net and both memories are there with every tensor; all others are named."""
    from vidgen_streaming.networks import loaded

    unet = _network({name: list(tensor.shape) for name, tensor in parts.base.items()}, source)
    parts.check(unet, len(_text_layers(parts.base)), source)
    found = {name.partition(".")[0] for name in loaded(parts.own, unet, source).own()}
    if missing := [part for part in ("cam", "mergers", "resampler", "mixes") if part not in found]:
        raise BadRequest(f"'{source}' has no {' and no '.join(missing)}. Copy the file again.")


def _text_layers(names: Iterable[str]) -> list[str]:
    """A tensor of each text cross-attention, of which layers over time have the like."""
    return [name for name in names if name.endswith(".attn2.to_k.weight") and not is_over_time(name)]


def _network(shapes: Mapping[str, list[int]], source: str) -> Any:
    """The ``UNet3DConditionModel`` that tensors of these names and shapes are of, on the meta device."""
    import torch
    from diffusers import UNet3DConditionModel

    def widths(resnet: str) -> tuple[int, ...]:
        """Channels of the encoder's ``resnet``, counted by the number in its place."""
        found = (shapes.get(f"down_blocks.{resnet.format(i)}.conv1.weight") for i in count())
        return tuple(shape[0] for shape in takewhile(bool, found) if shape)

    def kinds(side: str) -> tuple[str, ...]:
        inside = [name.split(".") for name in shapes if name.startswith(f"{side.lower()}_blocks.")]
        attend = {number for _, number, kind, *_ in inside if kind == "attentions"}
        return tuple(f"{'CrossAttn' * (str(i) in attend)}{side}Block3D" for i in range(len(widths("{}.resnets.0"))))

    try:
        with torch.device("meta"):
            return UNet3DConditionModel(
                in_channels=shapes["conv_in.weight"][1],
                out_channels=shapes["conv_out.weight"][0],
                block_out_channels=widths("{}.resnets.0"),
                down_block_types=kinds("Down"),
                up_block_types=kinds("Up"),
                layers_per_block=len(widths("0.resnets.{}")),
                cross_attention_dim=shapes[_text_layers(shapes)[0]][1],
                attention_head_dim=shapes["transformer_in.proj_in.weight"][0] // 8,  # which has 8 heads
            )
    except (KeyError, IndexError, ValueError) as error:
        raise BadRequest(
            f"'{source}' holds no U-Net ('base_model.*') of ModelScope's kind ({error or type(error).__name__}). Copy "
            "the file again."
        ) from error


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
    found = {match[1] for name in names if (match := _MIX.fullmatch(name))}
    sides = ("down_blocks", "up_blocks", "mid_block")  # as UNet3DConditionModel registers them

    def place(path: str) -> tuple[int, list[int]]:
        return sides.index(path.partition(".")[0]), [int(part) for part in path.split(".") if part.isdigit()]

    return sorted(found, key=place)
