"""Spatial conditions as they are asked for: condition -> a file of its maps, or ``auto``, which makes them.

Footage is what ``auto`` looks at: the clip that ``motion`` is taken from, else ``video=``, else ``image=``. A video
that is footage says where things are and not what they look like; its middle frame is not embedded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidgen_core.errors import BadRequest, nearest
from vidgen_core.request import Request
from vidgen_tf_t2v.extract import EXTRACTED, Extraction, motion
from vidgen_tf_t2v.maps import CHANNELS, is_array, is_picture, read_map

KEY = "tf_t2v.conditions"
AUTO = "auto"


def check_conditions(conditions: Mapping[str, Any], request: Request) -> None:
    """Raise BadRequest for a condition that nobody knows, a missing file, or what ``auto`` cannot be made from."""
    for name, path in conditions.items():
        key = f"{KEY}.{name}"
        if name not in CHANNELS:
            raise BadRequest(f"{key}: there is no such condition.{nearest(name, CHANNELS)}")
        if not isinstance(path, str) or not path:
            raise BadRequest(f"{key}={path}: give a file of its maps, or auto, which makes them from a video.")
        if path == AUTO:
            _check_auto(name, conditions, request)
        elif not Path(path).expanduser().is_file():
            raise BadRequest(f"{key}={path}: there is no such file.")


def _check_auto(name: str, conditions: Mapping[str, str], request: Request) -> None:
    key, found = f"{KEY}.{name}=auto", footage(conditions, request)
    if name not in EXTRACTED:
        raise BadRequest(
            f"{key}: these can be made from a video: {', '.join(EXTRACTED)}. Give a file of maps: {KEY}.{name}=..."
        )
    if found is None:
        raise BadRequest(
            f"{key} has nothing to be made from. Give video=..., or image=..., or the clip that motion is taken from, "
            f"{KEY}='{{motion: clip.mp4, {name}: auto}}'; or give a file of maps."
        )
    if name == "motion" and found[0] == "image":
        raise BadRequest(f"{key} needs a video, but image={found[1]} is a picture. Give video=...")


def footage(conditions: Mapping[str, str], request: Request) -> tuple[str, str] | None:
    """The key and the path of what ``auto`` looks at, or None where there is nothing."""
    clip = conditions.get("motion", AUTO)
    if clip != AUTO and not is_array(clip):
        return f"{KEY}.motion", clip
    given = {"video": request.video, "image": request.image}
    return next(((key, path) for key, path in given.items() if path is not None), None)


def shown(conditions: Mapping[str, str], request: Request) -> Request:
    """The request without a video that only says where things are."""
    if AUTO not in conditions.values():
        return request
    found = footage(conditions, request)
    return request.replace(video=None) if found is not None and found[0] == "video" else request


def read_conditions(
    conditions: Mapping[str, str],
    request: Request,
    extraction: Extraction,
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """Condition -> its maps (c, F, H, W), float32, of the whole video.

    Args:
        conditions: They passed ``check_conditions``.
        extraction: How ``auto`` makes maps.

    Raises:
        BadRequest: a file cannot be read, holds no such maps, or has fewer frames than are asked for.
    """
    frames, made = request.num_frames, {}
    for name, path in conditions.items():
        found = footage(conditions, request)
        if path == AUTO and found is not None:
            made[name] = extraction.maps(name, found[1], f"{found[0]}={found[1]}", frames, device)
        elif name == "motion" and not is_array(path) and not is_picture(path):
            made[name] = motion(path, f"{KEY}.motion={path}", frames)
        else:
            made[name] = read_map(name, path, frames, f"{KEY}.{name}={path}")
    return made
