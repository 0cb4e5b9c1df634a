"""Captions: what the world says about an image, a clip, a pair of objects, and a story of scenes."""

import numpy as np

from vidgen_moving_shapes.motions import ENDLESS_MOTIONS, MOTIONS
from vidgen_moving_shapes.palette import COLOURS, GROUNDS
from vidgen_moving_shapes.shapes import SHAPES
from vidgen_moving_shapes.world import Entity

CONNECTIVES = (".", ",", "then", "a", "the", "on", "background", "in", "front", "of", "behind", "and", "it")

WORDS = tuple(
    dict.fromkeys(
        (
            *CONNECTIVES,
            *COLOURS,
            *SHAPES,
            *GROUNDS,
            *(word for m in (*MOTIONS, *ENDLESS_MOTIONS) for word in m.split()),
        )
    )
)
"""Every word that a caption can contain."""


def image_caption(entity: Entity, ground: str, article: str = "a") -> str:
    return f"{article} {entity.colour} {entity.shape} on a {ground} background"


def clip_caption(entity: Entity, motion: str, ground: str, article: str = "a") -> str:
    return f"{article} {entity.colour} {entity.shape} {motion} on a {ground} background"


def pair_caption(mover: Entity, motion: str, in_front: bool, other: Entity, ground: str) -> str:
    side = "in front of" if in_front else "behind"
    return f"a {mover.colour} {mover.shape} {motion} {side} a {other.colour} {other.shape} on a {ground} background"


def image_pair_caption(front: Entity, back: Entity, ground: str) -> str:
    return f"a {front.colour} {front.shape} in front of a {back.colour} {back.shape} on a {ground} background"


def shortened_caption(
    rng: np.random.Generator, entity: Entity, motion: str, ground: str, same_entity: bool, same_ground: bool
) -> str:
    """The caption of a later scene, which may omit what stays the same: "the circle moves up"."""
    colour = "" if same_entity and rng.random() < 0.5 else f"{entity.colour} "
    place = "" if same_ground and rng.random() < 0.5 else f" on a {ground} background"
    article = "the" if same_entity else "a"
    return f"{article} {colour}{entity.shape} {motion}{place}"
