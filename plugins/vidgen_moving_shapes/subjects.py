"""What a model is asked to show when it is scored: a caption, a rendered truth, and how the oracle reads the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidgen_moving_shapes import oracle
from vidgen_moving_shapes.captions import clip_caption, image_caption, pair_caption
from vidgen_moving_shapes.combinations import HELD_OUT_COMBINATIONS, HELD_OUT_IMAGES, TRAINING_COMBINATIONS, Combination
from vidgen_moving_shapes.motions import MOTIONS
from vidgen_moving_shapes.pair_oracle import read_pair
from vidgen_moving_shapes.training.images import PAIR_MOTIONS, draw_pair_image
from vidgen_moving_shapes.world import (
    BACK_NEARNESS,
    CLIP_FRAMES,
    FRONT_NEARNESS,
    GROUND_NEARNESS,
    Entity,
    Scene,
    draw_pair_scene,
    draw_scene,
)

Frames = NDArray[np.uint8]
Marks = dict[str, float]
"""Attribute -> 1 right or 0 wrong; attributes that end in ``_iou`` are shares."""


@dataclass(frozen=True)
class Subject:
    """One question: ``mark`` takes the answer's frames (F, CANVAS, CANVAS, 3)."""

    caption: str
    scene: Scene
    mark: Callable[[Frames], Marks]


def subjects_of(kind: str, count: int, seed: int) -> dict[str, list[Subject]]:
    """Named sets of ``count`` subjects each for a kind of model; the same seed asks the same."""
    return {name: draw(np.random.default_rng([seed, place]), count) for place, (name, draw) in enumerate(SETS[kind])}


def choose(rng: np.random.Generator, combinations: Sequence[Combination], count: int) -> list[Combination]:
    """Random combinations, the motions in turn so that each has an equal share."""
    by_motion = [[c for c in combinations if c[1] == motion] for motion in MOTIONS]
    groups = [group for group in by_motion if group]
    return [groups[i % len(groups)][int(rng.integers(len(groups[i % len(groups)])))] for i in range(count)]


# ------------------------------------------------------------------------------------------------- sets

HELD_OUT = sorted(HELD_OUT_COMBINATIONS, key=str)
"""In an order that does not depend on hashing."""
HELD_OUT_PICTURES = [c for c in HELD_OUT if (c[0], c[2]) in HELD_OUT_IMAGES]

Draw = Callable[[np.random.Generator, int], list[Subject]]


def clips(combinations: Sequence[Combination]) -> Draw:
    """Clips of one object."""

    def draw(rng: np.random.Generator, count: int) -> list[Subject]:
        return [
            Subject(clip_caption(*c), draw_scene(rng, *c), _single_marks(c, motion=True))
            for c in choose(rng, combinations, count)
        ]

    return draw


def pictures(combinations: Sequence[Combination], depth: bool = False) -> Draw:
    """Single frames of one object; with ``depth`` it is also told whether the object is where the depth has it."""

    def draw(rng: np.random.Generator, count: int) -> list[Subject]:
        subjects = []
        for entity, motion, ground in choose(rng, combinations, count):
            moment = int(rng.integers(CLIP_FRAMES))
            scene = draw_scene(rng, entity, motion, ground)[moment : moment + 1]
            marks = _single_marks((entity, motion, ground), motion=False)
            subjects.append(
                Subject(image_caption(entity, ground), scene, _with_depth(marks, scene) if depth else marks)
            )
        return subjects

    return draw


def pictures_of_two(rng: np.random.Generator, count: int) -> list[Subject]:
    """Single frames of an object before another, both of training combinations, with their depth."""
    subjects = []
    for _ in range(count):
        scene, caption, _ = draw_pair_image(rng, TRAINING_COMBINATIONS)
        words = caption.split()
        behind = words.index("of")
        front, back = Entity(words[1], words[2]), Entity(words[behind + 2], words[behind + 3])
        subjects.append(Subject(caption, scene, _pair_marks(front, back, words[-2], scene)))
    return subjects


