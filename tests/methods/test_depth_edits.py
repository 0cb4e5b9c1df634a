"""Edits of depth: what they change, what they leave alone, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from vidgen_depth.edits import edited, read_edits

from vidgen_core.data.one_clip import OneClip
from vidgen_core.depth_map import depth_channel
from vidgen_core.errors import BadRequest
from vidgen_core.video_writer import VideoWriter

FRAMES, SIZE = 4, (8, 6)


def nearness(seed: int = 0):
    """(F, H', W') of a clip."""
    return torch.rand(FRAMES, 32, 24, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def depth():
    """(F, h, w) as the network reads it, with room on both sides."""
    return depth_channel(nearness()[None], SIZE)[0, 0] / 2


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """The clip that is edited, of FRAMES frames."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    writer = VideoWriter(path, 8)
    writer.write(np.zeros((FRAMES, 32, 24, 3), np.uint8))
    writer.close()
    return OneClip(path, ["a wall"], FRAMES, (64, 48))


@pytest.fixture
def after(clip):
    """The depth after some edits."""
    return lambda depth, *edits: edited(depth, read_edits(list(edits), clip))


@pytest.fixture
def other(tmp_path):
    """The file of another clip, and its depth as the network reads it."""
    np.savez(tmp_path / "other.npz", nearness=100 + 5 * nearness(1).numpy())
    return str(tmp_path / "other.npz"), depth_channel(nearness(1)[None], SIZE)[0, 0]


@pytest.mark.parametrize("nothing", [None, [], ()])
def test_without_edits_depth_is_untouched(depth, clip, nothing) -> None:
    assert edited(depth, read_edits(nothing, clip)) is depth


@pytest.mark.parametrize("edit", [{"scale": 1}, {"shift": 0}, {"region": [0, 0, 0.5, 1], "scale": 1, "shift": 0}])
def test_an_edit_by_nothing_changes_nothing(depth, after, edit) -> None:
    assert torch.allclose(after(depth, edit), depth, atol=1e-7)


def test_scale_changes_contrast_and_keeps_the_mean(depth, after) -> None:
    found = after(depth, {"scale": 0.25})
    assert torch.allclose(found.std(), depth.std() / 4) and torch.allclose(found.mean(), depth.mean(), atol=1e-6)
    assert torch.allclose(after(depth, {"scale": 0}), depth.mean().expand_as(depth), atol=1e-6)


def test_shift_and_value(depth, after) -> None:
    assert torch.allclose(after(depth, {"shift": 0.25}), depth + 0.25)
    assert torch.equal(after(depth, {"value": -0.5}), torch.full_like(depth, -0.5))


def test_depth_stays_in_the_range_that_the_network_knows(depth, after) -> None:
    assert (after(depth, {"shift": 2}) == 1).all()
    assert after(depth, {"scale": 10}).abs().max() == 1


def test_edits_follow_one_another(depth, after) -> None:
    both = after(depth, {"shift": 0.25}, {"scale": 0.5})
    assert torch.equal(both, after(after(depth, {"shift": 0.25}), {"scale": 0.5}))


def test_a_region_and_frames_limit_an_edit(depth, after) -> None:
    found = after(depth, {"region": [0, 0.5, 0.5, 1], "frames": [1, 3], "value": 1})
    inside = torch.zeros_like(depth, dtype=torch.bool)
    inside[1:3, :4, 3:] = True
    assert (found[inside] == 1).all() and torch.equal(found[~inside], depth[~inside])


def test_a_cell_that_a_region_cuts_changes_in_part(depth, after) -> None:
    found = after(depth, {"region": [0, 0, 0.5 / SIZE[0], 1], "shift": 0.4})
    assert torch.allclose(found[:, 0], depth[:, 0] + 0.2) and torch.equal(found[:, 1:], depth[:, 1:])


def test_scale_in_a_region_is_about_the_mean_of_the_region(depth, after) -> None:
    found = after(depth, {"region": [0, 0, 0.5, 1], "scale": 0})
    assert torch.allclose(found[:, :4], depth[:, :4].mean().expand(FRAMES, 4, 6), atol=1e-6)


@pytest.mark.parametrize("count", [1, FRAMES])
def test_a_mask_limits_an_edit(depth, after, tmp_path, count) -> None:
    for i in range(count):
        white = np.zeros((32, 24), np.uint8)
        white[:, :12] = 200
        Image.fromarray(white).save(tmp_path / f"{i}.png")
    found = after(depth, {"mask": str(tmp_path), "value": 1})
    assert (found[..., :3] == 1).all() and torch.equal(found[..., 3:], depth[..., 3:])


