"""Pixels of training clips: one size for all, and the range that models see. F frames, H W pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vidgen_core.errors import BadRequest

if TYPE_CHECKING:
    from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the brightness of a picture (ITU-R BT.601)."""


def to_model_range(frames: Tensor) -> Tensor:
    """Float32 in -1..1, of the same shape, from uint8 in 0..255."""
    return (frames.float() / 255 - 0.5) / 0.5


def center_crop(frames: Tensor, height: int, width: int) -> Tensor:
    """The middle (..., height, width) of frames (..., H, W), without resizing; a side that is too short gets zeros.

    Odd margins are cut as torchvision's CenterCrop cuts them, which published models were trained on: of padding, the
    odd line comes after; of a cut, half lines are rounded to even.
    """
    from torch.nn.functional import pad

    missing_h, missing_w = max(height - frames.shape[-2], 0), max(width - frames.shape[-1], 0)
    if missing_h or missing_w:
        sides = (missing_w // 2, (missing_w + 1) // 2, missing_h // 2, (missing_h + 1) // 2)
        frames = pad(frames, sides)
    top, left = round((frames.shape[-2] - height) / 2), round((frames.shape[-1] - width) / 2)
    return frames[..., top : top + height, left : left + width]


def fit(frames: Tensor, size: tuple[int, int], crop: str) -> Tensor:
    """Frames (F, c, *size), contiguous, from frames (F, c, H, W), uint8 or, such as maps, float32.

    Args:
        size: Height and width.
        crop: ``center`` cuts without resizing; ``resize_center`` first scales, so that the shorter side just fits;
            ``stretch`` scales both sides, whatever the aspect.
    """
    height, width = size
    if crop == "resize_center":
        frames = _scaled(frames, _covering(frames, height, width))
    elif crop == "stretch":
        frames = _scaled(frames, size)
    return center_crop(frames, height, width).contiguous()


def _covering(frames: Tensor, height: int, width: int) -> tuple[int, int]:
    rows, columns = frames.shape[-2:]
    scale = max(height / rows, width / columns)
    return max(height, round(rows * scale)), max(width, round(columns * scale))


def _scaled(frames: Tensor, shape: tuple[int, int]) -> Tensor:
    from torch.nn.functional import interpolate

    if tuple(frames.shape[-2:]) == shape:
        return frames
    scaled = interpolate(frames.float(), shape, mode="bilinear", antialias=True, align_corners=False)
    return scaled if frames.is_floating_point() else scaled.round().clamp(0, 255).to(frames.dtype)


def size_of(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width from one number, or from both. Raises BadRequest for another count of numbers."""
    sides = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, Sequence) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise BadRequest(f"data.size={size} is not a size. Give one number, or [height,width].")
    return sides[0], sides[1]
