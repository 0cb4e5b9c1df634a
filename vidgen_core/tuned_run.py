"""``tuned=folder`` brings the tuned run's own model, clip, sizes and options, where you say nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidgen_core.errors import BadRequest
from vidgen_core.overrides import Override

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

    config: dict[str, Any] = read_provenance(record)["config"]
    return config


def take_over(tree: Any, record: Mapping[str, Any], methods: Sequence[str], same_model: bool) -> None:
    """The tuned run's model and the options of its methods in the composed tree; what the user writes is set later."""
    from omegaconf import OmegaConf

    if same_model:
        tree["model"] = OmegaConf.create(record["model"])
    for name in methods:
        for key, value in (record["methods"].get(name) or {}).items():
            if key in tree["methods"][name] and not key.endswith(("_target_", "_defaults")):
                OmegaConf.update(tree, f"methods.{name}.{key}", value, merge=False)
