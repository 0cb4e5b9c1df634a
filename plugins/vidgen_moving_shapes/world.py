"""Clips of the world: one or two flat objects on a flat ground, painted exactly, with exact depth and flow."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vidgen_moving_shapes.motions import Track, draw_track
from vidgen_moving_shapes.palette import GROUND_COLOURS, OBJECT_COLOURS, RGB, draw_tinted
from vidgen_moving_shapes.shapes import CANVAS, coverage

FRAMES_PER_SECOND = 8
CLIP_FRAMES = 16
"""Length of a short clip, and of each scene of a story."""

GROUND_NEARNESS, BACK_NEARNESS, FRONT_NEARNESS = 0.1, 0.45, 0.8


@dataclass(frozen=True)
class Entity:
    """What a caption says about an object."""

    colour: str
    shape: str


@dataclass(frozen=True)
class Layer:
    """An object as it is painted: its shape, its tinted colour (3,) in 0..255, and its track."""

    shape: str
    rgb: RGB
    track: Track

    def coverage(self) -> NDArray[np.float32]:
        """(F, CANVAS, CANVAS) in 0..1."""
        return coverage(self.shape, self.track.centre, self.track.size)


@dataclass(frozen=True)
class Scene:
    """A painted ground and its layers from back to front, all with the same number of frames."""

    ground: RGB
    layers: tuple[Layer, ...]

    def __getitem__(self, frames: slice) -> "Scene":
        """The same scene during some of its frames only."""
        return Scene(self.ground, tuple(replace(layer, track=layer.track[frames]) for layer in self.layers))

    def frames(self) -> NDArray[np.uint8]:
        """The picture, (F, CANVAS, CANVAS, 3) uint8."""
        picture = np.broadcast_to(self.ground, (len(self.layers[0].track), CANVAS, CANVAS, 3))
        for layer in self.layers:
            alpha = layer.coverage()[..., None]
            picture = picture + alpha * (layer.rgb - picture)
        return np.rint(picture).astype(np.uint8)

    def nearness(self) -> NDArray[np.float32]:
        """Relative inverse depth, (F, CANVAS, CANVAS) float32: 0.1 ground, 0.45 back object, 0.8 front object."""
        depth = np.full((len(self.layers[0].track), CANVAS, CANVAS), GROUND_NEARNESS, dtype=np.float32)
        levels = (BACK_NEARNESS, FRONT_NEARNESS)[-len(self.layers) :]
        for layer, level in zip(self.layers, levels, strict=True):
            depth[layer.coverage() > 0.5] = level
        return depth

    def flow(self) -> NDArray[np.float32]:
        """Motion of what is visible into the next frame, (F - 1, CANVAS, CANVAS, 2) as (x, y) pixels."""
        flow = np.zeros((len(self.layers[0].track) - 1, CANVAS, CANVAS, 2), dtype=np.float32)
        y, x = np.mgrid[:CANVAS, :CANVAS].astype(np.float32)
        pixels = np.stack([x, y], axis=-1)
        for layer in self.layers:
            centre, size = layer.track.centre[:, None, None], layer.track.size[:, None, None, None]
            moved = centre[1:] + (pixels - centre[:-1]) * size[1:] / size[:-1]
            visible = layer.coverage()[:-1] > 0.5
            flow[visible] = (moved - pixels)[visible]
        return flow


def draw_scene(rng: np.random.Generator, entity: Entity, motion: str, ground: str, frames: int = CLIP_FRAMES) -> Scene:
    """One object; tint, size, position and speed are drawn, everything that a caption mentions is given."""
    layer = Layer(entity.shape, draw_tinted(rng, OBJECT_COLOURS[entity.colour]), draw_track(rng, [(motion, frames)]))
    return Scene(draw_tinted(rng, GROUND_COLOURS[ground]), (layer,))


PAIR_SIZE = (10.0, 12.0)


def draw_pair_scene(
    rng: np.random.Generator,
    mover: Entity,
    motion: str,
    in_front: bool,
    other: Entity,
    ground: str,
    frames: int = CLIP_FRAMES,
) -> Scene:
    """An object that passes in front of, or behind, another one which stays where the first passes."""
    path = draw_track(rng, [(motion, frames)], PAIR_SIZE)
    stay = draw_track(rng, [("stays still", frames)], PAIR_SIZE)
    middle = path.centre.mean(axis=0) + rng.uniform(-5, 5, 2)
    stay = Track(np.broadcast_to(middle, path.centre.shape).astype(np.float32), stay.size)
    moving = Layer(mover.shape, draw_tinted(rng, OBJECT_COLOURS[mover.colour]), path)
    staying = Layer(other.shape, draw_tinted(rng, OBJECT_COLOURS[other.colour]), stay)
    return Scene(draw_tinted(rng, GROUND_COLOURS[ground]), (staying, moving) if in_front else (moving, staying))


def play(scenes: Sequence[Scene]) -> NDArray[np.uint8]:
    """The frames of consecutive scenes, (sum of F, CANVAS, CANVAS, 3) uint8."""
    return np.concatenate([scene.frames() for scene in scenes])
