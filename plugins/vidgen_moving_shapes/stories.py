"""Stories: scenes in which the caption changes at a frame boundary, and what it does not mention stays the same."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vidgen_moving_shapes.captions import clip_caption, shortened_caption
from vidgen_moving_shapes.combinations import COMBINATIONS, Combination
from vidgen_moving_shapes.motions import ATTEMPTS, DoesNotFit, draw_track
from vidgen_moving_shapes.palette import GROUND_COLOURS, OBJECT_COLOURS, draw_tinted
from vidgen_moving_shapes.world import CLIP_FRAMES, Layer, Scene, play

Change = Literal["motion", "entity", "ground"]
"""What is new in the next scene: the motion alone; the object on the same ground; the ground under the same object."""
CHANGES: tuple[Change, ...] = get_args(Change)


@dataclass(frozen=True)
class Story:
    """Consecutive scenes, what each of them shows, and a caption for each."""

    scenes: tuple[Scene, ...]
    combinations: tuple[Combination, ...]
    captions: tuple[str, ...]

    def frames(self) -> NDArray[np.uint8]:
        """(sum of the scenes' frames, CANVAS, CANVAS, 3) uint8."""
        return play(self.scenes)


def draw_story(
    rng: np.random.Generator,
    changes: Sequence[Change],
    frames_per_scene: int = CLIP_FRAMES,
    allowed: Collection[Combination] = COMBINATIONS,
) -> Story:
    """A story of len(changes) + 1 scenes whose every scene shows an allowed combination."""
    for _ in range(ATTEMPTS):
        try:
            combinations = _draw_combinations(rng, changes, tuple(allowed))
            return Story(
                tuple(_draw_scenes(rng, combinations, frames_per_scene)),
                combinations,
                tuple(_draw_captions(rng, combinations)),
            )
        except DoesNotFit:
            continue
    raise DoesNotFit(f"no story with the changes {list(changes)} fits {frames_per_scene} frames a scene")


def _draw_combinations(
    rng: np.random.Generator, changes: Sequence[Change], allowed: tuple[Combination, ...]
) -> tuple[Combination, ...]:
    combinations = [allowed[rng.integers(len(allowed))]]
    for change in changes:
        candidates = [c for c in allowed if _is_change(change, combinations[-1], c)]
        if not candidates:
            raise DoesNotFit(f"nothing allowed follows {combinations[-1]}")
        combinations.append(candidates[rng.integers(len(candidates))])
    return tuple(combinations)


def _is_change(change: Change, before: Combination, after: Combination) -> bool:
    same_entity, same_motion, same_ground = (a == b for a, b in zip(before, after, strict=True))
    match change:
        case "motion":
            return same_entity and same_ground and not same_motion
        case "entity":
            return not same_entity and same_ground
        case "ground":
            return same_entity and not same_ground
    raise ValueError(f"unknown change {change!r}; a story knows {', '.join(CHANGES)}")


def _draw_scenes(rng: np.random.Generator, combinations: Sequence[Combination], frames_per_scene: int) -> list[Scene]:
    """An object goes on where it was and keeps its tint, and so does a ground."""
    scenes: list[Scene] = []
    ground = ""
    for entity, group in groupby(combinations, key=lambda combination: combination[0]):
        run = list(group)
        track = draw_track(rng, [(motion, frames_per_scene) for _, motion, _ in run])
        rgb = draw_tinted(rng, OBJECT_COLOURS[entity.colour])
        for index, (_, _, place) in enumerate(run):
            if place != ground:
                ground, ground_rgb = place, draw_tinted(rng, GROUND_COLOURS[place])
            part = track[index * frames_per_scene : (index + 1) * frames_per_scene]
            scenes.append(Scene(ground_rgb, (Layer(entity.shape, rgb, part),)))
    return scenes


def _draw_captions(rng: np.random.Generator, combinations: Sequence[Combination]) -> list[str]:
    captions = [clip_caption(*combinations[0])]
    for before, after in pairwise(combinations):
        same_entity, same_ground = before[0] == after[0], before[2] == after[2]
        captions.append(shortened_caption(rng, *after, same_entity, same_ground))
    return captions
