"""The model that comes with the package shows what a prompt says, as the oracle reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
import vidgen_moving_shapes
from vidgen_moving_shapes.oracle import Reading, read

import vidgen_core as vg

WEIGHTS = Path(vidgen_moving_shapes.__file__).parent / "weights"

RIGHT_THEN_UP = ["a red circle moves right on a white background", "the red circle moves up on a white background"]


def test_all_shipped_weights_take_at_most_60_mb() -> None:
    assert sum(file.stat().st_size for file in WEIGHTS.rglob("*") if file.is_file()) <= 60e6


def attributes(reading: Reading) -> tuple[str, str, str, str]:
    return reading.colour, reading.shape, reading.ground, reading.motion


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("a blue square moves left on a black background", ("blue", "square", "black", "moves left")),
        ("a yellow triangle moves down on a gray background", ("yellow", "triangle", "gray", "moves down")),
    ],
)
def test_the_plain_model_shows_colour_shape_ground_and_motion(prompt, shown, tmp_path) -> None:
    video = vg.generate(prompt=prompt, output={"dir": str(tmp_path / "out")})
    assert video.frames.shape == (16, 64, 64, 3)
    assert attributes(read(video.frames)) == shown


def test_time_aligned_captions_show_one_motion_after_the_other(tmp_path) -> None:
    video = vg.generate(method="talc", prompt=RIGHT_THEN_UP, output={"dir": str(tmp_path / "out")})
    assert video.frames.shape == (32, 64, 64, 3)
    assert attributes(read(video.frames[:16])) == ("red", "circle", "white", "moves right")
    assert attributes(read(video.frames[16:])) == ("red", "circle", "white", "moves up")
    assert video.path is not None and video.path.is_file()
