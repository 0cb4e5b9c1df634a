"""The published layout of Tune-A-Video: what is exported, and models and files that are read from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from one_shot import QUICK
from safetensors import SafetensorError
from safetensors.torch import load_file
from vidgen_tune_a_video import export as exporting
from vidgen_tune_a_video.export import export

import vidgen_core as vg
from vidgen_core.config import compose
from vidgen_core.errors import VidgenError
from vidgen_core.models.loading import located, read_scheduler_config
from vidgen_core.models.tuned import scheduler_of
from vidgen_core.run import generate


def test_an_exported_model_is_of_the_published_layout_and_edits_just_the_same(
    embedded: Path, published: dict[str, Any], tmp_path: Path
) -> None:
    names = set(load_file(next((published["model.path"] / "unet").glob("*.safetensors"))))
    assert any(name.endswith("transformer_blocks.0.attn_temp.to_q.weight") for name in names)
    assert not any(".temporal." in name for name in names)
    prompt = {"prompt": "a blue square"}
    ours = vg.generate(**QUICK, **prompt, tuned=embedded, **{"output.dir": tmp_path / "ours"})
    theirs = vg.generate(**published, **prompt, **{"output.dir": tmp_path / "theirs"})
    assert (ours.frames == theirs.frames).all()


def test_every_batch_has_what_a_published_model_has_learnt(published: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "prompts.json").write_text(json.dumps({"one": ["a blue square"], "two": ["a blue square"]}))
    batches = {"prompts_file": tmp_path / "prompts.json", "batch_size": 1, "output.dir": tmp_path / "out"}
    generate(compose([], {**published, **batches, "output.latents": True}))
    one, two = (load_file(tmp_path / "out" / name / "latents.safetensors")["latents"] for name in ("one", "two"))
    assert torch.equal(one, two)


def test_the_scheduler_that_is_written_is_the_image_models_own(embedded: Path, published: dict[str, Any]) -> None:
    own = read_scheduler_config(str(located("pkg://vidgen_moving_shapes/weights/text_to_image")))
    assert own["timestep_spacing"] == "trailing"  # which an inversion changes
    assert read_scheduler_config(str(published["model.path"])) == own
    assert scheduler_of(embedded / "methods" / "tune_a_video.safetensors") == own


def test_a_disk_that_is_full_leaves_no_half_of_an_export(
    embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patched, pytest.raises(VidgenError, match="the disk is full. Nothing was written"):
        patched.setattr(exporting, "save_file", full)
        export(str(embedded), tmp_path / "whole")
    assert list(tmp_path.iterdir()) == []
    assert (export(str(embedded), tmp_path / "whole") / "model_index.json").is_file()
