"""Depth as the network reads it: normalised by frame or by clip, whatever the scale of the maps."""

from __future__ import annotations

import pytest
import torch

from vidgen_core.depth_map import depth_channel
from vidgen_core.errors import BadRequest

FRAMES = 3


def nearness(height: int = 20, width: int = 30):
    """Smooth maps (1, F, H, W) whose frames reach unlike far."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([(i + 1) * y + x * x for i in range(FRAMES)])[None]


@pytest.mark.parametrize("size", [(8, 12), (5, 7), (40, 40)])
def test_every_frame_spans_the_whole_range(size) -> None:
    channel = depth_channel(nearness(), size)
    assert channel.shape == (1, 1, FRAMES, *size)
    assert torch.equal(channel.amin((-2, -1)), torch.full((1, 1, FRAMES), -1.0))
    assert torch.equal(channel.amax((-2, -1)), torch.full((1, 1, FRAMES), 1.0))


def test_the_frames_of_a_clip_span_the_range_together() -> None:
    channel = depth_channel(nearness(), (8, 12), "per_clip")
    assert (channel.min(), channel.max()) == (-1, 1)
    assert channel[0, 0, 0].max() < channel[0, 0, 1].max() < 1


def test_videos_are_normalised_apart() -> None:
    both = torch.cat([nearness(), 50 + 7 * nearness().flip(1)])
    apart = torch.cat([depth_channel(video[None], (8, 12), "per_clip") for video in both])
    assert torch.equal(depth_channel(both, (8, 12), "per_clip"), apart)


@pytest.mark.parametrize("normalise", ["per_frame", "per_clip"])
@pytest.mark.parametrize(("scale", "offset"), [(3.0, 0.0), (0.01, 5.0), (65535.0, -100.0)])
def test_scale_and_offset_of_the_maps_do_not_matter(normalise, scale, offset) -> None:
    changed = depth_channel(scale * nearness() + offset, (8, 12), normalise)
    assert torch.allclose(changed, depth_channel(nearness(), (8, 12), normalise), atol=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.3, -7.1, 12345.6])
def test_a_map_without_depth_is_zero(value) -> None:
    maps = nearness()
    maps[0, 1] = value
    channel = depth_channel(maps, (9, 11))
    assert (channel[0, 0, 1] == 0).all() and (channel[0, 0, 0] != 0).any()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_told_with_its_frame(value) -> None:
    maps = nearness()
    maps[0, 2, 3, 4] = value
    with pytest.raises(BadRequest, match="frame 2 of video 0 holds NaN or infinity"):
        depth_channel(maps, (8, 12))


def test_an_unknown_normalisation_is_refused() -> None:
    with pytest.raises(BadRequest, match="Did you mean 'per_clip'?"):
        depth_channel(nearness(), (8, 12), "per_clp")
