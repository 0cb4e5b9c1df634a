"""The eleven colours of the world, far enough apart that the nearest entry is a safe classification."""

import numpy as np
from numpy.typing import NDArray

RGB = NDArray[np.float32]
"""A colour as (3,) float32 in 0..255."""

OBJECT_COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 40, 40),
    "green": (40, 170, 60),
    "blue": (40, 80, 225),
    "yellow": (240, 215, 40),
    "purple": (150, 50, 190),
    "cyan": (50, 205, 215),
}

GROUND_COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (240, 240, 240),
    "black": (15, 15, 15),
    "gray": (128, 128, 128),
    "pink": (250, 160, 190),
    "brown": (120, 75, 40),
}

COLOURS = tuple(OBJECT_COLOURS)
GROUNDS = tuple(GROUND_COLOURS)

TINT_DEVIATION = 0.08 * 127.5
"""Standard deviation of the un-captioned tint, per channel in 0..255 (0.08 of the [-1, 1] range)."""


def draw_tinted(rng: np.random.Generator, rgb: tuple[int, int, int]) -> RGB:
    """A colour of the palette with a tint that no caption mentions, (3,) in 0..255."""
    return np.clip(np.asarray(rgb) + rng.normal(0, TINT_DEVIATION, 3), 0, 255).astype(np.float32)


def nearest(rgb: NDArray[np.floating], palette: dict[str, tuple[int, int, int]]) -> NDArray[np.intp]:
    """Index into `palette` of the nearest entry (RGB Euclid) for every colour of `rgb` (..., 3)."""
    entries = np.asarray(list(palette.values()), dtype=np.float32)
    return np.linalg.norm(rgb[..., None, :] - entries, axis=-1).argmin(axis=-1)
