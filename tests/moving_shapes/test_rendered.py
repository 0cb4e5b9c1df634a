"""Rendered clips as real videos, and the oracle of single scenes, on which they have every point."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from vidgen_moving_shapes.caption_oracle import CaptionOracle
from vidgen_moving_shapes.captions import clip_caption
from vidgen_moving_shapes.rendered import Rendered, clip_captions, drawn
from vidgen_moving_shapes.told import told

from vidgen_core.errors import BadRequest
from vidgen_core.metrics.footage import Footage


@pytest.fixture(scope="module")
def clips() -> list[Footage]:
    """Four clips, each with its caption."""
    real = Rendered(n=4, frames=8, stride=2)
    combinations = drawn(4, "training", "real", 0)
    made = []
    for clip, combination in zip(real("fvd"), combinations, strict=True):
        footage = Footage(clip.name, clip.path, (clip_caption(*combination),), clip.spans)
        vars(footage)["frames"] = clip.frames
        made.append(footage)
    return made


def test_a_rendered_clip_has_every_point(clips) -> None:
    for clip in clips:
        assert set(CaptionOracle().score(clip).values()) == {1.0}


def test_another_caption_and_frames_in_disorder_are_told(clips) -> None:
    moving = next(clip for clip in clips if " moves " in clip.captions[0])
    other = clips[(clips.index(moving) + 1) % 4]
    wrong = Footage(moving.name, moving.path, other.captions, moving.spans)
    vars(wrong)["frames"] = moving.frames
    assert CaptionOracle().score(wrong)["looks"] == 0
    vars(wrong)["frames"] = moving.frames[[0, 7, 1, 6, 2, 5, 3, 4]]
    broken = CaptionOracle().score(wrong)["in_one_piece"]
    assert broken is not None and broken < 0.8


def test_rendered_clips_depend_on_their_number_alone(clips) -> None:
    again = list(Rendered(n=2, frames=8, stride=2)("fvd"))
    assert all(np.array_equal(one.frames, clip.frames) for one, clip in zip(again, clips, strict=False))
    assert clips[0].frames.shape == (8, 64, 64, 3)


def test_a_folder_can_take_their_place(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="real.path="):
        list(Rendered(path=str(tmp_path / "none"))("fvd"))


def test_more_captions_begin_with_fewer_and_are_of_the_world() -> None:
    few, more = clip_captions(3), clip_captions(9)
    assert dict(list(more.items())[:3]) == few
    assert len(set(more.values())) == 9
    assert all(len(told(captions)) == 1 for captions in more.values())
    with pytest.raises(BadRequest, match="combinations=some"):
        clip_captions(1, "some")
