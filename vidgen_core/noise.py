"""Noise that depends on what is made and not on how: keyed by seed, video, stage, group, absolute frame and step.

Drawn on the CPU, one stream per frame, so that batch size, window layout inside a group, device and resuming never
change it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

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