def clips_of_two(rng: np.random.Generator, count: int) -> list[Subject]:
    """Clips of an object that passes before or behind another."""
    subjects: list[Subject] = []
    while len(subjects) < count:
        mover, motion, ground = TRAINING_COMBINATIONS[int(rng.integers(len(TRAINING_COMBINATIONS)))]
        other = TRAINING_COMBINATIONS[int(rng.integers(len(TRAINING_COMBINATIONS)))][0]
        if other.colour == mover.colour:
            continue
        motion, in_front = PAIR_MOTIONS[int(rng.integers(len(PAIR_MOTIONS)))], bool(rng.random() < 0.5)
        scene = draw_pair_scene(rng, mover, motion, in_front, other, ground)
        front, back = (mover, other) if in_front else (other, mover)
        marks = _pair_marks(front, back, ground, scene, motion, in_front)
        subjects.append(Subject(pair_caption(mover, motion, in_front, other, ground), scene, marks))
    return subjects


SETS: Mapping[str, Sequence[tuple[str, Draw]]] = {
    "text_to_video": (("training", clips(TRAINING_COMBINATIONS)), ("held-out", clips(HELD_OUT))),
    "text_to_image": (("training", pictures(TRAINING_COMBINATIONS)), ("held-out", pictures(HELD_OUT_PICTURES))),
    "depth_to_image": (
        ("training", pictures(TRAINING_COMBINATIONS, depth=True)),
        ("held-out", pictures(HELD_OUT_PICTURES, depth=True)),
        ("two objects", pictures_of_two),
    ),
    "oracle": (
        ("clips", clips([*TRAINING_COMBINATIONS, *HELD_OUT])),
        ("pictures", pictures([*TRAINING_COMBINATIONS, *HELD_OUT], depth=True)),
        ("clips of two objects", clips_of_two),
        ("pictures of two objects", pictures_of_two),
    ),
}
"""What each kind of model is asked; ``oracle`` asks the painter itself, which calibrates all others."""


# ------------------------------------------------------------------------------------------------ marks


def _single_marks(wanted: Combination, motion: bool) -> Callable[[Frames], Marks]:
    entity, moves, ground = wanted

    def mark(frames: Frames) -> Marks:
        found = oracle.read(frames)
        marks = {
            "shape": float(found.shape == entity.shape),
            "colour": float(found.colour == entity.colour),
            "ground": float(found.ground == ground),
        }
        return marks | ({"motion": float(found.motion == moves)} if motion else {})

    return mark


def _with_depth(marks: Callable[[Frames], Marks], scene: Scene) -> Callable[[Frames], Marks]:
    wanted = scene.nearness() > GROUND_NEARNESS

    def mark(frames: Frames) -> Marks:
        found = np.stack([oracle.object_mask(frame) for frame in frames])
        return marks(frames) | {"depth_iou": overlap(found, wanted)}

    return mark


def _pair_marks(
    front: Entity, back: Entity, ground: str, scene: Scene, motion: str = "", front_moves: bool = True
) -> Callable[[Frames], Marks]:
    nearness = scene.nearness()

    def mark(frames: Frames) -> Marks:
        names = ["ground", "front_shape", "front_colour", "back_shape", "back_colour", *(["motion"] if motion else [])]
        found = read_pair(frames)
        if found is None:
            return dict.fromkeys([*names, "front_iou", "back_iou"], 0.0)
        right = [
            found.ground == ground,
            found.front.entity.shape == front.shape,
            found.front.entity.colour == front.colour,
            found.back.entity.shape == back.shape,
            found.back.entity.colour == back.colour,
            *([(found.front if front_moves else found.back).motion == motion] if motion else []),
        ]
        return dict(zip(names, map(float, right), strict=True)) | {
            "front_iou": overlap(found.front.masks, np.isclose(nearness, FRONT_NEARNESS)),
            "back_iou": overlap(found.back.masks, np.isclose(nearness, BACK_NEARNESS)),
        }

    return mark


def overlap(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks."""
    return float((first & second).sum() / max((first | second).sum(), 1))
