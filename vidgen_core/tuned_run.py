"""``tuned=folder`` brings the tuned run's own model, clip, sizes and options, where you say nothing."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidgen_core.errors import BadRequest
from vidgen_core.overrides import Override

if TYPE_CHECKING:
    from vidgen_core.catalog import Key

CLIP = "clip"
"""What ``run.yaml`` of a training calls ``places_of_clip``."""

STARTED = "started_in"
"""Below it, the working directory of the training."""

SIZES = ("num_frames", "height", "width", "fps")
"""Request keys that are taken over."""


def read_tuned(asked: Sequence[Override]) -> dict[str, Any]:
    """As ``tuned_config``, of what the user wrote."""
    return tuned_config(next((override.value for override in asked if override.key == "tuned"), None))


def tuned_config(tuned: str | Path | None) -> dict[str, Any]:
    """The configuration that the run of ``tuned=`` was trained with; empty where none is given, or a bare file of
    weights. Raises BadRequest for a folder that is not there or that no training left."""
    if not tuned:
        return {}
    path = Path(str(tuned)).expanduser()
    if path.is_file():
        return {}
    record = path / "run.yaml"
    if not record.is_file():
        what = "a run of `vidgen train`: it has no run.yaml" if path.is_dir() else "there"
        raise BadRequest(f"tuned={tuned} is not {what}. Give the folder that a training wrote, or its weights.")
    from vidgen_core.provenance import read_provenance

    told = read_provenance(record)
    config: dict[str, Any] = told["config"]
    places = told.get(CLIP) or {}
    places = places if isinstance(places, Mapping) else {CLIP: places}  # as earlier versions wrote them
    clips = [path / place for place in places.get(CLIP) or ()]
    config["video"] = next((str(place) for place in clips if place.exists()), config["video"])
    config[STARTED] = [str(path / place) for place in places.get(STARTED) or ()]
    if isinstance(config["model"].get("path"), str):
        config["model"]["path"] = _placed(config["model"]["path"], config[STARTED])
    return config


def places_of_clip(video: str | None, folder: Path) -> dict[str, list[str]]:
    """Where a run in ``folder`` may find its clip again, and the folder that it was started in, whatever the working
    directory: the absolute path, and the path from the folder, for a run that is moved together with them. Nothing of a
    clip that lies in no folder."""
    from vidgen_core.models.loading import PACKAGE

    told = {STARTED: Path.cwd()}
    if video and not video.startswith(PACKAGE):
        told[CLIP] = Path(video).expanduser().absolute()
    return {what: [str(place), os.path.relpath(place, folder.absolute())] for what, place in told.items()}


def _placed(value: Any, starts: Sequence[str]) -> Any:
    """A value with every path in it that leads somewhere from where the tuning was started, as it is found now."""
    if isinstance(value, Mapping):
        return {key: _placed(inner, starts) for key, inner in value.items()}
    if isinstance(value, list):
        return [_placed(inner, starts) for inner in value]
    if not isinstance(value, str) or not value:
        return value
    found = (Path(start) / value for start in starts)
    return next((str(place) for place in found if place.exists()), value)


def take_over(
    tree: Any,
    record: Mapping[str, Any],
    methods: Sequence[str],
    same_model: bool,
    documented: Mapping[str, Key],
) -> None:
    """The tuned run's model and the options of its methods in the composed tree; what the user writes is set later.

    Args:
        documented: How options are documented; those that name files are found again as the clip is.
    """
    from omegaconf import OmegaConf

    if same_model:
        # Its path is the one that was tuned on, whatever else the model has for a method.
        tree["model"] = OmegaConf.create({k: v for k, v in record["model"].items() if k != "method_paths"})
    for name in methods:
        for key, value in (record["methods"].get(name) or {}).items():
            if key in tree["methods"][name] and not key.endswith(("_target_", "_defaults")):
                full = f"methods.{name}.{key}"
                if full in documented and documented[full].names_files:
                    value = _placed(value, record[STARTED])
                OmegaConf.update(tree, full, value, merge=False)


def take_clip(config: dict[str, Any], record: Mapping[str, Any], given: Collection[str]) -> None:
    """The tuned run's clip, and its prompt as an example, where the user names none."""
    for key in ("video",) if config["prompts_file"] else ("video", "prompt"):
        if config[key] is None and key not in given:
            config[key] = record[key]
    # The clip's, for methods that divide a number of frames that was asked for.
    config["given"] = sorted({*given, "num_frames"})
