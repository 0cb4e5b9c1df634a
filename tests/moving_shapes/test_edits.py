"""Edit cases: what is drawn, what is written, and the clips that come with the package."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from vidgen_moving_shapes import edits
from vidgen_moving_shapes.combinations import TRAINING_IMAGES
from vidgen_moving_shapes.edits import draw_crossings, draw_edits, example_cases, write_cases
from vidgen_moving_shapes.shown import Shown, read_caption
from vidgen_moving_shapes.world import BACK_NEARNESS, FRONT_NEARNESS, GROUND_NEARNESS, Entity

from vidgen_core.errors import BadRequest
from vidgen_core.models.loading import located
from vidgen_core.video import VideoReader, read_video

ONE, TWO = draw_edits(8), draw_crossings(4)
RED, BLUE = Entity("red", "circle"), Entity("blue", "square")


@pytest.mark.parametrize("case", [*ONE, *TWO], ids=lambda case: case.name)
def test_every_edit_changes_one_thing_among_what_image_models_know(case) -> None:
    was = case.shown.attributes
    for name, shown in case.edits.items():
        assert [key for key, value in shown.attributes.items() if value != was[key]] == [name]
    for shown in (case.shown, *case.edits.values()):
        assert all((entity, shown.ground) in TRAINING_IMAGES for entity in shown.entities)
        assert len({entity.colour for entity in shown.entities}) == len(shown.entities)


def test_colour_shape_and_ground_change_in_turn() -> None:
    assert {tuple(case.edits) for case in ONE} == {("colour", "shape", "ground")}
    assert {tuple(case.edits) for case in TWO} == {("front_colour", "back_colour", "ground")}
    more = draw_edits(1, edits_per_clip=5)[0]
    assert set(more.edits) == {"colour", "colour_2", "shape", "shape_2", "ground"}
    assert len(set(more.captions.values())) == 5


def test_the_same_seed_draws_the_same_and_a_larger_number_begins_with_it() -> None:
    for few, many in ((draw_edits(3), ONE), (draw_crossings(2), TWO)):
        for case, same in zip(few, many, strict=False):
            assert case.record() == same.record()
            assert np.array_equal(case.frames(), same.frames())
    assert draw_edits(1, seed=1)[0].record() != ONE[0].record()


def test_clips_have_the_frames_asked_and_exact_depth() -> None:
    (short,) = draw_edits(1, frames=8)
    assert short.frames().shape == (8, 64, 64, 3)
    assert short.nearness().shape == (8, 64, 64)
    assert set(np.unique(TWO[0].nearness())) == set(np.float32([GROUND_NEARNESS, BACK_NEARNESS, FRONT_NEARNESS]))


def test_objects_cross_and_either_one_moves() -> None:
    movers = set()
    for case in TWO:
        front, back = case.source.tracks
        assert (front[0, 0] - back[0, 0]) * (front[-1, 0] - back[-1, 0]) < 0
        assert case.source.overlapping.mean() > 0.5
        movers.add("front" if np.ptp(front[:, 0]) > 1 else "back")
    assert movers == {"front", "back"}


def test_captions_are_read_with_or_without_a_motion_and_from_either_side() -> None:
    two = Shown((RED, BLUE), "white")
    assert read_caption("a red circle on a white background") == Shown((RED,), "white")
    assert read_caption("the red circle moves up on a white background.") == Shown((RED,), "white")
    assert read_caption("a red circle in front of a blue square on a white background") == two
    assert read_caption("a blue square moves left behind a red circle on a white background") == two
    assert read_caption(two.caption) == two
    for caption in ("a dog runs", "a red circle", "a red circle and a square on a white background"):
        with pytest.raises(BadRequest, match="is none of Moving Shapes"):
            read_caption(caption)


def test_a_folder_of_cases_holds_clips_depth_and_what_they_show(tmp_path: Path, capsys) -> None:
    assert edits.main(["--count", "2", "--out", str(tmp_path), "--crossings", "--frames", "8"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "cases.json")
    told = json.loads((tmp_path / "cases.json").read_text())
    for case in draw_crossings(2, frames=8):
        assert told[case.name] == json.loads(json.dumps(case.record()))
        clip = VideoReader(tmp_path / f"{case.name}.mp4")
        assert (len(clip), clip.fps) == (8, 8)
        depth = np.load(tmp_path / f"{case.name}.depth.npz")["nearness"]
        assert depth.dtype == np.float16
        assert np.allclose(depth, case.nearness(), atol=1e-3)
    told_of = told["crossing_000"]["truth"].keys()
    assert told_of >= {"front_colour", "back_colour", "back_shape", "ground", "motion", "tracks"}


def test_the_shipped_clips_are_the_examples_as_they_are_written(tmp_path: Path) -> None:
    write_cases(example_cases(), tmp_path)
    shipped = located("pkg://vidgen_moving_shapes/clips")
    for name in ("red_circle_moves_right", "crossing"):
        assert np.array_equal(read_video(shipped / f"{name}.mp4"), read_video(tmp_path / f"{name}.mp4"))
    depth = np.load(shipped / "crossing.depth.npz")["nearness"]
    assert np.array_equal(depth, np.load(tmp_path / "crossing.depth.npz")["nearness"])
    assert example_cases()[0].caption == "a red circle on a white background"
