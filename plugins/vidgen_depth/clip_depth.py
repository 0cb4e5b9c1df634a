"""The depth of the source clip: from maps beside it or elsewhere, else estimated; made once, kept in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from vidgen_core.data.one_clip import OneClip
from vidgen_core.depth_map import depth_channel
from vidgen_core.errors import BadRequest
from vidgen_core.models.depth_estimator import estimate
from vidgen_core.models.loading import located
from vidgen_depth.maps import read_maps

if TYPE_CHECKING:
    from vidgen_core.run import Run

PUBLISHED = "Intel/dpt-hybrid-midas"


class ClipDepth:
    """The depth channel of a clip's frames.

    Args:
        maps: Path of the clip's depth maps; None looks for ``<clip>.depth.npz``, and estimates where there are none.
        inverted: The maps hold distance.
        estimator: Folder or hub id; None is the one in the model's folder, else the published one.
        normalise: As ``depth_channel`` takes it.
    """

    def __init__(self, maps: str | None, inverted: bool, estimator: str | None, normalise: str) -> None:
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
            nearness = self.nearness(run, clip, self.inverted, self.maps)
            self._kept = {key: depth_channel(nearness[None], (height, width), self.normalise)}
        return self._kept[key]

    def nearness(self, run: Run, clip: OneClip, inverted: bool = False, maps: str | None = None) -> Tensor:
        """(F, H', W') float32, larger is nearer, of any clip; of the maps, where some are named or lie beside it."""
        file = maps or self._beside(clip)
        if file is None:
            return estimate(clip.frames(), self._estimator(run), run.backbone.device)
        found = read_maps(located(str(file)), inverted)
        if len(found) not in (len(clip.indices), clip.total):
            raise BadRequest(
                f"'{file}' holds {len(found)} depth maps; the clip has {len(clip.indices)} frames, cut from a video of "
                f"{clip.total}. Give one for each frame of either."
            )
        chosen = found if len(found) == len(clip.indices) else found[list(clip.indices)]
        return clip.cut(chosen, own=True)

    def _beside(self, clip: OneClip) -> Path | None:
        file = located(clip.path).with_suffix(".depth.npz")
        return file if file.is_file() else None

    def _estimator(self, run: Run) -> str:
        model = str(run.config["model"].get("path") or "")
        own = (located(model) / "depth_estimator").is_dir()
        return self.estimator or (model if own else PUBLISHED)
