"""The oracle: reads shape, colour, ground and motion back from the pixels of a clip of one object.

It knows the palette and the shapes, and nothing of the caption. A frame is the ground plus an object; how much a
pixel belongs to the object follows from its colour alone, and its shape is the template that overlaps best.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidgen_moving_shapes.motions import DIRECTIONS, GROWTH
from vidgen_moving_shapes.palette import COLOURS, GROUND_COLOURS, GROUNDS, OBJECT_COLOURS, nearest
from vidgen_moving_shapes.shapes import CANVAS, SHAPES, coverage

RING = 2
"""Width in pixels of the border that no object reaches."""
CLEAR_DISTANCE = 40.0
"""RGB distance from the ground at which a pixel certainly belongs to an object."""
UNIT_AREA = {"circle": 2.835, "square": 2.822, "triangle": 2.195, "cross": 2.944}
"""Area in square pixels of a shape of size 1."""
MOVING_SPEED = 0.45
"""Pixels a frame."""
GROWING_RATE = 0.21
"""Pixels of size a frame."""
LONG_CLIP = 20
"""Frames beyond which a clip can only show an endless motion."""
BOUNCING_SPREAD, PULSING_SPREAD = 2.5, 0.9
"""Standard deviation in pixels of the position, and of the size, over a long clip."""


@dataclass(frozen=True)
class FrameReading:
    """One frame; position (x, y) and size in pixels, overlap in 0..1 with the template of the shape."""

    shape: str
    colour: str
    ground: str
    position: tuple[float, float]
    size: float
    overlap: float


@dataclass(frozen=True)
class Reading:
    """A clip: majority votes over frames, the motion, and every frame for itself.

    `overlap` is how clean the object is, not how right: it is high for any tidy blob of the winning shape.
    """

    shape: str
    colour: str
    ground: str
    motion: str
    frames: tuple[FrameReading, ...]

    @property
    def positions(self) -> NDArray[np.float64]:
        """Centroids (F, 2) as (x, y) pixels."""
        return np.array([frame.position for frame in self.frames])

    @property
    def sizes(self) -> NDArray[np.float64]:
        """(F,) pixels."""
        return np.array([frame.size for frame in self.frames])

    @property
    def overlap(self) -> float:
        return float(np.mean([frame.overlap for frame in self.frames]))


def read(frames: NDArray[np.uint8]) -> Reading:
    """Read a clip of one object, (F, CANVAS, CANVAS, 3) uint8."""
    readings = tuple(read_frame(frame) for frame in frames)
    shape = vote([reading.shape for reading in readings])
    # Sizes of all frames by the clip's one shape: a frame read as another shape would make the size jump.
    areas = np.array([reading.size**2 * UNIT_AREA[reading.shape] for reading in readings])
    positions = np.array([reading.position for reading in readings])
    return Reading(
        shape,
        vote([reading.colour for reading in readings]),
        vote([reading.ground for reading in readings]),
        motion_of(positions, np.sqrt(areas / UNIT_AREA[shape])),
        readings,
    )


def read_frame(frame: NDArray[np.uint8]) -> FrameReading:
    """Read a picture of one object, (CANVAS, CANVAS, 3) uint8."""
    picture = frame.astype(np.float32)
    ground = np.median(_border(picture), axis=0)
    alpha, object_rgb = _opacity(picture, ground)
    area = max(float(alpha.sum()), 1.0)
    pixels = np.arange(CANVAS)
    position = (float((alpha.sum(axis=0) * pixels).sum()) / area, float((alpha.sum(axis=1) * pixels).sum()) / area)
    overlaps = [_overlap(alpha, shape, position, (area / UNIT_AREA[shape]) ** 0.5) for shape in SHAPES]
    best = int(np.argmax(overlaps))
    return FrameReading(
        SHAPES[best],
        COLOURS[nearest(object_rgb, OBJECT_COLOURS)],
        GROUNDS[nearest(ground, GROUND_COLOURS)],
        position,
        (area / UNIT_AREA[SHAPES[best]]) ** 0.5,
        overlaps[best],
    )


def object_mask(frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where a picture of one object shows it, (CANVAS, CANVAS)."""
    picture = frame.astype(np.float32)
    return _opacity(picture, np.median(_border(picture), axis=0))[0] > 0.5


def _border(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    inside = np.zeros(picture.shape[:2], dtype=bool)
    inside[RING:-RING, RING:-RING] = True
    return picture[~inside]


def _opacity(
    picture: NDArray[np.float32], ground: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How much every pixel shows the object (CANVAS, CANVAS) in 0..1, and the colour of the object (3,)."""
    away = picture - ground
    distance = np.linalg.norm(away, axis=-1)
    clear = distance > max(CLEAR_DISTANCE, 0.6 * float(np.quantile(distance, 0.97)))
    if not clear.any():
        return np.zeros(distance.shape, dtype=np.float32), ground
    object_rgb = np.median(picture[clear], axis=0)
    towards = object_rgb - ground
    alpha = np.clip(away @ towards / (towards @ towards), 0, 1)
    # A ground that is slightly uneven would otherwise add up to the area of an object.
    alpha[alpha < 0.15] = 0
    return alpha, object_rgb


def _overlap(alpha: NDArray[np.float32], shape: str, position: tuple[float, float], size: float) -> float:
    """Soft intersection over union with the template of a shape."""
    template = coverage(shape, position, size)
    return float(np.minimum(alpha, template).sum() / np.maximum(alpha, template).sum())


def motion_of(positions: NDArray[np.float64], sizes: NDArray[np.float64]) -> str:
    """The motion whose least-squares slope exceeds its threshold most, or that nothing moves."""
    if len(sizes) < 2:
        return "stays still"
    if len(sizes) > LONG_CLIP:
        return _endless_motion(positions, sizes)
    time = np.arange(len(sizes)) - (len(sizes) - 1) / 2
    x, y, growth = time @ np.column_stack([positions, sizes]) / (time @ time)
    strengths = {motion: (x * dx + y * dy) / MOVING_SPEED for motion, (dx, dy) in DIRECTIONS.items()}
    strengths |= {motion: growth * sign / GROWING_RATE for motion, sign in GROWTH.items()} | {"stays still": 1.0}
    return max(strengths, key=lambda motion: strengths[motion])


def _endless_motion(positions: NDArray[np.float64], sizes: NDArray[np.float64]) -> str:
    x, y = positions.std(axis=0) / BOUNCING_SPREAD
    strengths = {
        "bounces sideways": x,
        "bounces up and down": y,
        "pulses": float(sizes.std()) / PULSING_SPREAD,
        "stays still": 1.0,
    }
    return max(strengths, key=lambda motion: strengths[motion])


def vote(names: Sequence[str]) -> str:
    """The commonest, and of equally common ones the first."""
    return Counter(names).most_common(1)[0][0]
