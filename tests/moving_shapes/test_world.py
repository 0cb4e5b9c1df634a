"""The world paints what it says: objects stay on the canvas, depth and flow are exact, what is held out stays out."""

import numpy as np
import pytest
from vidgen_moving_shapes.captions import WORDS, clip_caption, pair_caption, shortened_caption
from vidgen_moving_shapes.combinations import (
    COMBINATIONS,
    HELD_OUT_COMBINATIONS,
    HELD_OUT_IMAGES,
    TRAINING_COMBINATIONS,
)
from vidgen_moving_shapes.motions import (
    DIRECTIONS,
    ENDLESS_MOTIONS,
    MOTIONS,
    SPEED,
    DoesNotFit,
    draw_track,
    margin,
)
from vidgen_moving_shapes.palette import GROUND_COLOURS, OBJECT_COLOURS
from vidgen_moving_shapes.shapes import CANVAS, SHAPES, coverage
from vidgen_moving_shapes.stories import CHANGES, draw_story
from vidgen_moving_shapes.world import (
    BACK_NEARNESS,
    CLIP_FRAMES,
    FRONT_NEARNESS,
    GROUND_NEARNESS,
    Entity,
    draw_pair_scene,
    draw_scene,
)

RED_CIRCLE, BLUE_SQUARE = Entity("red", "circle"), Entity("blue", "square")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_any_two_colours_are_far_apart() -> None:
    colours = np.array([*OBJECT_COLOURS.values(), *GROUND_COLOURS.values()], dtype=float)
    distances = np.linalg.norm(colours[:, None] - colours, axis=-1)
    assert distances[~np.eye(len(colours), dtype=bool)].min() > 94


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_covers_its_centre_and_keeps_its_centroid(shape: str) -> None:
    alpha = coverage(shape, (30.0, 34.0), 13.0)
    pixels = np.arange(CANVAS)
    assert alpha[34, 30] == 1
    assert (alpha.sum(axis=0) @ pixels) / alpha.sum() == pytest.approx(30, abs=0.05)
    assert (alpha.sum(axis=1) @ pixels) / alpha.sum() == pytest.approx(34, abs=0.05)


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_short_clip_stays_on_the_canvas(motion: str, rng: np.random.Generator) -> None:
    for _ in range(50):
        track = draw_track(rng, [(motion, CLIP_FRAMES)])
        edge = margin(float(track.size.max())) - 1e-3
        assert track.centre.min() >= edge and track.centre.max() <= CANVAS - 1 - edge


@pytest.mark.parametrize("motion", ENDLESS_MOTIONS)
def test_an_endless_motion_fits_any_length(motion: str, rng: np.random.Generator) -> None:
    track = draw_track(rng, [(motion, 300)])
    edge = margin(float(track.size.max())) - 1e-3
    assert track.centre.min() >= edge and track.centre.max() <= CANVAS - 1 - edge


def test_a_straight_motion_that_is_too_long_says_so(rng: np.random.Generator) -> None:
    with pytest.raises(DoesNotFit, match="moves left"):
        draw_track(rng, [("moves left", 100)])


def test_an_unknown_motion_names_the_known_ones(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="moves left.*pulses"):
        draw_track(rng, [("waltzes", CLIP_FRAMES)])


@pytest.mark.parametrize("motion", DIRECTIONS)
def test_a_direction_moves_at_the_speed_of_the_world(motion: str, rng: np.random.Generator) -> None:
    velocity = np.diff(draw_track(rng, [(motion, CLIP_FRAMES)]).centre, axis=0)
    speed = velocity @ np.array(DIRECTIONS[motion])
    assert np.all((speed > SPEED[0] - 1e-3) & (speed < SPEED[1] + 1e-3))


def test_one_caption_has_many_clips(rng: np.random.Generator) -> None:
    first, second = (draw_scene(rng, RED_CIRCLE, "moves up", "white").frames() for _ in range(2))
    assert np.abs(first.astype(int) - second).mean() > 2


def test_the_same_seed_paints_the_same_clip() -> None:
    first, second = (draw_scene(np.random.default_rng(3), RED_CIRCLE, "grows", "pink").frames() for _ in range(2))
    assert np.array_equal(first, second)


