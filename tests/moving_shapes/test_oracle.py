"""The oracle reads rendered truth without error, also when the picture is blurred and noisy."""

import numpy as np
import pytest
from numpy.typing import NDArray
from vidgen_moving_shapes import oracle
from vidgen_moving_shapes.combinations import COMBINATIONS, ENTITIES, Combination
from vidgen_moving_shapes.motions import ENDLESS_MOTIONS
from vidgen_moving_shapes.world import Entity, draw_scene


def is_right(reading: oracle.Reading, combination: Combination) -> bool:
    entity, motion, ground = combination
    return (reading.shape, reading.colour, reading.ground, reading.motion) == (
        entity.shape,
        entity.colour,
        ground,
        motion,
    )


def degrade(frames: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blur by a 3x3 box and add noise of 8 grey levels, as a weak decoder would."""
    padded = np.pad(frames.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    height, width = frames.shape[1:3]
    blurred = sum(padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)) / 9
    return np.clip(blurred + rng.normal(0, 8, frames.shape), 0, 255).astype(np.uint8)


def test_rendered_clips_are_read_right() -> None:
    rng = np.random.default_rng(0)
    sample = COMBINATIONS[::4]
    right = [is_right(oracle.read(draw_scene(rng, e, m, g).frames()), (e, m, g)) for e, m, g in sample]
    assert np.mean(right) >= 0.99


def test_degraded_clips_are_read_right() -> None:
    rng = np.random.default_rng(1)
    sample = COMBINATIONS[::11]
    right = [is_right(oracle.read(degrade(draw_scene(rng, e, m, g).frames(), rng)), (e, m, g)) for e, m, g in sample]
    assert np.mean(right) >= 0.97


@pytest.mark.parametrize("motion", ENDLESS_MOTIONS)
def test_endless_motions_are_read_right(motion: str) -> None:
    rng = np.random.default_rng(2)
    readings = [oracle.read(draw_scene(rng, entity, motion, "gray", frames=32).frames()) for entity in ENTITIES[::3]]
    assert [reading.motion for reading in readings] == [motion] * len(readings)


def test_positions_and_sizes_are_those_of_the_track() -> None:
    scene = draw_scene(np.random.default_rng(3), Entity("cyan", "cross"), "moves down", "brown")
    reading, track = oracle.read(scene.frames()), scene.layers[0].track
    assert np.abs(reading.positions - track.centre).max() < 0.2
    assert np.abs(reading.sizes - track.size).max() < 0.3


def test_an_empty_picture_is_read_without_an_object() -> None:
    reading = oracle.read(np.full((16, 64, 64, 3), 128, dtype=np.uint8))
    assert reading.ground == "gray"
    assert reading.overlap < 0.2


def test_a_change_within_a_clip_shows_frame_by_frame() -> None:
    rng = np.random.default_rng(4)
    clips = [draw_scene(rng, Entity(colour, "square"), "stays still", "white").frames() for colour in ("red", "blue")]
    reading = oracle.read(np.concatenate(clips))
    assert [frame.colour for frame in reading.frames] == ["red"] * 16 + ["blue"] * 16
