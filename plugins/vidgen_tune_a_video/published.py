"""The published layout: an inflated U-Net, whose names are those of the image model and, with ``_temp.``, its own.

``norm_temp`` and ``attn_temp`` lie in the transformer block there; here in its part ``temporal``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vidgen_core.errors import BadRequest
from vidgen_core.models import loading
from vidgen_core.models.tuned import DENOISER, read_tensors

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

TEMPORAL = "temporal"
"""The name of the inserted part of each transformer block."""


def is_temporal(name: str) -> bool:
    """Whether a parameter of that name belongs to an inserted layer."""
    return TEMPORAL in name.split(".")


def read_inflated(path: str, dtype: torch.dtype, variant: str | None = None) -> UNet2DConditionModel | None:
    """The image U-Net of an inflated one, which carries the temporal tensors along (``carried``).

    None where a folder or hub id holds no inflated U-Net of the published layout.

    Raises BadRequest where weights are missing or damaged, or names and shapes do not fit; all are named.
    """
    from diffusers import UNet2DConditionModel

    config = _config(path)
    if not any(block.endswith("3D") for block in config.get("down_block_types", ())):
        return None
    folder = loading.fetched(path, "unet/*") / "unet"
    tensors: dict[str, Tensor] = {}
    for file in loading.weight_files(folder, variant):
        tensors |= read_tensors(file)[0]
    if not tensors:
        raise BadRequest(f"'{folder}' holds no weights, neither as safetensors nor as torch writes them.")
    # diffusers' own UNet3DConditionModel has the same class and block names, but other parts.
    if not any("attn_temp." in name for name in tensors):
        return None
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(as_2d(config))
    image = {name: tensor.to(dtype) for name, tensor in tensors.items() if "_temp." not in name}
    loading.check_layout(unet, {name: list(tensor.shape) for name, tensor in image.items()}, str(folder))
    unet.load_state_dict(image, assign=True)
    # On the network, not on a method's object: that is made anew for every batch of a request, the network is not.
    unet.carried = from_published({name: tensor for name, tensor in tensors.items() if "_temp." in name})
    return unet.eval()


def _config(path: str) -> dict[str, Any]:
    try:
        config = json.loads((loading.fetched(path, "unet/config.json") / "unet" / "config.json").read_text())
    except (BadRequest, OSError, ValueError):  # told when the model is read as one that is not inflated
        return {}
    return config if isinstance(config, dict) else {}


def extra_channels(path: str | None) -> int | None:
    """How many channels the U-Net of a folder or hub id reads beside its latents; None where no file says so."""
    config = _config(path) if path else {}
    read, made = config.get("in_channels"), config.get("out_channels")
    return read - made if isinstance(read, int) and isinstance(made, int) else None


def carried(network: Any) -> dict[str, Tensor]:
    """The temporal tensors, under our names, that an image U-Net carries along; none unless it was inflated."""
    return dict(getattr(network, "carried", {}))


def as_2d(config: Mapping[str, Any]) -> dict[str, Any]:
    """An inflated network's configuration as the image model's: whatever was called 3D is 2D."""
    return {key: _renamed(value, "3D", "2D") for key, value in config.items() if key != "_class_name"}


def as_3d(config: Mapping[str, Any]) -> dict[str, Any]:
    """An image model's configuration as the published program writes that of the inflated network."""
    renamed = {key: _renamed(value, "2D", "3D") for key, value in config.items()}
    return {**renamed, "_class_name": "UNet3DConditionModel"}


def _renamed(value: Any, old: str, new: str) -> Any:
    if isinstance(value, list):
        return [_renamed(item, old, new) for item in value]
    return value.replace(old, new) if isinstance(value, str) else value


def from_published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under our names; those that are ours already stay."""
    renamed = {}
    for name, tensor in tensors.items():
        name = name.removeprefix(DENOISER)
        for part in ("norm_temp.", "attn_temp."):
            if part in name and f"{TEMPORAL}.{part}" not in name:
                name = name.replace(part, f"{TEMPORAL}.{part}")
        renamed[name] = tensor
    return renamed


def to_published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the inflated network under the published names."""
    return {name.replace(f".{TEMPORAL}.", "."): tensor for name, tensor in tensors.items()}