def test_the_front_object_hides_the_back_one(rng: np.random.Generator) -> None:
    scene = draw_pair_scene(rng, RED_CIRCLE, "moves left", True, BLUE_SQUARE, "white")
    back, front = (layer.coverage() for layer in scene.layers)
    both = (back == 1) & (front == 1)
    assert both.any()
    assert np.all(scene.nearness()[both] == np.float32(FRONT_NEARNESS))
    assert np.all(scene.frames()[both] == np.rint(scene.layers[1].rgb).astype(np.uint8))


def test_nearness_has_three_levels(rng: np.random.Generator) -> None:
    scene = draw_pair_scene(rng, RED_CIRCLE, "moves left", False, BLUE_SQUARE, "white")
    levels = np.unique(scene.nearness())
    assert levels == pytest.approx([GROUND_NEARNESS, BACK_NEARNESS, FRONT_NEARNESS])


def test_flow_is_the_motion_of_the_object_and_zero_on_the_ground(rng: np.random.Generator) -> None:
    scene = draw_scene(rng, RED_CIRCLE, "moves right", "white")
    track, inside = scene.layers[0].track, scene.layers[0].coverage()[:-1] > 0.5
    step = track.centre[1] - track.centre[0]
    assert np.allclose(scene.flow()[inside], step, atol=1e-4)
    assert not scene.flow()[~inside].any()


def test_flow_of_growth_points_outwards(rng: np.random.Generator) -> None:
    scene = draw_scene(rng, BLUE_SQUARE, "grows", "white")
    x, y = np.rint(scene.layers[0].track.centre[0]).astype(int)
    assert scene.flow()[0, y, x + 6, 0] > 0 > scene.flow()[0, y, x - 6, 0]


def test_held_out_combinations_cover_every_motion_and_leave_training_the_rest() -> None:
    assert {motion for _, motion, _ in HELD_OUT_COMBINATIONS} == set(MOTIONS)
    assert len(TRAINING_COMBINATIONS) + len(HELD_OUT_COMBINATIONS) == len(COMBINATIONS)
    assert 0.1 < len(HELD_OUT_COMBINATIONS) / len(COMBINATIONS) < 0.25


def test_a_held_out_image_is_in_no_training_clip() -> None:
    assert not {(entity, ground) for entity, _, ground in TRAINING_COMBINATIONS} & HELD_OUT_IMAGES


@pytest.mark.parametrize("change", CHANGES)
def test_a_story_changes_one_thing_at_the_boundary(change: str, rng: np.random.Generator) -> None:
    story = draw_story(rng, [change])  # type: ignore[list-item]
    (first, _, here), (second, _, there) = story.combinations
    assert story.frames().shape == (2 * CLIP_FRAMES, CANVAS, CANVAS, 3)
    assert (first != second) == (change == "entity")
    assert (here != there) == (change == "ground")


def test_a_story_keeps_the_tint_and_the_place_of_an_object(rng: np.random.Generator) -> None:
    before, after = draw_story(rng, ["motion"]).scenes
    assert np.array_equal(before.layers[0].rgb, after.layers[0].rgb)
    jump = after.layers[0].track.centre[0] - before.layers[0].track.centre[-1]
    assert np.linalg.norm(jump) <= SPEED[1] + 1e-3


def test_a_story_shows_only_what_is_allowed(rng: np.random.Generator) -> None:
    for _ in range(20):
        story = draw_story(rng, ["entity", "ground"], allowed=TRAINING_COMBINATIONS)
        assert not set(story.combinations) & HELD_OUT_COMBINATIONS


def test_captions_use_known_words_only(rng: np.random.Generator) -> None:
    captions = [clip_caption(entity, motion, ground) for entity, motion, ground in COMBINATIONS]
    captions += [clip_caption(RED_CIRCLE, motion, "white", "the") for motion in ENDLESS_MOTIONS]
    captions += [pair_caption(RED_CIRCLE, "moves left", front, BLUE_SQUARE, "pink") for front in (True, False)]
    assert {word for caption in captions for word in caption.split()} <= set(WORDS)


def test_a_later_caption_may_omit_what_stays_the_same(rng: np.random.Generator) -> None:
    captions = {shortened_caption(rng, RED_CIRCLE, "moves up", "white", True, True) for _ in range(50)}
    assert "the circle moves up" in captions
    assert "the red circle moves up on a white background" in captions
