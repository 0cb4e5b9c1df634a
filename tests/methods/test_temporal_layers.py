"""The layers of Video Diffusion Models, Make-A-Video and VideoLDM, each by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from vidgen_tune_a_video.along_frames import FrameAttention, FrameConv, by_frame, by_pixel
from vidgen_tune_a_video.make_a_video import DiracConv
from vidgen_tune_a_video.vdm import RelativeAttention
from vidgen_tune_a_video.video_ldm import FrameResnet, Mixed

from vidgen_core.models import tiny

BLOCK = tiny.build_image().denoiser.down_blocks[0]
WIDTH = 32


def trained(module: Any) -> Any:
    """The module, with no parameter left at its start."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return module


# ----------------------------------------------------------------------------------------- parts along frames


@torch.no_grad()
def test_frames_of_a_pixel_are_folded_out_and_back() -> None:
    x = torch.randn(6, 5, 2, 4)
    pixels = by_pixel(x, frames=3)
    assert torch.equal(pixels[1 * 8 + 1 * 4 + 2, 2], x[1 * 3 + 2, :, 1, 2])
    assert torch.equal(by_frame(pixels, x), x)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_the_convolution_is_torchs_own_along_the_frames_of_each_pixel(frames: int) -> None:
    conv, x = FrameConv(6), torch.randn(2, 6, frames, 3, 4)
    pixels = x.permute(0, 3, 4, 1, 2).flatten(0, 2)
    expected = F.conv1d(pixels, conv.weight, conv.bias, padding=1)
    assert torch.allclose(conv(x).permute(0, 3, 4, 1, 2).flatten(0, 2), expected, atol=1e-6)


@torch.no_grad()
def test_attention_with_sinusoids_knows_the_order_of_frames() -> None:
    layer, x, order = trained(sinusoidal()), torch.randn(5, WIDTH, 2, 2), torch.tensor([3, 0, 4, 1, 2])
    assert not torch.allclose(layer(x[order], 5), layer(x, 5)[order], atol=1e-3)


def sinusoidal() -> FrameAttention:
    return FrameAttention(BLOCK.attentions[0], "sdpa", F.scaled_dot_product_attention)


# --------------------------------------------------------------------------------------------- Make-A-Video


@torch.no_grad()
def test_a_dirac_convolution_reaches_no_other_frame_until_its_neighbours_are_learnt() -> None:
    layer = DiracConv(4)
    assert reached(3, layer) == [3]
    layer.conv.weight += 0.1
    assert reached(3, layer) == [2, 3, 4]
    assert reached(3, layer, layer) == [1, 2, 3, 4, 5]


def reached(frame: int, *layers: DiracConv, frames: int = 7) -> list[int]:
    """Which frames of what the layers make, one after the other, depend on this one."""
    x = torch.randn(frames, 4, 2, 2)
    other = x.clone()
    other[frame] += 1
    for layer in layers:
        x, other = layer(x, frames), layer(other, frames)
    return [i for i in range(frames) if not torch.equal(x[i], other[i])]


# ---------------------------------------------------------------------------------------------- VideoLDM


def test_alpha_mixes_the_image_models_output_with_the_temporal_layers() -> None:
    layer, z = trained(sinusoidal()), torch.randn(3, WIDTH, 2, 2)
    mixed, changed = Mixed(layer), layer(z, 3)
    mixed.a.data.fill_(0.7)
    alpha = mixed.alpha
    assert torch.allclose(mixed(z, 3), alpha * z + (1 - alpha) * changed, atol=1e-6)
    (slope,) = torch.autograd.grad(mixed(z, 3).sum(), mixed.a)
    assert torch.allclose(slope, ((z - changed) * alpha * (1 - alpha)).sum(), rtol=1e-4)
    mixed.a.data.fill_(torch.inf)  # a sigmoid never gets there
    assert torch.equal(mixed(z, 3), z)


@torch.no_grad()
def test_the_temporal_residual_block_is_one_of_three_dimensions() -> None:
    layer, z, time = trained(FrameResnet(BLOCK.resnets[0])), torch.randn(2 * 3, WIDTH, 2, 2), torch.randn(2, 128)

    def conv3d(x: Tensor, conv: FrameConv) -> Tensor:
        return F.conv3d(x, conv.weight[..., None, None], conv.bias, padding=(1, 0, 0))

    video = z.unflatten(0, (2, 3)).transpose(1, 2)
    inner = conv3d(F.silu(layer.norm1(video)), layer.conv1)
    inner += layer.time_emb_proj(F.silu(time))[:, :, None, None, None]
    expected = video + conv3d(F.silu(layer.norm2(inner)), layer.conv2)
    found = layer(z, 3, time.repeat_interleave(3, dim=0)).unflatten(0, (2, 3)).transpose(1, 2)
    assert torch.allclose(found, expected, atol=1e-5)


# -------------------------------------------------------------------------------------------------- VDM


def relative(reach: int = 15, images: int = 0) -> RelativeAttention:
    return trained(RelativeAttention(BLOCK.attentions[0], reach, lambda: images))


@torch.no_grad()
def test_the_order_of_frames_is_known_by_relative_positions_alone() -> None:
    layer, x, order = relative(), torch.randn(5, WIDTH, 2, 2), torch.tensor([3, 0, 4, 1, 2])
    assert not torch.allclose(layer(x[order], 5), layer(x, 5)[order], atol=1e-3)
    layer.positions.zero_()
    assert torch.allclose(layer(x[order], 5), layer(x, 5)[order], atol=1e-5)


@torch.no_grad()
def test_what_positions_add_depends_on_the_distance_alone_and_no_farther_than_they_reach() -> None:
    layer = relative(reach=2)
    added = layer.added(6)
    assert torch.equal(added[:, 1:, 1:], added[:, :-1, :-1])
    assert torch.equal(added[:, 0, :4], layer.positions[[2, 3, 4, 4]].T)
    assert torch.equal(added[:, 5, 2:], layer.positions[[0, 0, 1, 2]].T)


@torch.no_grad()
def test_appended_images_attend_to_themselves_alone_and_no_frame_to_them() -> None:
    layer, clip, pictures = relative(images=2), torch.randn(3, WIDTH, 2, 2), torch.randn(2, WIDTH, 2, 2)
    both = layer(torch.cat([clip, pictures]), 5)
    layer.images = lambda: 0
    assert torch.allclose(both[:3], layer(clip, 3), atol=1e-5)
    assert torch.allclose(both[3:], layer(pictures, 1), atol=1e-5)


def test_positions_of_one_frame_get_no_gradient() -> None:
    layer = relative()
    layer(torch.randn(2, WIDTH, 2, 2), 1).square().sum().backward()
    assert not layer.positions.grad.any() and layer.to_v.weight.grad.any()
