"""Depth maps that the user supplies: what files of every kind hold, and what is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from vidgen_depth.maps import read_maps

from vidgen_core.errors import BadRequest
from vidgen_core.video_writer import VideoWriter

FRAMES = 3


def nearness(height: int, width: int) -> np.ndarray:
    """Smooth maps (F, H, W) of whole numbers that 8 bits hold, every frame its own."""
    y, x = np.mgrid[:height, :width]
    return np.stack([(i + 1) * y + x for i in range(FRAMES)])


@pytest.fixture
def maps():
    """Of odd sizes."""
    return nearness(21, 33)


def pictures(folder, frames):
    folder.mkdir()
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{9 + i}.png")
    (folder / "notes.txt").write_text("not a map")
    return folder


def test_arrays_are_read(tmp_path, maps) -> None:
    np.save(tmp_path / "maps.npy", maps.astype(np.float64))
    np.savez(tmp_path / "named.npz", other=maps[:1], depth=maps)
    np.savez(tmp_path / "single.npz", whatever=maps.astype(np.uint16))
    for name in ("maps.npy", "named.npz", "single.npz"):
        found = read_maps(tmp_path / name)
        assert found.dtype == torch.float32 and np.array_equal(found.numpy(), maps)


@pytest.mark.parametrize(("kind", "factor"), [(np.uint8, 1), (np.uint16, 600)])
def test_pictures_are_read_in_natural_order(tmp_path, maps, kind, factor) -> None:
    folder = pictures(tmp_path / "maps", (maps * factor).astype(kind))
    assert np.array_equal(read_maps(folder).numpy(), maps * factor)


def test_grey_in_three_channels_is_grey(tmp_path, maps) -> None:
    folder = pictures(tmp_path / "maps", np.repeat(maps.astype(np.uint8)[..., None], 3, axis=-1))
    assert np.array_equal(read_maps(folder).numpy(), maps)


def test_the_brightness_of_a_video_is_read(tmp_path) -> None:
    maps = nearness(32, 48).astype(np.uint8)
    writer = VideoWriter(tmp_path / "depth.mp4", 8)
    writer.write(np.repeat(maps[..., None], 3, axis=-1))
    writer.close()
    found = read_maps(tmp_path / "depth.mp4")
    assert found.shape == maps.shape and np.abs(found.numpy() - maps).mean() < 3


def test_distance_becomes_inverse_depth(tmp_path) -> None:
    np.save(tmp_path / "metres.npy", np.array([[[1.0, 2.0, 4.0, np.inf]]]))
    assert read_maps(tmp_path / "metres.npy", inverted=True).tolist() == [[[1.0, 0.5, 0.25, 0.0]]]


@pytest.mark.parametrize(
    ("array", "inverted", "message"),
    [
        (np.ones((4, 4)), False, "of shape (4, 4). They are real numbers (frames, height, width)"),
        (np.ones((3, 0, 4)), False, "of shape (3, 0, 4)"),
        (np.ones((3, 4, 4), complex), False, "complex128"),
        (np.full((3, 4, 4), np.nan), False, "frame 0 in '{file}' holds NaN or infinity"),
        (np.full((3, 4, 4), 1e300), False, "frame 0 in '{file}' holds NaN or infinity"),
        (np.arange(48).reshape(3, 4, 4), True, "frame 0 in '{file}' holds a distance that is not above 0"),
        (np.full((3, 4, 4), None), False, "'{file}' cannot be read"),
    ],
)
def test_maps_that_do_not_fit_are_told_with_their_file(tmp_path, array, inverted, message) -> None:
    file = tmp_path / "maps.npy"
    np.save(file, array)
    with pytest.raises(BadRequest) as error:
        read_maps(file, inverted)
    assert message.format(file=file) in str(error.value) and str(file) in str(error.value)


def colours(folder):
    pictures(folder, np.random.default_rng(0).integers(0, 255, (3, 4, 4, 3), np.uint8))


def sizes(folder):
    pictures(folder, [np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8)])


def cut_short(folder):
    file = pictures(folder, np.random.default_rng(0).integers(0, 255, (1, 64, 64), np.uint8)) / "9.png"
    file.write_bytes(file.read_bytes()[:200])


def a_small_red_thing(file):
    frames = np.full((3, 64, 64, 3), 200, np.uint8)
    frames[:, 20:28, 20:28] = 220, 60, 60
    writer = VideoWriter(file, 8)
    writer.write(frames)
    writer.close()


def two_arrays(file):
    np.savez(file.with_suffix(".npz"), a=np.zeros(1), b=np.zeros(1))
    file.with_suffix(".npz").rename(file)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("maps", colours, "9.png' is in colour"),
        ("maps", sizes, "10.png' is (4, 5) and '9.png' is (4, 4)"),
        ("maps", cut_short, "9.png' cannot be read as a picture"),
        ("maps", lambda folder: folder.mkdir(), "holds no .png depth maps"),
        ("maps.npz", two_arrays, "has no array 'nearness' or 'depth', but ['a', 'b']"),
        ("maps.npz", lambda file: file.write_bytes(b"PK nothing"), "Is it a damaged file?"),
        ("maps.mp4", a_small_red_thing, "is a video in colour, which is no depth"),
        ("maps.mp4", lambda file: file.write_bytes(b"nothing"), "cannot be read as video"),
        ("maps.mp4", lambda file: None, "There are no depth maps"),
    ],
)
def test_files_that_are_no_maps_are_told(tmp_path, name, make, message) -> None:
    make(tmp_path / name)
    with pytest.raises(BadRequest) as error:
        read_maps(tmp_path / name)
    assert message in str(error.value) and str(tmp_path / name) in str(error.value)
