"""One size for all frames, the published cut, and which frames of a video are shown."""

from __future__ import annotations

import pytest
import torch

from vidgen_core.data.frame_sampling import clip_indices, segment_indices
from vidgen_core.data.pixels import center_crop, fit, size_of, to_model_range
from vidgen_core.errors import BadRequest


def rows_and_columns(height: int, width: int) -> torch.Tensor:
    """(1, 3, H, W): row, column and one, all counted from 1, so that zeros are padding."""
    rows, columns = torch.meshgrid(torch.arange(1, height + 1), torch.arange(1, width + 1), indexing="ij")
    return torch.stack([rows, columns, torch.ones_like(rows)]).byte()[None]


@pytest.mark.parametrize(("long", "first"), [(16, 1), (17, 1), (18, 2), (19, 3), (20, 3), (21, 3), (22, 4), (23, 5)])
def test_odd_margins_are_cut_with_halves_to_even(long: int, first: int) -> None:
    cut = center_crop(rows_and_columns(long, 30), 16, 30)
    assert cut.shape == (1, 3, 16, 30)
    assert cut[0, 0, 0, 0] == first
    assert torch.equal(center_crop(rows_and_columns(30, long), 30, 16)[0, 1, 0], torch.arange(first, first + 16).byte())


def test_the_odd_line_of_padding_comes_after() -> None:
    cut = center_crop(rows_and_columns(13, 20), 16, 16)[0]
    assert cut.shape == (3, 16, 16)
    assert cut[0, :, 0].tolist() == [0, *range(1, 14), 0, 0]
    assert cut[1, 5].tolist() == list(range(3, 19))
    assert center_crop(rows_and_columns(20, 13), 16, 16)[0, 1, 0].tolist() == [0, *range(1, 14), 0, 0]


def test_resizing_first_fits_the_shorter_side() -> None:
    frames = torch.zeros(2, 3, 20, 80, dtype=torch.uint8)
    frames[..., 40:] = 200
    fitted = fit(frames, (40, 40), "resize_center")
    assert fitted.shape == (2, 3, 40, 40) and fitted.dtype == torch.uint8
    assert fitted[..., :18].max() == 0 and fitted[..., 22:].min() == 200
    assert torch.equal(fit(frames, (20, 80), "resize_center"), frames)
    assert fit(frames, (13, 31), "resize_center").shape == (2, 3, 13, 31)


def test_models_see_minus_one_to_one() -> None:
    scaled = to_model_range(torch.tensor([0, 51, 255], dtype=torch.uint8))
    assert scaled.dtype == torch.float32
    assert scaled.tolist() == pytest.approx([-1, -0.6, 1])


def test_a_size_is_one_number_or_two() -> None:
    assert (size_of(256), size_of([24, 32])) == ((256, 256), (24, 32))
    with pytest.raises(BadRequest, match=r"data.size=\[1\]"):
        size_of([1])


def test_frames_are_spread_over_a_segment() -> None:
    assert segment_indices(133, 8) == (8, 24, 41, 58, 74, 90, 107, 124)
    assert segment_indices(1, 3) == (0, 0, 0)
    assert all(max(segment_indices(total, 8)) < total for total in range(1, 300))
    with pytest.raises(ValueError, match="0 frames"):
        segment_indices(0, 8)


def test_a_clip_lies_inside_its_video_wherever_it_starts() -> None:
    assert clip_indices(10, 4, 2, 0.0) == (0, 2, 4, 6)
    assert clip_indices(10, 4, 2, 0.999) == (3, 5, 7, 9)
    assert clip_indices(4, 4, 1, 0.5) == (0, 1, 2, 3)
    assert clip_indices(6, 4, 2, 0.0) is None
    assert clip_indices(30, 4, 2.5, 0.0) == (0, 2, 5, 8)
    assert clip_indices(2, 4, 0.5, 0.0) is None and clip_indices(3, 4, 0.5, 0.0) == (0, 0, 1, 2)
