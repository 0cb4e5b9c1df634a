"""A diffusers pipeline folder, written part by part and without importing a pipeline class."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers

_LIBRARIES = ("transformers", "diffusers")


def write_pipeline(folder: Path, pipeline: str, parts: Mapping[str, Any]) -> None:
    """Save every part in its sub-folder, and the model_index.json that names their classes."""
    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": diffusers.__version__}
    if pipeline == "StableDiffusionPipeline":
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
        library = next(package for package in _LIBRARIES if type(part).__module__.startswith(package))
        index[name] = [library, type(part).__name__]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
