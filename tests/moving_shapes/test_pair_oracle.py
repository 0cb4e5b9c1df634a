"""The oracle of two objects tells them apart, and which of them is in front, also where one hides much of the other."""

import numpy as np
import pytest
from vidgen_moving_shapes.pair_oracle import read_pair
from vidgen_moving_shapes.world import Entity, draw_pair_scene

PAIRS = [
    (Entity("red", "circle"), Entity("blue", "square")),
    (Entity("yellow", "triangle"), Entity("purple", "cross")),
    (Entity("cyan", "cross"), Entity("green", "circle")),
]


@pytest.mark.parametrize("in_front", [True, False])
@pytest.mark.parametrize(("mover", "other"), PAIRS)
def test_a_passing_object_is_read_right(mover: Entity, other: Entity, in_front: bool) -> None:
    rng = np.random.default_rng(6)
    scene = draw_pair_scene(rng, mover, "moves right", in_front, other, "white")
    reading = read_pair(scene.frames())
    assert reading is not None
    front, back = (mover, other) if in_front else (other, mover)
    assert (reading.ground, reading.front.entity, reading.back.entity) == ("white", front, back)
    moving = reading.front if in_front else reading.back
    assert moving.motion == "moves right"


def test_the_hidden_object_is_found_where_it_is() -> None:
    scene = draw_pair_scene(
        np.random.default_rng(8), Entity("red", "circle"), "moves left", True, Entity("blue", "square"), "gray"
    )
    reading = read_pair(scene.frames())
    assert reading is not None
    assert np.abs(reading.back.positions - scene.layers[0].track.centre).mean() < 1.5


def test_one_colour_is_no_pair() -> None:
    red = Entity("red", "circle")
    assert read_pair(draw_pair_scene(np.random.default_rng(0), red, "moves left", True, red, "gray").frames()) is None
