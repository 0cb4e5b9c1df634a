"""Edits of a clip's depth: the paper's "continuously controllable depth", written in the configuration.

An edit changes depth as the network reads it, resized and normalised to -1 (far) .. 1 (near). Earlier, normalisation
would undo it: a frame scaled or shifted as a whole would come out as it was, and a region brought nearer than all else
would push all else back. F frames, h w latent cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vidgen_core.data.one_clip import OneClip
from vidgen_core.depth_map import depth_channel
from vidgen_core.errors import BadRequest, nearest
from vidgen_core.models.loading import located
from vidgen_depth.maps import InColour, read_maps

RANGES = {"value": (-1.0, 1.0), "scale": (0.0, math.inf), "shift": (-2.0, 2.0), "amount": (0.0, 1.0)}
WHAT = (("value",), ("scale", "shift"), ("from",), ("blend", "amount"))
"""The changes, of which an edit makes one; keys that stand together belong together."""
KEYS = ("frames", "region", "mask", "inverted", *(key for keys in WHAT for key in keys))


@dataclass(frozen=True)
class Edit:
    """One change of depth, checked and with its files read. Numbers are those that ``read_edits`` describes."""

    frames: range
    region: tuple[float, float, float, float]  # top, left, bottom, right
    mask: Tensor | None  # (F or 1, H', W') in 0..1
    value: float | None
    scale: float
    shift: float
    other: Tensor | OneClip | None  # nearness (F, H', W') of another clip, or that clip, whose maps are yet to be made
    inverted: bool
    amount: float

    def weight(self, depth: Tensor) -> Tensor:
        """How much of every cell the edit covers, (F, h, w) in 0..1: what is cut by an edge is covered in part."""
        frames, h, w = depth.shape
        top, left, bottom, right = self.region
        weight = _covered(self.frames.start, self.frames.stop, frames)[:, None, None]
        weight = weight * _covered(top * h, bottom * h, h)[:, None] * _covered(left * w, right * w, w)
        if self.mask is not None:
            weight = weight * interpolate(self.mask[None], (h, w), mode="area")[0]
        return weight.to(depth)

    def settled(self, nearness: Callable[[OneClip, bool], Tensor]) -> Edit:
        """With maps in place of another clip; ``nearness`` makes them, and is told whether their file is inverted."""
        return replace(self, other=nearness(self.other, self.inverted)) if isinstance(self.other, OneClip) else self

    def goal(self, depth: Tensor, weight: Tensor, normalise: str) -> Tensor:
        """What the depth (F, h, w) would become where the edit covers it wholly."""
        if isinstance(self.other, Tensor):
            other = depth_channel(self.other[None], (depth.shape[1], depth.shape[2]), normalise)[0, 0].to(depth)
            return torch.lerp(depth, other, self.amount)
        if self.value is not None:
            return torch.full_like(depth, self.value)
        # One mean for all frames: a mean of each frame's own would let the rest flicker as things move.
        mean = (weight * depth).sum() / weight.sum().clamp(min=1e-6)
        return mean + self.scale * (depth - mean) + self.shift


def edited(depth: Tensor, edits: Sequence[Edit], normalise: str = "per_frame") -> Tensor:
    """The depth of a clip after all edits, in their order, kept within -1 .. 1.

    Args:
        depth: (F, h, w) as the network reads it, from ``depth_channel``.
        edits: What ``read_edits`` made of the configuration, settled.
        normalise: How the maps of other clips are normalised, as in ``depth_channel``.

    Returns:
        (F, h, w); the very depth where there is no edit.
    """
    for edit in edits:
        weight = edit.weight(depth)
        depth = torch.lerp(depth, edit.goal(depth, weight, normalise), weight)
    return depth.clamp(-1, 1) if edits else depth


def read_edits(given: Any, clip: OneClip) -> tuple[Edit, ...]:
    """The edits that a configuration describes: a mapping, or a list of them; None for none.

    An edit says what changes, by one of::

        value: 0.5            to this depth, -1 (far) .. 1 (near)
        scale: 0.5            contrast about the mean of what is edited, 0 (flat) or more; also with shift
        shift: 0.3            nearer (or, below 0, farther) by this much, -2 .. 2
        from: path            to the depth of another clip: of a file that ``read_maps`` reads, or of the clip itself
        blend: path           towards it, by
        amount: 0.5           0 (not at all) .. 1 (wholly)

    and may say where; without, all of the clip is meant::

        frames: [0, 8]        frames 0 to 7
        region: [0, 0, 1, 1]  top, left, bottom, right, as shares of height and width
        mask: path            a picture for all frames, or one for each: black nowhere, its brightest wholly

    ``inverted: true`` says that the other clip's file holds distance. It has a map for each frame of the clip that is
    edited; of any other number those are taken that would be frames of a clip. Files are cut as its frames are cut.

    Args:
        clip: The clip that is edited.

    Raises:
        BadRequest: a key, a number or a path is not one of these; the message names the edit.
    """
    listed = [] if given is None else [given] if isinstance(given, Mapping) else given
    if not isinstance(listed, Sequence) or not all(isinstance(edit, Mapping) for edit in listed):
        raise BadRequest(f"{given} is no edit of depth. An edit is a mapping: {{region: [0,0,1,0.5], shift: 0.3}}.")
    return tuple(_read(edit, f"The depth edit {dict(edit)}", clip) for edit in listed)


def _read(edit: Mapping[str, Any], name: str, clip: OneClip) -> Edit:
    num_frames = len(clip.indices)
    for key in edit:
        if key not in KEYS:
            raise BadRequest(f"{name} has an unknown key '{key}'.{nearest(str(key), KEYS)}")
    chosen = [keys for keys in WHAT if any(key in edit for key in keys)]
    if len(chosen) != 1:
        ways = ", ".join("/".join(keys) for keys in WHAT)
        raise BadRequest(f"{name} makes {len(chosen)} changes. An edit makes one of: {ways}.")
    numbers = {key: _number(edit[key], f"{name}: {key}", *RANGES[key]) for key in RANGES if key in edit}
    if ("blend" in edit) != ("amount" in edit):
        raise BadRequest(f"{name}: blend and amount belong together, as {{blend: maps.npz, amount: 0.5}}.")
    path = edit.get("from", edit.get("blend"))
    if "inverted" in edit and (path is None or not isinstance(edit["inverted"], bool)):
        raise BadRequest(f"{name}: inverted is true or false, and tells of the file of from or blend.")
    inverted = edit.get("inverted", False)
    return Edit(
        frames=_frames(edit.get("frames", [0, num_frames]), name, num_frames),
        region=_region(edit.get("region", [0, 0, 1, 1]), name),
        mask=clip.cut(_mask(edit["mask"], name, num_frames)) if "mask" in edit else None,
        value=numbers.get("value"),
        scale=numbers.get("scale", 1.0),
        shift=numbers.get("shift", 0.0),
        other=None if path is None else _other(_path(path, name), clip, inverted),
        inverted=inverted,
        amount=numbers.get("amount", 1.0),
    )


def _number(value: Any, name: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadRequest(f"{name} is {value}, which is no finite number.")
    if not low <= value <= high:
        raise BadRequest(f"{name} must be {f'{low:g} or more' if high == math.inf else f'from {low:g} to {high:g}'}.")
    return float(value)


def _frames(value: Any, name: str, num_frames: int) -> range:
    whole = isinstance(value, Sequence) and len(value) == 2 and all(type(number) is int for number in value)
    if not whole or not 0 <= value[0] < value[1] <= num_frames:
        raise BadRequest(f"{name}: frames is [first, stop] with 0 <= first < stop <= {num_frames}; stop is not edited.")
    return range(*value)


def _region(value: Any, name: str) -> tuple[float, float, float, float]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 4:
        raise BadRequest(f"{name}: region is [top, left, bottom, right], as shares of height and width.")
    top, left, bottom, right = (_number(number, f"{name}: every number of region", 0, 1) for number in value)
    if top >= bottom or left >= right:
        raise BadRequest(f"{name}: region is [top, left, bottom, right] with top < bottom and left < right.")
    return top, left, bottom, right


def _mask(path: Any, name: str, num_frames: int) -> Tensor:
    mask = read_maps(located(_path(path, name)))
    if len(mask) not in (1, num_frames):
        raise BadRequest(
            f"{name}: the mask has {len(mask)} pictures. Give one, or one for each of {num_frames} frames."
        )
    if mask.min() < 0 or mask.max() == 0:
        raise BadRequest(f"{name}: the mask is black everywhere, or below 0 somewhere. What is white is edited.")
    return mask / mask.max()


def _other(path: str, clip: OneClip, inverted: bool) -> Tensor | OneClip:
    try:
        maps = read_maps(located(path), inverted)
    except InColour:
        other = clip.alike(path)
        other.check()
        return other
    chosen = range(len(maps)) if len(maps) == len(clip.indices) else clip.chosen(len(maps), path)
    return clip.cut(maps[list(chosen)])


def _path(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise BadRequest(f"{name}: {value} is no path of a file.")
    return value


def _covered(start: float, stop: float, cells: int) -> Tensor:
    """(cells,): the share of every cell [i, i + 1] that lies between start and stop."""
    edges = torch.arange(cells + 1, dtype=torch.float32)
    return (edges[1:].clamp(max=stop) - edges[:-1].clamp(min=start)).clamp(min=0)
