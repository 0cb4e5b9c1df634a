"""Which combinations of attributes training never shows.

Pairs (colour, shape) are never seen at all, triples (colour, shape, ground) never in any motion, and combinations
(colour, shape, ground, motion) never together; all are drawn at random, because a regular rule could be learnt.
"""

from itertools import product

import numpy as np

from vidgen_moving_shapes.motions import MOTIONS
from vidgen_moving_shapes.palette import COLOURS, GROUNDS
from vidgen_moving_shapes.shapes import SHAPES
from vidgen_moving_shapes.world import Entity

Image = tuple[Entity, str]
"""Entity and ground."""
Combination = tuple[Entity, str, str]
"""Entity, motion and ground."""

ENTITIES = tuple(Entity(colour, shape) for colour, shape in product(COLOURS, SHAPES))
IMAGES: tuple[Image, ...] = tuple(product(ENTITIES, GROUNDS))
COMBINATIONS: tuple[Combination, ...] = tuple(product(ENTITIES, MOTIONS, GROUNDS))

_SEED = 20
_UNSEEN_PAIRS, _UNSEEN_TRIPLES, _UNSEEN_COMBINATIONS = 2, 8, 56


def _draw_held_out() -> tuple[frozenset[Image], frozenset[Combination]]:
    rng = np.random.default_rng(_SEED)
    pairs = {ENTITIES[i] for i in rng.choice(len(ENTITIES), _UNSEEN_PAIRS, replace=False)}
    triples = {IMAGES[i] for i in rng.choice(len(IMAGES), _UNSEEN_TRIPLES, replace=False)}
    images = frozenset(image for image in IMAGES if image[0] in pairs or image in triples)
    drawn = {COMBINATIONS[i] for i in rng.choice(len(COMBINATIONS), _UNSEEN_COMBINATIONS, replace=False)}
    clips = frozenset(clip for clip in COMBINATIONS if clip in drawn or (clip[0], clip[2]) in images)
    return images, clips


HELD_OUT_IMAGES, HELD_OUT_COMBINATIONS = _draw_held_out()
TRAINING_IMAGES = tuple(image for image in IMAGES if image not in HELD_OUT_IMAGES)
TRAINING_COMBINATIONS = tuple(clip for clip in COMBINATIONS if clip not in HELD_OUT_COMBINATIONS)
