"""What an object can do, and the tracks (centres and sizes over time) that result.

A motion is named by the words that caption it. Every motion is a velocity and a growth per frame; a track adds
them up and then draws its start so that the object never touches the border.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidgen_moving_shapes.shapes import CANVAS

DIRECTIONS: dict[str, tuple[int, int]] = {
    "moves left": (-1, 0),
    "moves right": (1, 0),
    "moves up": (0, -1),
    "moves down": (0, 1),
}
"""Unit velocity as (x, y), y down."""

GROWTH: dict[str, int] = {"grows": 1, "shrinks": -1}

MOTIONS = (*DIRECTIONS, "stays still", *GROWTH)
"""The motions of short clips: over more than about 20 frames they would run into the border."""

BOUNCES: dict[str, tuple[int, int]] = {"bounces sideways": (1, 0), "bounces up and down": (0, 1)}

ENDLESS_MOTIONS = (*BOUNCES, "pulses", "stays still")
"""The motions of long clips: they reverse before the border, so they have no end."""

REVERSED = {
    "moves left": "moves right",
    "moves right": "moves left",
    "moves up": "moves down",
    "moves down": "moves up",
    "grows": "shrinks",
    "shrinks": "grows",
}
"""What a motion is called when its frames are played backwards; absent motions keep their name."""

SPEED = (1.1, 1.5)
"""Pixels a frame: fast enough that 16 frames cross most of the free canvas, so the word shows in every clip."""
GROWTH_RATE = (0.35, 0.42)
"""Pixels of size a frame."""
STEADY_SIZE = (12.0, 15.0)
CHANGING_SIZE = (9.0, 15.0)
BOUNCE_SPAN = (14.0, 20.0)
"""Pixels between the turning points of a bounce."""

ATTEMPTS = 200


class DoesNotFit(ValueError):
    """The motions asked for leave the canvas, or the range of sizes, within the frames asked for."""


@dataclass(frozen=True)
class Track:
    """Where an object is: centre (F, 2) as (x, y) pixels and size (F,) pixels, float32."""

    centre: NDArray[np.float32]
    size: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.size)

    def __getitem__(self, frames: slice) -> "Track":
        return Track(self.centre[frames], self.size[frames])


def margin(size: float) -> float:
    """Pixels that the centre of an object keeps from the border; no shape reaches further than 1.12 sizes."""
    return 1.2 * size + 1


def draw_track(
    rng: np.random.Generator,
    motions: Sequence[tuple[str, int]],
    steady_size: tuple[float, float] = STEADY_SIZE,
) -> Track:
    """One object that performs (motion, number of frames) pairs one after the other without a jump."""
    for _ in range(ATTEMPTS):
        track = _try_track(rng, motions, steady_size)
        if track is not None:
            return track
    raise DoesNotFit(f"no track on a canvas of {CANVAS} pixels performs {list(motions)}")


def _try_track(
    rng: np.random.Generator, motions: Sequence[tuple[str, int]], steady_size: tuple[float, float]
) -> Track | None:
    speed, rate = rng.uniform(*SPEED), rng.uniform(*GROWTH_RATE)
    steps = [_steps(rng, motion, frames, speed, rate) for motion, frames in motions]
    velocity, growth = (np.concatenate(parts) for parts in zip(*steps, strict=True))
    velocity[0], growth[0] = 0, 0
    offset, gain = velocity.cumsum(axis=0), growth.cumsum()

    size_range = CHANGING_SIZE if growth.any() else steady_size
    size = _draw_start(rng, size_range[0] - gain.min(), size_range[1] - gain.max())
    if size is None:
        return None
    edge = margin(float(size + gain.max()))
    low, high = edge - offset.min(axis=0), CANVAS - 1 - edge - offset.max(axis=0)
    x, y = _draw_start(rng, low[0], high[0]), _draw_start(rng, low[1], high[1])
    if x is None or y is None:
        return None
    centre = np.array([x, y]) + offset
    return Track(centre.astype(np.float32), (size + gain).astype(np.float32))


def _draw_start(rng: np.random.Generator, low: float, high: float) -> float | None:
    return None if low > high else float(rng.uniform(low, high))


def _steps(
    rng: np.random.Generator, motion: str, frames: int, speed: float, rate: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Velocity (frames, 2) and growth (frames,) into each frame."""
    velocity, growth = np.zeros((frames, 2)), np.zeros(frames)
    if motion in DIRECTIONS:
        velocity[:] = speed * np.array(DIRECTIONS[motion])
    elif motion in GROWTH:
        growth[:] = rate * GROWTH[motion]
    elif motion in BOUNCES:
        velocity[:] = _to_and_fro(rng, frames, speed, rng.uniform(*BOUNCE_SPAN))[:, None] * BOUNCES[motion]
    elif motion == "pulses":
        growth[:] = _to_and_fro(rng, frames, rate, CHANGING_SIZE[1] - CHANGING_SIZE[0])
    elif motion != "stays still":
        raise ValueError(f"unknown motion {motion!r}; the world has {', '.join(MOTIONS + ENDLESS_MOTIONS)}")
    return velocity, growth


def _to_and_fro(rng: np.random.Generator, frames: int, step: float, span: float) -> NDArray[np.float64]:
    """Increments (frames,) of a triangle wave that starts anywhere in its period."""
    phase = rng.uniform(0, 2 * span) + step * np.arange(frames + 1)
    wave = np.abs(phase % (2 * span) - span)
    return np.diff(wave)
