"""The oracle for clips of two objects that overlap: who they are, who is in front, and who moves.

Every pixel belongs to the ground or to one of two colours. The object in front shows a whole shape in every frame;
of the one behind only what the front leaves visible can be compared with a template, so its place is searched for.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from vidgen_moving_shapes.oracle import CLEAR_DISTANCE, UNIT_AREA, motion_of
from vidgen_moving_shapes.palette import COLOURS, GROUND_COLOURS, GROUNDS, OBJECT_COLOURS, nearest
from vidgen_moving_shapes.shapes import CANVAS, SHAPES, coverage
from vidgen_moving_shapes.world import PAIR_SIZE, Entity

Masks = NDArray[np.bool_]

SIZES = np.arange(PAIR_SIZE[0] - 1, PAIR_SIZE[1] + 1.5, 0.5)
REACH = 10
"""Pixels on each side of the visible centroid in which the centre of a partly hidden object is searched."""
HALF = 15
"""Pixels that the largest shape reaches from its centre."""
CLEAREST_FRAMES = 4
"""Frames, those that show most of it, from which the shape of the object behind is read."""
EDGE_PIXELS = 30
"""A frame; the blended edge of one object can look like so many pixels of another colour."""
VISIBLE_PIXELS = 20
"""Fewer do not tell a place."""


@dataclass(frozen=True)
class ObjectReading:
    """An object of a clip: positions (F, 2) as (x, y) pixels, its motion, and where it is seen (F, CANVAS, CANVAS)."""

    entity: Entity
    positions: NDArray[np.float64]
    motion: str
    masks: Masks


@dataclass(frozen=True)
class PairReading:
    """Two objects on a ground, and how many pixels (F,) of the back one the front one hides."""

    ground: str
    front: ObjectReading
    back: ObjectReading
    hidden: NDArray[np.intp]


def read_pair(frames: NDArray[np.uint8], overlapping: NDArray[np.bool_] | None = None) -> PairReading | None:
    """Read a clip of two overlapping objects of different colours; None if there are no two colours.

    Args:
        frames: (F, CANVAS, CANVAS, 3) uint8.
        overlapping: (F,) the frames that tell which object is in front; all where it is not given, or there is none.
    """
    picture = frames.astype(np.float32)
    ground = np.median(np.concatenate([picture[:, 0].reshape(-1, 3), picture[:, -1].reshape(-1, 3)]), axis=0)
    found = _two_colours(picture, ground)
    if found is None:
        return None
    names, colours = found
    labels = np.linalg.norm(picture[..., None, :] - np.stack([ground, *colours]), axis=-1).argmin(axis=-1)
    masks = [labels == 1, labels == 2]
    telling = slice(None) if overlapping is None or not overlapping.any() else overlapping
    overlaps = [max(_whole_overlap(mask[telling], shape) for shape in SHAPES) for mask in masks]
    front, back = (0, 1) if overlaps[0] >= overlaps[1] else (1, 0)
    behind, whole = _read_back(masks[back], masks[front], names[back])
    return PairReading(
        GROUNDS[nearest(ground, GROUND_COLOURS)],
        _read_front(masks[front], names[front]),
        behind,
        (whole & masks[front]).sum(axis=(1, 2)),
    )


def _two_colours(
    picture: NDArray[np.float32], ground: NDArray[np.float32]
) -> tuple[list[str], list[NDArray[np.float32]]] | None:
    """Names and median colours of the two commonest object colours."""
    pixels = picture[np.linalg.norm(picture - ground, axis=-1) > CLEAR_DISTANCE]
    labels = nearest(pixels, OBJECT_COLOURS)
    if len(pixels) == 0:
        return None
    first = np.bincount(labels).argmax()
    # A blurred edge mixes an object with the ground, and the mixture can look like another colour of the palette.
    mixed = _from_mixtures(pixels, ground, np.median(pixels[labels == first], axis=0))
    own = np.linalg.norm(pixels - np.array([OBJECT_COLOURS[name] for name in COLOURS])[labels], axis=-1)
    counts = np.bincount(labels[(own < mixed) & (labels != first)], minlength=len(COLOURS))
    second = counts.argmax()
    if counts[second] < EDGE_PIXELS * len(picture):
        return None
    return [COLOURS[i] for i in (first, second)], [np.median(pixels[labels == i], axis=0) for i in (first, second)]


def _from_mixtures(
    pixels: NDArray[np.float32], one: NDArray[np.float32], other: NDArray[np.float32]
) -> NDArray[np.float32]:
    """RGB distance (N,) of pixels (N, 3) from the nearest mixture of two colours (3,)."""
    way = other - one
    share = np.clip((pixels - one) @ way / (way @ way), 0, 1)
    return np.linalg.norm(pixels - one - share[:, None] * way, axis=-1)


def _centroids(masks: Masks) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centroids (F, 2) and areas (F,), at least one pixel."""
    pixels = np.arange(CANVAS)
    areas = np.maximum(masks.sum(axis=(1, 2)), 1).astype(float)
    x, y = masks.sum(axis=1) @ pixels, masks.sum(axis=2) @ pixels
    return np.stack([x, y], axis=-1) / areas[:, None], areas


