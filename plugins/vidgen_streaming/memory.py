"""What a long video remembers: its last frames, for CAM, and one anchor frame, for APM; never more.

B videos, K known frames, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Recalled:
    """What one chunk is told of the video so far, in [-1, 1].

    Attributes:
        frames: (B, K, 3, H, W), the frames that the chunk's first frames must become.
        anchor: (B, 3, H, W), the frame whose appearance is kept.
        blank: (B,), where nothing is told of the anchor, as in a share of the training.
    """

    frames: Tensor
    anchor: Tensor
    blank: Tensor | None = None


class FrameMemory:
    """The last frames and the anchor of the videos of one batch, in the main memory, in float, never quantised.

    Args:
        frames: K, how many last frames are kept.
        anchor: ``first``: frame 0 of the video; ``last_chunk``: the last frame so far.
    """

    def __init__(self, frames: int, anchor: str) -> None:
        self.frames, self.anchor_mode = frames, anchor
        self.last: Tensor | None = None  # (B, up to K, 3, H, W) in [0, 1]
        self.anchor: Tensor | None = None  # (B, 3, H, W) in [0, 1]

    def remember(self, frames: Tensor) -> None:
        """Take the next frames (B, F, 3, H, W) in [0, 1] of the video."""
        known = frames if self.last is None else torch.cat([self.last, frames[:, -self.frames :]], dim=1)
        self.last = known[:, -self.frames :].clone()  # a view would keep the whole chunk
        if self.anchor_mode == "last_chunk":
            self.anchor = frames[:, -1].clone()
        elif self.anchor is None:
            self.anchor = frames[:, 0].clone()

    def recall(self) -> Recalled | None:
        """What the next chunk is told, or None before there is a frame. A start shorter than K stands still before."""
        if self.last is None or self.anchor is None:
            return None
        missing = self.frames - self.last.shape[1]
        frames = torch.cat([*[self.last[:, :1]] * missing, self.last], dim=1)
        return Recalled(frames * 2 - 1, self.anchor * 2 - 1)
