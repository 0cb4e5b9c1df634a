"""What captions say happens: every scene's entity, motion and ground, with what is left out carried over."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

import numpy as np

from vidgen_core.errors import BadRequest
from vidgen_moving_shapes.captions import clip_caption
from vidgen_moving_shapes.combinations import COMBINATIONS, TRAINING_COMBINATIONS, Combination
from vidgen_moving_shapes.motions import ENDLESS_MOTIONS, MOTIONS
from vidgen_moving_shapes.palette import COLOURS, GROUNDS
from vidgen_moving_shapes.shapes import SHAPES
from vidgen_moving_shapes.stories import CHANGES, Story, draw_story
from vidgen_moving_shapes.world import Entity

ALLOWED: Mapping[str, Collection[Combination]] = {"training": TRAINING_COMBINATIONS, "all": COMBINATIONS}
"""Which combinations a comparison tells of: those that training shows, or every one."""


def told(captions: Sequence[str]) -> tuple[Combination, ...]:
    """What each scene is to show: (entity, motion, ground). A later caption may leave out what stays the same.

    Raises BadRequest for a caption that is none of this world's.
    """
    scenes: list[Combination] = []
    for caption in captions:
        words = caption.lower().replace(".", " ").replace(",", " ").split()
        text = f" {' '.join(words)} "
        motion = next((m for m in dict.fromkeys((*MOTIONS, *ENDLESS_MOTIONS)) if f" {m} " in text), None)
        found = {
            "colour": [word for word in words if word in COLOURS],
            "shape": [word for word in words if word in SHAPES],
            "ground": [word for word in words if word in GROUNDS],
        }
        several = next((name for name, values in found.items() if len(values) > 1), None)
        if several:
            raise BadRequest(f"The caption '{caption}' names more than one {several}; the oracle reads one object.")
        before = {}
        if scenes:
            entity, _, ground = scenes[-1]
            before = {"colour": entity.colour, "shape": entity.shape, "ground": ground}
        now = {**before, **{name: values[0] for name, values in found.items() if values}}
        missing = [name for name in found if name not in now] + ([] if motion else ["motion"])
        if missing:
            raise BadRequest(
                f"The caption '{caption}' names no {missing[0]} of Moving Shapes, and no scene before it does. The "
                "oracle reads stories such as 'a red circle moves left on a white background', 'the circle moves up'."
            )
        assert motion is not None
        scenes.append((Entity(now["colour"], now["shape"]), motion, now["ground"]))
    return tuple(scenes)


def brief_captions(combinations: Sequence[Combination]) -> tuple[str, ...]:
    """A full first caption; later ones leave out whatever stays the same: "the circle moves up"."""
    (entity, motion, ground), *_ = combinations
    captions = [f"a {entity.colour} {entity.shape} {motion} on a {ground} background"]
    for before, (entity, motion, ground) in pairwise(combinations):
        who = f"the {entity.shape}" if entity == before[0] else f"a {entity.colour} {entity.shape}"
        where = "" if ground == before[2] else f" on a {ground} background"
        captions.append(f"{who} {motion}{where}")
    return tuple(captions)


def draw_stories(
    n: int,
    scenes: Sequence[int] = (2, 3, 4),
    scene_frames: int = 8,
    combinations: str = "training",
    seed: int = 0,
) -> dict[str, tuple[Story, tuple[str, ...]]]:
    """Name -> story as it is rendered, and its brief captions; changes of motion, entity and ground are mixed.

    Args:
        n: How many; a larger number begins with the same stories.
        scenes: Numbers of scenes, in turn: an equal share each.
        scene_frames: Frames of each scene of the rendering.
        combinations: ``training`` or ``all``.
    """
    allowed = ALLOWED[combinations]
    stories = {}
    for number in range(n):
        rng = np.random.default_rng([seed, number])
        changes = [CHANGES[i] for i in rng.integers(len(CHANGES), size=scenes[number % len(scenes)] - 1)]
        story = draw_story(rng, changes, scene_frames, allowed)
        stories[f"story_{number:03d}"] = (story, brief_captions(story.combinations))
    return stories


def story_captions(
    n: int,
    scenes: Sequence[int] | int = (2, 3, 4),
    scene_frames: int = 8,
    combinations: str = "training",
    seed: int = 0,
) -> dict[str, tuple[str, ...]]:
    """Name -> captions of ``draw_stories``; one number of scenes may stand for a list of one."""
    scenes = [scenes] if isinstance(scenes, int) else scenes
    if any(type(count) is not int or count < 2 for count in scenes) or not scenes:
        raise BadRequest(f"scenes={list(scenes)}: a story has at least two scenes. Write scenes=[2,3,4].")
    return {name: captions for name, (_, captions) in draw_stories(n, scenes, scene_frames, combinations, seed).items()}


def long_captions(n: int, combinations: str = "training", seed: int = 0) -> dict[str, tuple[str, ...]]:
    """Name -> one caption of an object that moves for as long as is asked; a larger number begins with the same.

    Args:
        combinations: ``training`` or ``all``: of object and ground; every motion that has no end goes with each.
    """
    motions = [motion for motion in ENDLESS_MOTIONS if motion != "stays still"]
    pairs = sorted({(entity.colour, entity.shape, ground) for entity, _, ground in ALLOWED[combinations]})
    captions: dict[str, tuple[str, ...]] = {}
    for number in range(n):
        rng = np.random.default_rng([seed, number])
        colour, shape, ground = pairs[rng.integers(len(pairs))]
        motion = motions[number % len(motions)]
        captions[f"video_{number:03d}"] = (clip_caption(Entity(colour, shape), motion, ground),)
    return captions