def _whole_overlap(masks: Masks, shape: str) -> float:
    """How well masks (F, H, W) look like a whole shape: the mean intersection over union."""
    centres, areas = _centroids(masks)
    whole = coverage(shape, centres, np.sqrt(areas / UNIT_AREA[shape])) > 0.5
    both, either = (whole & masks).sum(axis=(1, 2)), (whole | masks).sum(axis=(1, 2))
    return float((both / np.maximum(either, 1)).mean())


def _read_front(masks: Masks, colour: str) -> ObjectReading:
    shape = max(SHAPES, key=lambda shape: _whole_overlap(masks, shape))
    centres, areas = _centroids(masks)
    motion = motion_of(centres, np.sqrt(areas / UNIT_AREA[shape]))
    return ObjectReading(Entity(colour, shape), centres, motion, masks)


def _read_back(masks: Masks, hidden: Masks, colour: str) -> tuple[ObjectReading, Masks]:
    """The object, and all of it (F, H, W), hidden or not."""
    clearest = masks.sum(axis=(1, 2)).argsort()[-CLEAREST_FRAMES:]
    kinds = list(product(SHAPES, SIZES))
    templates = np.stack([_template(*kind) for kind in kinds])
    fits = np.mean([_locate(masks[i], hidden[i], templates)[0] for i in clearest], axis=0)
    best = int(fits.argmax())
    shape, size = kinds[best]
    # Where nothing is left to see, the object is taken to go on straight between the frames that show it.
    seen = np.flatnonzero(masks.sum(axis=(1, 2)) >= VISIBLE_PIXELS)
    if len(seen) == 0:
        seen = np.sort(clearest)
    places = np.concatenate([_locate(masks[i], hidden[i], templates[best : best + 1])[1] for i in seen])
    positions = np.column_stack([np.interp(np.arange(len(masks)), seen, places[:, axis]) for axis in (0, 1)])
    sizes = np.full(len(positions), size)
    reading = ObjectReading(Entity(colour, shape), positions, motion_of(positions, sizes), masks)
    return reading, coverage(shape, positions, sizes) > 0.5


def _template(shape: str, size: float) -> NDArray[np.float32]:
    """A shape in the middle of a square, (2 HALF + 1, 2 HALF + 1), 0 or 1."""
    middle = CANVAS // 2
    part = slice(middle - HALF, middle + HALF + 1)
    whole = coverage(shape, (middle, middle), size)[part, part] > 0.5
    return whole.astype(np.float32)


def _locate(
    mask: Masks, hidden: Masks, templates: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The best intersection over union (T,) of templates (T, h, w) with a visible mask (H, W), outside what is hidden,
    over all places around it, and the centres (T, 2) there."""
    middle = np.rint(_centroids(mask[None])[0][0]).astype(int)
    shapes = templates.reshape(len(templates), -1).T
    both, inside = (_around(part, middle, templates.shape[-1]) @ shapes for part in (mask, ~hidden))
    agreement = both / np.maximum(inside + mask.sum() - both, 1)
    places = agreement.argmax(axis=0)
    offsets = np.stack(np.divmod(places, 2 * REACH + 1)[::-1], axis=-1) - REACH
    return agreement.max(axis=0), (middle + offsets).astype(float)


def _around(mask: Masks, middle: NDArray[np.intp], side: int) -> NDArray[np.float32]:
    """The squares of a mask around every place within REACH of a pixel (x, y): (places, side * side), row by row."""
    edge = REACH + HALF
    padded = np.pad(mask, edge).astype(np.float32)
    x, y = middle
    squares = sliding_window_view(padded[y : y + 2 * edge + 1, x : x + 2 * edge + 1], (side, side))
    return squares.reshape(-1, side * side)
