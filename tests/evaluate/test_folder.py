"""Videos that are there: found, matched with their captions, and cut into scenes."""

from __future__ import annotations

import json
import weakref
from pathlib import Path

import numpy as np
import pytest

import vidgen_core as vg
from vidgen_core.errors import BadRequest
from vidgen_core.evaluation.config import compose_evaluation
from vidgen_core.evaluation.folder import find_videos, video_files
from vidgen_core.video_writer import VideoWriter


def video(path: Path, frames: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = VideoWriter(path, 8, {}, 12, 0)
    writer.write(np.zeros((frames, 16, 16, 3), np.uint8))
    writer.close()


def found(*arguments: str):
    return {made.story: made.footage for made in find_videos(compose_evaluation([*arguments, "metric=oracle"]))}


def captions(path: Path, named: dict[str, list[str]]) -> str:
    path.write_text(json.dumps(named))
    return f"captions={path}"


def test_files_and_run_folders_are_found_by_name_and_cut_into_even_scenes(tmp_path) -> None:
    video(tmp_path / "v" / "plain.mp4")
    video(tmp_path / "v" / "made" / "video.mp4", 9)
    told = captions(tmp_path / "c.json", {"plain": ["one", "two"], "made": ["one", "two"]})
    videos = found(f"videos={tmp_path / 'v'}", told)
    assert videos["plain"].spans == (range(4), range(4, 8))
    assert videos["made"].spans == (range(4), range(4, 9))
    assert found(f"videos={tmp_path / 'v'}", told, "scene_frames=[2,6]")["plain"].spans == (range(2), range(2, 8))


def test_every_ending_that_a_training_reads_is_scored_too(tmp_path) -> None:
    for ending in ("m4v", "ts", "WEBM"):
        (tmp_path / f"{ending}.{ending}").touch()
    assert list(video_files(tmp_path)) == ["WEBM", "m4v", "ts"]


def test_what_vidgen_made_tells_its_captions_and_scenes(tmp_path) -> None:
    vg.generate(
        method="talc",
        prompt=["one", "two"],
        model="tiny",
        num_inference_steps=1,
        height=16,
        width=16,
        output={"dir": str(tmp_path / "run")},
        **{"talc.scene_frames": [1, 3]},
    )
    (only,) = found(f"videos={tmp_path / 'run'}").values()
    assert (only.captions, only.spans) == (("one", "two"), (range(1), range(1, 4)))
    (tmp_path / "files").mkdir()
    (tmp_path / "run" / "video.mp4").rename(tmp_path / "files" / "moved.mp4")
    (only,) = found(f"videos={tmp_path / 'files'}").values()
    assert (only.name, only.captions, only.spans) == ("moved", ("one", "two"), (range(1), range(1, 4)))


def test_a_video_that_was_scored_is_let_go(tmp_path) -> None:
    for name in "abc":
        video(tmp_path / "v" / f"{name}.mp4")
    told = captions(tmp_path / "c.json", {name: ["one"] for name in "abc"})
    seen: list[weakref.ref[object]] = []
    for made in find_videos(compose_evaluation([f"videos={tmp_path / 'v'}", told, "metric=oracle"])):
        assert len(made.footage.frames) == 8 and not any(before() for before in seen)
        seen.append(weakref.ref(made.footage))
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"first": ["one"]}, "has none for the video 'second'"),
        ({"first": ["one"], "second": ["one"], "third": ["one"]}, "names 'third', of which there is no video"),
        ({"first": ["one"], "second": ["x"] * 9}, "has 8 frames, too few for 9 captions"),
    ],
)
def test_captions_that_do_not_match_are_named(tmp_path, named, message) -> None:
    for name in ("first", "second"):
        video(tmp_path / "v" / f"{name}.mp4")
    with pytest.raises(BadRequest, match=message):
        found(f"videos={tmp_path / 'v'}", captions(tmp_path / "c.json", named))


def test_what_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(BadRequest, match="there is no such folder"):
        found(f"videos={tmp_path / 'nowhere'}")
    with pytest.raises(BadRequest, match="holds no video"):
        found(f"videos={tmp_path}")
    video(tmp_path / "v" / "a.mp4")
    with pytest.raises(BadRequest, match="holds no record of what it was to show"):
        found(f"videos={tmp_path / 'v'}")
    with pytest.raises(BadRequest, match="does not exist"):
        found(f"videos={tmp_path / 'v'}", f"captions={tmp_path / 'none.json'}")
    told = captions(tmp_path / "c.json", {"a": ["one", "two"]})
    with pytest.raises(BadRequest, match="scene_frames=5 does not fit"):
        found(f"videos={tmp_path / 'v'}", told, "scene_frames=5")
