"""The oracle's scores of stories: 1 on rendered truth, and less for each thing that a video can get wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from vidgen_moving_shapes.palette import GROUND_COLOURS, OBJECT_COLOURS
from vidgen_moving_shapes.story_oracle import StoryOracle
from vidgen_moving_shapes.told import brief_captions, draw_stories, story_captions, told
from vidgen_moving_shapes.world import Entity, Layer, Scene

from vidgen_core.errors import BadRequest
from vidgen_core.metrics.footage import Footage, with_means
from vidgen_core.video_writer import VideoWriter

FRAMES = 8
STORIES = draw_stories(30)


def footage(folder: Path, frames: np.ndarray, captions: tuple[str, ...]) -> Footage:
    """Frames as the run of an evaluation leaves them: an mp4."""
    path = folder / "video.mp4"
    writer = VideoWriter(path, 8, {}, 12, 0)
    writer.write(frames)
    writer.close()
    return Footage("story", path, captions, tuple(range(i * FRAMES, (i + 1) * FRAMES) for i in range(len(captions))))


def track(motion_x: float, start_x: float = 24.0, size: float = 12.0):
    from vidgen_moving_shapes.motions import Track

    x = start_x + motion_x * np.arange(FRAMES)
    return Track(np.stack([x, np.full(FRAMES, 32.0)], 1).astype(np.float32), np.full(FRAMES, size, np.float32))


def scene(colour: str, shape: str, ground: str, track) -> Scene:
    tint = np.asarray(OBJECT_COLOURS[colour], np.float32)
    return Scene(np.asarray(GROUND_COLOURS[ground], np.float32), (Layer(shape, tint, track),))


FIRST = scene("red", "circle", "white", track(1.2))
TOLD = ("a red circle moves right on a white background", "the circle stays still")
WHERE = 24.0 + 1.2 * (FRAMES - 1)


def scores(tmp_path: Path, second: Scene, captions: tuple[str, ...] = TOLD) -> dict[str, float | None]:
    frames = np.concatenate([FIRST.frames(), second.frames()])
    return StoryOracle().score(footage(tmp_path, frames, captions))


def test_rendered_truth_has_full_scores_after_being_written_as_a_video(tmp_path) -> None:
    found = [
        with_means(StoryOracle().score(footage(tmp_path, story.frames(), captions)))
        for story, captions in STORIES.values()
    ]
    for name in ("entity", "background", "visual", "text", "overall"):
        assert np.mean([row[name] for row in found]) >= 0.99, name


def test_captions_tell_the_whole_story_though_they_leave_out_what_stays() -> None:
    for story, captions in STORIES.values():
        assert told(captions) == story.combinations
    red, blue = Entity("red", "circle"), Entity("blue", "square")
    story = [(red, "moves up", "white"), (red, "grows", "white"), (blue, "grows", "white"), (blue, "grows", "pink")]
    assert brief_captions(story) == (
        "a red circle moves up on a white background",
        "the circle grows",
        "a blue square grows",
        "the square grows on a pink background",
    )


def test_stories_have_two_three_and_four_scenes_a_third_each_and_more_of_them_begin_with_the_same() -> None:
    counts = [len(captions) for _, captions in STORIES.values()]
    assert [counts.count(n) for n in (2, 3, 4)] == [10, 10, 10]
    assert {name: captions for name, (_, captions) in draw_stories(6).items()} == {
        name: captions for name, (_, captions) in list(STORIES.items())[:6]
    }


def test_all_stories_may_have_one_number_of_scenes() -> None:
    assert {len(captions) for captions in story_captions(3, scenes=2).values()} == {2}


def test_what_goes_on_is_consistent(tmp_path) -> None:
    found = scores(tmp_path, scene("red", "circle", "white", track(0, WHERE)))
    assert (found["entity"], found["background"], found["text"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("second", "kept"),
    [
        (scene("blue", "circle", "white", track(0, WHERE)), "identity"),
        (scene("red", "square", "white", track(0, WHERE)), "identity"),
        (scene("red", "circle", "white", track(0, WHERE + 8)), "position"),
        (scene("red", "circle", "white", track(0, WHERE, 15)), "size"),
    ],
    ids=["colour", "shape", "position", "size"],
)
def test_an_entity_that_changes_unasked_is_not_consistent(tmp_path, second, kept) -> None:
    found = scores(tmp_path, second)
    assert (found["entity"], found["background"]) == (0, 1)
    assert found[f"kept_{kept}"] == 0


def test_a_ground_that_changes_unasked_is_not_consistent(tmp_path) -> None:
    found = scores(tmp_path, scene("red", "circle", "pink", track(0, WHERE)))
    assert (found["entity"], found["background"], found["text"]) == (1, 0, 0.5)


def test_a_change_that_is_told_may_be_missing_but_must_not_be_another(tmp_path) -> None:
    captions = (TOLD[0], "a blue square stays still on a pink background")
    asked = scores(tmp_path, scene("blue", "square", "pink", track(0, 40)), captions)
    missing = scores(tmp_path, scene("red", "circle", "white", track(0, WHERE)), captions)
    another = scores(tmp_path, scene("blue", "circle", "gray", track(0, WHERE)), captions)
    assert [row["text"] for row in (asked, missing, another)] == [1, 0.5, 0.5]
    assert [row["entity"] for row in (asked, missing, another)] == [1, 1, 0]
    assert [row["background"] for row in (asked, missing, another)] == [1, 1, 0]


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        (("a dog runs",), "names no colour of Moving Shapes"),
        (("a red circle on a white background",), "names no motion"),
        (("a red circle moves right behind a blue square on a white background",), "more than one colour"),
    ],
)
def test_captions_of_another_world_are_refused(captions, message) -> None:
    with pytest.raises(BadRequest, match=message):
        told(captions)


def test_frames_of_another_size_are_refused(tmp_path) -> None:
    with pytest.raises(BadRequest, match="32x32 pixels.*64x64"):
        StoryOracle().score(footage(tmp_path, np.zeros((16, 32, 32, 3), np.uint8), TOLD))
