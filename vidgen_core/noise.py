"""Noise that depends on what is made and not on how: keyed by seed, video, stage, group, absolute frame and step.

Drawn on the CPU, one stream per frame, so that batch size, window layout inside a group, device and resuming never
change it. What frames have in common is said by the classes below, the options of ``noise=``: whatever it is, the noise
of each frame by itself is unit normal.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor


def seed_of(*key: int | str) -> int:
    """A 63-bit seed from a key; stable across processes and versions."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def keyed_noise(
    seed: int,
    videos: Sequence[int],
    frames: range,
    shape: tuple[int, int, int],
    *,
    stage: str = "base",
    group: int = 0,
    step: int = -1,
) -> Tensor:
    """Unit normal noise (B, C, F, h, w) in float32 on the CPU; ``shape`` is (C, h, w) of one frame.

    ``videos`` are the videos' own indices (they key the noise, not their place in the batch); ``step`` -1 is the
    noise of the start.
    """
    noise = torch.empty(len(videos), shape[0], len(frames), *shape[1:])
    generator = torch.Generator()
    for b, video in enumerate(videos):
        for f, frame in enumerate(frames):
            generator.manual_seed(seed_of(seed, video, stage, group, frame, step))
            noise[b, :, f] = torch.randn(shape, generator=generator)
    return noise


class Prior(Protocol):
    """What the noise of a video's frames has in common."""

    def __call__(self, own: Tensor, common: Callable[[], Tensor]) -> Tensor:
        """The noise (B, C, F, h, w) of frames.

        Args:
            own: (B, C, F, h, w), drawn for each frame.
            common: Draws (B, C, 1, h, w), the same in all windows and groups of a video.
        """
        ...


class Independent:
    """Frames have nothing in common: what published models are trained and sampled with."""

    def __call__(self, own: Tensor, common: Callable[[], Tensor]) -> Tensor:
        """The frames' own noise."""
        return own


class SharedMean:
    """Frames have the mean of every channel in common.

    It is the part of the noise from which a model that is deterministic from there on makes tints: where it differs
    from frame to frame, flat grounds flicker.
    """

    def __call__(self, own: Tensor, common: Callable[[], Tensor]) -> Tensor:
        """The frames' own noise about the common mean."""
        return own - own.mean((3, 4), keepdim=True) + common().mean((3, 4), keepdim=True)


class Mixed:
    """Frames have a part of the whole noise in common: the mixed noise of PYoCo (arXiv 2305.10474).

    Args:
        share: Of the variance, 0 to 1; 0.5 is the paper's alpha = 1.
    """

    def __init__(self, share: float = 0.5) -> None:
        self.share = share

    def __call__(self, own: Tensor, common: Callable[[], Tensor]) -> Tensor:
        """The weighted sum, again of unit variance."""
        return math.sqrt(1 - self.share) * own + math.sqrt(self.share) * common()
