"""The captioned pictures that the image models train on, painted as they are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vidgen_core.data.sample import Batch, Draw, Sample
from vidgen_core.errors import BadRequest
from vidgen_moving_shapes.captions import clip_caption, image_caption, image_pair_caption
from vidgen_moving_shapes.combinations import COMBINATIONS, ENTITIES, TRAINING_COMBINATIONS, Combination
from vidgen_moving_shapes.palette import GROUNDS
from vidgen_moving_shapes.world import CLIP_FRAMES, Entity, Scene, draw_pair_scene, draw_scene

THE_SHARE = 0.1
PAIR_MOTIONS = ("moves left", "moves right")
VISIBLE_SHARE = 0.35
"""Of the object behind; with less of it left, its shape could not be told."""


class Images:
    """Endless single frames of clips, of one object or of two that overlap.

    Args:
        combinations: ``training``, or ``all`` for models that read no captions.
        pairs: Share of pictures of two objects, of different colours.
        motions: Share of the captions of one object that also name the motion of the clip a picture is from, so that a
            video model can start from the words.
        nearness: Whether samples carry the exact depth ``nearness`` (1, H, W) beside ``content``.
    """

    cache = None

    def __init__(
        self, combinations: str = "training", pairs: float = 0.0, motions: float = 0.4, nearness: bool = False
    ) -> None:
        if combinations not in ("training", "all"):
            raise BadRequest(f"data.combinations={combinations} is neither training nor all.")
        self.combinations = TRAINING_COMBINATIONS if combinations == "training" else COMBINATIONS
        self.pairs, self.motions, self.nearness = pairs, motions, nearness

    def __len__(self) -> int:
        return 0

    def held_out(self) -> None:
        return None

    def draw(self, draw: Draw) -> Batch:
        """The pictures of one micro-batch."""
        return Batch([self._sample(draw.rng(number), number) for number in draw.numbers], draw)

    def _sample(self, rng: np.random.Generator, number: int) -> Sample:
        if rng.random() < self.pairs:
            scene, caption, content = draw_pair_image(rng, self.combinations)
        else:
            scene, caption, content = self._draw_single(rng)
        extra = {"content": torch.tensor(content)}
        if self.nearness:
            extra["nearness"] = torch.from_numpy(scene.nearness())
        return Sample(
            captions=(caption,),
            scene_frames=(1,),
            frames=torch.from_numpy(scene.frames()).permute(0, 3, 1, 2).contiguous(),
            extra=extra,
            name=caption,
            number=number,
        )

    def _draw_single(self, rng: np.random.Generator) -> tuple[Scene, str, int]:
        entity, motion, ground = self.combinations[rng.integers(len(self.combinations))]
        moment = int(rng.integers(CLIP_FRAMES))
        scene = draw_scene(rng, entity, motion, ground)[moment : moment + 1]
        article = "the" if rng.random() < THE_SHARE else "a"
        if rng.random() < self.motions:
            caption = clip_caption(entity, motion, ground, article)
        else:
            caption = image_caption(entity, ground, article)
        return scene, caption, content_of(ground, entity)


def draw_pair_image(rng: np.random.Generator, combinations: Sequence[Combination]) -> tuple[Scene, str, int]:
    """One frame of an object before another, both of which can be told, with its caption and content.

    Args:
        combinations: Each object on the ground is in one of them.
    """
    front, _, ground = combinations[int(rng.integers(len(combinations)))]
    others = [c[0] for c in combinations if c[2] == ground and c[0].colour != front.colour]
    back = others[rng.integers(len(others))]
    front_moves = bool(rng.random() < 0.5)
    mover, other = (front, back) if front_moves else (back, front)
    motion = PAIR_MOTIONS[rng.integers(len(PAIR_MOTIONS))]
    while True:
        moment = int(rng.integers(CLIP_FRAMES))
        scene = draw_pair_scene(rng, mover, motion, front_moves, other, ground)[moment : moment + 1]
        behind, before = (layer.coverage() > 0.5 for layer in scene.layers)
        if (behind & ~before).sum() >= VISIBLE_SHARE * behind.sum():
            return scene, image_pair_caption(front, back, ground), content_of(ground, front, back)


def content_of(ground: str, *entities: Entity) -> int:
    """A number for what a picture shows, whatever its caption mentions; objects from front to back."""
    number = GROUNDS.index(ground)
    for entity in entities:
        number = number * (len(ENTITIES) + 1) + ENTITIES.index(entity) + 1
    return number
