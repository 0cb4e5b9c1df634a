"""The clip of a tuning: encoded once, and found again wherever the tuned run is used from."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from little_data import write_video

from vidgen_core.api import train
from vidgen_core.config import compose
from vidgen_core.errors import BadRequest
from vidgen_core.models import tiny
from vidgen_core.models.unet2d import ImageBackbone
from vidgen_core.video import read_video

SMALL = {"model": "tiny_image", "num_frames": 2, "height": 32, "width": 32, "trainer.workers": 0}


def tune(**values: Any) -> None:
    train(**{"method": "tune_a_video", **SMALL, "prompt": "a wall", "trainer.max_steps": 1, **values})


def clip_of(tuned: Path) -> Path:
    return Path(compose([], {"method": "tune_a_video", "tuned": tuned, "prompt": "a door"}).config["video"])


def test_a_clip_named_by_a_relative_path_is_found_from_elsewhere_and_after_a_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    write_video(work / "clips" / "wall.mp4")
    monkeypatch.chdir(work)
    tune(video="clips/wall.mp4", **{"output.dir": "runs/wall"})
    monkeypatch.chdir(tmp_path)
    assert clip_of(Path("work/runs/wall")) == work / "clips" / "wall.mp4"
    (work / "runs" / "wall").rename(tmp_path / "alone")
    assert clip_of(tmp_path / "alone") == work / "clips" / "wall.mp4"
    (tmp_path / "alone").rename(work / "runs" / "wall")
    work.rename(tmp_path / "moved")
    found = clip_of(tmp_path / "moved" / "runs" / "wall")
    assert found.resolve() == tmp_path / "moved" / "clips" / "wall.mp4"
    found.unlink()
    assert clip_of(tmp_path / "moved" / "runs" / "wall") == Path("clips/wall.mp4")  # as it was written


def test_all_files_that_a_tuning_named_are_found_from_elsewhere_and_after_a_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, clip = tmp_path / "work", write_video(tmp_path / "wall.mp4")
    tiny.build_image(in_channels=5).save(work / "base", torch.float32)
    np.save(work / "maps.npy", np.random.default_rng(0).random((len(read_video(clip)), 4, 4), dtype=np.float32))
    monkeypatch.chdir(work)
    named = {"model.path": "base", "depth.maps": "maps.npy", "depth.estimator": "base"}
    edits = [{"from": "maps.npy"}, {"mask": "gone.png", "shift": 0.1}]
    tune(method="depth", model="sd2_depth", video=clip, **named, **{"depth.edit": edits, "output.dir": "runs/wall"})
    monkeypatch.chdir(tmp_path)

    def told(tuned: Path) -> list[str]:
        config = compose([], {"method": "depth", "tuned": tuned, "prompt": "a door"}).config
        depth = config["methods"]["depth"]
        return [config["model"]["path"], depth["maps"], depth["estimator"], *edited(depth["edit"])]

    names = ["base", "maps.npy", "base", "maps.npy"]
    assert told(Path("work/runs/wall")) == [*(str(work / name) for name in names), "gone.png"]
    work.rename(tmp_path / "moved")
    *found, gone = told(tmp_path / "moved" / "runs" / "wall")
    assert [Path(place).resolve() for place in found] == [tmp_path / "moved" / name for name in names]
    assert gone == "gone.png"


def edited(edits: list[dict[str, Any]]) -> list[str]:
    return [edit.get("from") or edit["mask"] for edit in edits]


def test_a_clip_is_encoded_once_although_batches_are_read_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, encoded = ImageBackbone.encode, []
    monkeypatch.setattr(ImageBackbone, "encode", lambda *given: encoded.append(1) or encode(*given))
    clip = write_video(tmp_path / "wall.mp4")
    tune(video=clip, **{"output.dir": tmp_path / "run", "trainer.workers": 2, "trainer.max_steps": 6})
    assert len(encoded) == 1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"height": 100}, "height=100 is not divisible by 8, as this model needs. Use 96 or 104."),
        ({"width": 33, "tune_a_video.caption": "a wall"}, "width=33 is not divisible by 8"),
        ({"tune_a_video.caption": " "}, "tune_a_video.caption is empty"),
        ({"method": "depth", "model": "tiny_depth", "depth.caption": ""}, "depth.caption is empty"),
        ({"method": "depth", "model": "tiny_depth", "depth.maps": "gone.npz"}, "There are no depth maps 'gone.npz'"),
    ],
)
def test_what_cannot_be_tuned_is_told_before_the_folder_is_made(tmp_path: Path, asked: Any, message: str) -> None:
    clip = write_video(tmp_path / "wall.mp4")
    with pytest.raises(BadRequest, match=re.escape(message)):
        tune(video=clip, **{"output.dir": tmp_path / "run", **asked})
    assert not (tmp_path / "run").exists()
