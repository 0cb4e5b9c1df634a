"""The four shapes as signed distances, and their anti-aliased coverage of the canvas."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

CANVAS = 64
"""Height and width of the world in pixels; pixel centres lie at 0..63, y points down."""

SHAPES = ("circle", "square", "triangle", "cross")

Floats = NDArray[np.float32]


def signed_distance(shape: str, x: Floats, y: Floats, size: Floats) -> Floats:
    """Distance in pixels to the outline, negative inside; (x, y) is relative to the centroid."""
    match shape:
        case "circle":
            return np.hypot(x, y) - 0.95 * size
        case "square":
            return np.maximum(np.abs(x), np.abs(y)) - 0.84 * size
        case "triangle":
            inradius = 0.65 * size
            return np.maximum(y, 0.866 * np.abs(x) - 0.5 * y) - inradius
        case "cross":
            length, width = 1.12 * size, 0.40 * size
            across = np.maximum(np.abs(x) - length, np.abs(y) - width)
            upright = np.maximum(np.abs(x) - width, np.abs(y) - length)
            return np.minimum(across, upright)
    raise ValueError(f"unknown shape {shape!r}; the world has {', '.join(SHAPES)}")


def coverage(shape: str, centre: ArrayLike, size: ArrayLike) -> Floats:
    """How much of every pixel a shape covers, in 0..1, with an edge one pixel wide.

    centre: (..., 2) as (x, y) in pixels; size: (...) in pixels; returns (..., CANVAS, CANVAS).
    """
    middle = np.asarray(centre, dtype=np.float32)[..., None, None, :]
    scale = np.asarray(size, dtype=np.float32)[..., None, None]
    pixels = np.arange(CANVAS, dtype=np.float32)
    x, y = pixels[None, :] - middle[..., 0], pixels[:, None] - middle[..., 1]
    return np.clip(0.5 - signed_distance(shape, x, y, scale), 0, 1)
