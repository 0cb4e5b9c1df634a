"""The depth of the source clip: from maps beside it or elsewhere, else estimated and kept beside what was tuned."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from vidgen_tune_a_video import clip_cache

from vidgen_core.data.latent_cache import cache_key
from vidgen_core.data.one_clip import OneClip
from vidgen_core.depth_map import depth_channel
from vidgen_core.errors import BadRequest
from vidgen_core.models.depth_estimator import brings_estimator, estimate
from vidgen_core.models.loading import hashes, located
from vidgen_depth.maps import read_maps

if TYPE_CHECKING:
    from vidgen_core.run import Run

PUBLISHED = "Intel/dpt-hybrid-midas"


class ClipDepth:
    """The depth channel of a clip's frames.

    Args:
        maps: Path of the clip's depth maps; None looks for ``<clip>.depth.npz``, and estimates where there are none.
        inverted: The maps hold distance.
        estimator: Folder or hub id; None is the model's own, where it brings one, else the published one.
        normalise: As ``depth_channel`` takes it.
    """

    def __init__(self, maps: str | None, inverted: bool, estimator: str | None, normalise: str) -> None:
        if not isinstance(maps, str | None):
            raise BadRequest(f"depth.maps={maps} is no path. Give a text.")
        self.maps = maps
        self.inverted = inverted
        self.estimator = estimator
        self.normalise = normalise
        self._kept: dict[str, Tensor] = {}

    def channel(self, run: Run, clip: OneClip) -> Tensor:
        """(1, 1, F, h, w) float32 in -1 .. 1 of all frames of the clip.

        Raises BadRequest for maps that are not one for each frame of the clip, or of the video it was cut from.
        """
        key = f"{clip.content} {run.request.height} {run.request.width}"
        if key not in self._kept:
            _, height, width = run.backbone.latent_shape(run.request.height, run.request.width)
            nearness = self._or_estimated(self.supplied(clip), run, clip)
            self._kept = {key: depth_channel(nearness[None], (height, width), self.normalise)}
        return self._kept[key]

    def supplied(self, clip: OneClip) -> Tensor | None:
        """(F, H', W') float32, larger is nearer: the maps that were named, or lie beside the clip; None without."""
        return _read(self.maps or _beside(clip), clip, self.inverted)

    def of_another(self, run: Run, clip: OneClip, inverted: bool) -> Tensor:
        """As ``supplied``, of a clip whose maps lie beside it or are estimated."""
        return self._or_estimated(_read(_beside(clip), clip, inverted), run, clip)

    def _or_estimated(self, maps: Tensor | None, run: Run, clip: OneClip) -> Tensor:
        if maps is not None:
            return maps
        estimator = self._estimator(run)
        file = _cache_file(run, clip, estimator)
        found = clip_cache.read(file, ("nearness",))
        if found is None:
            found = {"nearness": _estimated(clip, estimator, run.backbone.device)}
            clip_cache.write(found, file)
        return clip.cut(found["nearness"], own=True)

    def _estimator(self, run: Run) -> str:
        model = str(run.config["model"].get("path") or "")
        return self.estimator or (model if brings_estimator(model) else PUBLISHED)


def _cache_file(run: Run, clip: OneClip, estimator: str) -> Path | None:
    """Where the estimated depth is kept, named by the clip's frames and what estimated it; None where it is not."""
    folder = clip_cache.beside_the_weights(run, "depth")
    if folder is None:
        return None
    place = located(estimator)
    part = place / "depth_estimator"
    weights = hashes(str(part if part.is_dir() else place)) if place.is_dir() else {}
    return folder / f"{cache_key(clip.content, 'of whole frames', estimator, sorted(weights.items()))}.safetensors"


def _estimated(clip: OneClip, estimator: str, device: torch.device) -> Tensor:
    """(F, h', w'): nearness in whole frames of the file, which the estimator resizes itself."""
    frames = list(clip.originals())
    if len({frame.shape for frame in frames}) == 1:
        return estimate(torch.cat(frames), estimator, device).contiguous()
    # Images of a folder may differ in size.
    return torch.cat([estimate(frame, estimator, device) for frame in frames])


def _beside(clip: OneClip) -> str | None:
    place = Path(os.path.abspath(located(clip.path)))  # with the name of a folder such as . or ..
    file = place.with_name(f"{place.name if place.is_dir() else place.stem}.depth.npz")
    return str(file) if file.is_file() else None


def _read(file: str | None, clip: OneClip, inverted: bool) -> Tensor | None:
    if file is None:
        return None
    maps = read_maps(located(file), inverted)
    if len(maps) not in (len(clip.indices), clip.total):
        raise BadRequest(
            f"'{file}' holds {len(maps)} depth maps; the clip has {len(clip.indices)} frames, cut from a video of "
            f"{clip.total}. Give one for each frame of either."
        )
    return clip.cut(maps if len(maps) == len(clip.indices) else maps[list(clip.indices)], own=True)