def test_the_depth_of_another_clip_replaces_or_blends(depth, after, other) -> None:
    path, theirs = other
    assert torch.allclose(after(depth, {"from": path}), theirs, atol=1e-4)
    assert torch.allclose(after(depth, {"blend": path, "amount": 0.25}), 0.75 * depth + 0.25 * theirs, atol=1e-4)
    assert torch.allclose(after(depth, {"from": path, "frames": [0, 1]})[0], theirs[0], atol=1e-4)
    assert torch.equal(after(depth, {"from": path, "frames": [0, 1]})[1:], depth[1:])


def test_of_maps_of_a_whole_clip_those_are_taken_that_would_be_its_frames(clip, tmp_path) -> None:
    strided = OneClip(clip.path, ["a wall"], 2, (64, 48), start=1, stride=2)
    np.save(tmp_path / "seven.npy", np.arange(7.0)[:, None, None] + np.zeros((7, 8, 6)))
    (found,) = read_edits({"from": str(tmp_path / "seven.npy")}, strided)
    assert found.other[:, 0, 0].tolist() == [1, 3]
    np.save(tmp_path / "three.npy", np.zeros((3, 8, 6)))
    with pytest.raises(BadRequest, match=r"three.npy' has 3 frames; 2 frames from start=1 with stride=2 need 4"):
        read_edits({"from": str(tmp_path / "three.npy")}, strided)


def test_what_is_cut_of_the_clip_is_cut_of_masks_and_of_other_clips(clip, tmp_path) -> None:
    """Of a picture twice as wide as high, a square shows the middle half."""
    square = OneClip(clip.path, ["a wall"], FRAMES, (64, 64), fit="resize_center")
    ramp = np.broadcast_to(np.arange(64.0), (FRAMES, 32, 64))
    np.savez(tmp_path / "ramp.npz", nearness=ramp)
    np.savez(tmp_path / "left.npz", mask=(ramp < 32).astype(float))
    edit = {"from": str(tmp_path / "ramp.npz"), "mask": str(tmp_path / "left.npz")}
    (found,) = read_edits(edit, square)
    middle = depth_channel(torch.tensor(ramp[..., 16:48])[None], (8, 8))[0, 0]
    assert torch.allclose(depth_channel(found.other[None], (8, 8))[0, 0], middle, atol=0.02)
    weight = found.weight(torch.zeros(FRAMES, 8, 8))
    assert (weight[..., :4] > 0.95).all() and (weight[..., 4:] < 0.05).all()


def test_one_mapping_is_one_edit(depth, after, clip) -> None:
    assert torch.equal(edited(depth, read_edits({"shift": 0.25}, clip)), after(depth, {"shift": 0.25}))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"scal": 0.5}, "unknown key 'scal'. Did you mean 'scale'?"),
        ({"region": [0, 0, 1, 1]}, "makes 0 changes. An edit makes one of: value, scale/shift, from, blend/amount"),
        ({"value": 0, "scale": 1}, "makes 2 changes"),
        ({"value": 1.5}, "value must be from -1 to 1"),
        ({"scale": -1}, "scale must be 0 or more"),
        ({"scale": float("inf")}, "scale is inf, which is no finite number"),
        ({"shift": "much"}, "shift is much, which is no finite number"),
        ({"shift": True}, "shift is True, which is no finite number"),
        ({"blend": "a.npz"}, "blend and amount belong together"),
        ({"amount": 0.5}, "blend and amount belong together"),
        ({"blend": "a.npz", "amount": 2}, "amount must be from 0 to 1"),
        ({"from": "nowhere.npz"}, "There are no depth maps 'nowhere.npz'"),
        ({"from": 3}, "3 is no path of a file"),
        ({"scale": 1, "inverted": True}, "tells of the file of from or blend"),
        ({"shift": 1, "region": [0, 0, 1]}, "region is [top, left, bottom, right]"),
        ({"shift": 1, "region": [0.5, 0, 0.5, 1]}, "with top < bottom and left < right"),
        ({"shift": 1, "region": [0, 0, 1, 24]}, "every number of region must be from 0 to 1"),
        ({"shift": 1, "frames": [0, 5]}, "frames is [first, stop] with 0 <= first < stop <= 4"),
        ({"shift": 1, "frames": [2, 2]}, "frames is [first, stop]"),
        ({"shift": 1, "frames": 2}, "frames is [first, stop]"),
        ("scale", "An edit is a mapping"),
    ],
)
def test_what_is_no_edit_is_refused_by_name(clip, edit, message) -> None:
    with pytest.raises(BadRequest) as error:
        read_edits([{"shift": 0.1}, edit], clip)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("mask", "message"),
    [(np.zeros((1, 4, 4)), "black everywhere"), (-np.ones((1, 4, 4)), "below 0"), (np.ones((2, 4, 4)), "2 pictures")],
)
def test_a_mask_that_marks_nothing_is_refused(clip, tmp_path, mask, message) -> None:
    np.save(tmp_path / "mask.npy", mask)
    with pytest.raises(BadRequest, match=message):
        read_edits({"mask": str(tmp_path / "mask.npy"), "shift": 1}, clip)
