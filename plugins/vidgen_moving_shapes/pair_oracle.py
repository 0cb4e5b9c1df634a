"""The oracle for clips of two objects that overlap: who they are, who is in front, and who moves.

Every pixel belongs to the ground or to one of two colours. The object in front shows a whole shape in every frame;
of the one behind only what the front leaves visible can be compared with a template, so its place is searched for.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from vidgen_moving_shapes.oracle import CLEAR_DISTANCE, UNIT_AREA, motion_of
from vidgen_moving_shapes.palette import COLOURS, GROUND_COLOURS, GROUNDS, OBJECT_COLOURS, nearest
from vidgen_moving_shapes.shapes import CANVAS, SHAPES, coverage
from vidgen_moving_shapes.world import PAIR_SIZE, Entity

Masks = NDArray[np.bool_]

SIZES = np.arange(PAIR_SIZE[0] - 1, PAIR_SIZE[1] + 1.5, 0.5)
COARSE, FINE = np.arange(-10, 11, 2), np.arange(-1, 2)
"""Offsets in pixels from the visible centroid, and from the best coarse place."""
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
    ground: str
    front: ObjectReading
    back: ObjectReading


def read_pair(frames: NDArray[np.uint8]) -> PairReading | None:
    """Read a clip of two overlapping objects of different colours, (F, CANVAS, CANVAS, 3) uint8; None if there are
    no two colours."""
    picture = frames.astype(np.float32)
    ground = np.median(np.concatenate([picture[:, 0].reshape(-1, 3), picture[:, -1].reshape(-1, 3)]), axis=0)
    found = _two_colours(picture, ground)
    if found is None:
        return None
    names, colours = found
    labels = np.linalg.norm(picture[..., None, :] - np.stack([ground, *colours]), axis=-1).argmin(axis=-1)
    masks = [labels == 1, labels == 2]
    overlaps = [max(_whole_overlap(mask, shape) for shape in SHAPES) for mask in masks]
    front, back = (0, 1) if overlaps[0] >= overlaps[1] else (1, 0)
    return PairReading(
        GROUNDS[nearest(ground, GROUND_COLOURS)],
        _read_front(masks[front], names[front]),
        _read_back(masks[back], masks[front], names[back]),
    )


def _two_colours(
    picture: NDArray[np.float32], ground: NDArray[np.float32]
) -> tuple[list[str], list[NDArray[np.float32]]] | None:
    """Names and median colours of the two commonest object colours."""
    pixels = picture[np.linalg.norm(picture - ground, axis=-1) > CLEAR_DISTANCE]
    labels = nearest(pixels, OBJECT_COLOURS)
    counts = np.bincount(labels, minlength=len(COLOURS))
    first, second = counts.argsort()[::-1][:2]
    if counts[second] < EDGE_PIXELS * len(picture):
        return None
    return [COLOURS[i] for i in (first, second)], [np.median(pixels[labels == i], axis=0) for i in (first, second)]


def _centroids(masks: Masks) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centroids (F, 2) and areas (F,), at least one pixel."""
    pixels = np.arange(CANVAS)
    areas = np.maximum(masks.sum(axis=(1, 2)), 1).astype(float)
    x, y = masks.sum(axis=1) @ pixels, masks.sum(axis=2) @ pixels
    return np.stack([x, y], axis=-1) / areas[:, None], areas


def _agreement(templates: NDArray[np.float32], mask: Masks, hidden: Masks) -> NDArray[np.float32]:
    """Intersection over union (...) of templates (..., H, W) with a mask, outside what is hidden."""
    inside = (templates > 0.5) & ~hidden
    union = (inside | mask).sum(axis=(-2, -1))
    return (inside & mask).sum(axis=(-2, -1)) / np.maximum(union, 1)


def _whole_overlap(masks: Masks, shape: str) -> float:
    """How well masks (F, H, W) look like a whole shape."""
    centres, areas = _centroids(masks)
    templates = coverage(shape, centres, np.sqrt(areas / UNIT_AREA[shape]))
    return float(_agreement(templates, masks, np.zeros_like(masks)).mean())


def _read_front(masks: Masks, colour: str) -> ObjectReading:
    shape = max(SHAPES, key=lambda shape: _whole_overlap(masks, shape))
    centres, areas = _centroids(masks)
    motion = motion_of(centres, np.sqrt(areas / UNIT_AREA[shape]))
    return ObjectReading(Entity(colour, shape), centres, motion, masks)


def _read_back(masks: Masks, hidden: Masks, colour: str) -> ObjectReading:
    clearest = masks.sum(axis=(1, 2)).argsort()[-CLEAREST_FRAMES:]
    scores = {
        (shape, size): np.mean([_locate(masks[i], hidden[i], shape, size)[0] for i in clearest])
        for shape, size in product(SHAPES, SIZES)
    }
    shape, size = max(scores, key=lambda key: scores[key])
    # Where nothing is left to see, the object is taken to go on straight between the frames that show it.
    seen = np.flatnonzero(masks.sum(axis=(1, 2)) >= VISIBLE_PIXELS)
    if len(seen) == 0:
        seen = np.sort(clearest)
    places = np.array([_locate(masks[i], hidden[i], shape, size)[1] for i in seen])
    positions = np.column_stack([np.interp(np.arange(len(masks)), seen, places[:, axis]) for axis in (0, 1)])
    motion = motion_of(positions, np.full(len(positions), size))
    return ObjectReading(Entity(colour, shape), positions, motion, masks)


def _locate(mask: Masks, hidden: Masks, shape: str, size: float) -> tuple[float, NDArray[np.float64]]:
    """The best agreement of a partly hidden shape with its visible mask (H, W), and the centre (2,) there."""
    centre, score = _centroids(mask[None])[0][0], 0.0
    for offsets in (COARSE, FINE):
        places = centre + np.stack(np.meshgrid(offsets, offsets), axis=-1).reshape(-1, 2)
        agreements = _agreement(coverage(shape, places, np.full(len(places), size)), mask, hidden)
        centre, score = places[agreements.argmax()], float(agreements.max())
    return score, centre
