"""Images and videos of the world that are trained together, with and without text, painted as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from vidgen_core.data.joint import SHARES, joined
from vidgen_core.data.latent_cache import LatentCache
from vidgen_core.data.mixture import Mixture
from vidgen_core.data.sample import Batch, Draw, Sample
from vidgen_moving_shapes.captions import clip_caption, image_caption
from vidgen_moving_shapes.combinations import TRAINING_COMBINATIONS
from vidgen_moving_shapes.training.clips import path_of
from vidgen_moving_shapes.world import CLIP_FRAMES, Scene, draw_scene

Painted = tuple[Scene, str]
"""What is shown, and its caption."""


class Paintings:
    """Scenes of one object, of training combinations.

    Args:
        paint: Paints one from its random numbers.
        count: How many different ones there are; None is no end. Fewer are the first of more.
        captioned: Whether samples have their captions, and those of several frames the ``path`` that these tell of.
        depth: Whether samples carry the exact ``depth`` (F, 1, CANVAS, CANVAS), near is 0.8 and far 0.1.
    """

    cache: LatentCache | None = None

    def __init__(
        self,
        paint: Callable[[np.random.Generator], Painted],
        count: int | None = None,
        captioned: bool = True,
        depth: bool = False,
    ) -> None:
        self.paint, self.count, self.captioned, self.depth = paint, count, captioned, depth

    @property
    def extras(self) -> frozenset[str]:
        """``depth``, where samples carry it."""
        return frozenset(["depth"] if self.depth else [])

    def __len__(self) -> int:
        return self.count or 0

    def held_out(self) -> None:
        return None

    def draw(self, draw: Draw) -> Batch:
        """The scenes of one micro-batch."""
        return Batch([self._sample(draw, number) for number in draw.numbers], draw)

    def _sample(self, draw: Draw, number: int) -> Sample:
        scene, caption = self.paint(draw.rng(number % self.count if self.count else number))
        frames = torch.from_numpy(scene.frames()).permute(0, 3, 1, 2).contiguous()
        extra = {"depth": torch.from_numpy(scene.nearness())[:, None]} if self.depth else {}
        if self.captioned and len(frames) > 1:
            extra["path"] = torch.from_numpy(path_of([scene]))
        told = caption if self.captioned else ""
        return Sample((told,), (len(frames),), frames, extra=extra, name=caption, number=number)


class Clip:
    """Paints whole clips, every ``stride``-th frame of their time."""

    def __init__(self, frames: int = CLIP_FRAMES, stride: int = 1) -> None:
        self.frames, self.stride = frames, stride

    def __call__(self, rng: np.random.Generator) -> Painted:
        entity, motion, ground = TRAINING_COMBINATIONS[rng.integers(len(TRAINING_COMBINATIONS))]
        scene = draw_scene(rng, entity, motion, ground, self.frames * self.stride)[:: self.stride]
        return scene, clip_caption(entity, motion, ground)


class Still:
    """Paints single frames of clips; ``motions`` is the share of captions that also name the clip's motion."""

    def __init__(self, motions: float = 0.4) -> None:
        self.motions = motions

    def __call__(self, rng: np.random.Generator) -> Painted:
        entity, motion, ground = TRAINING_COMBINATIONS[rng.integers(len(TRAINING_COMBINATIONS))]
        moment = int(rng.integers(CLIP_FRAMES))
        scene = draw_scene(rng, entity, motion, ground)[moment : moment + 1]
        named = rng.random() < self.motions
        return scene, clip_caption(entity, motion, ground) if named else image_caption(entity, ground)


def painted(
    images: int | None = None,
    videos: int | None = None,
    labelled_videos: int | None = 0,
    frames: int = CLIP_FRAMES,
    stride: int = 1,
    motions: float = 0.4,
    depth: bool = False,
    shares: Mapping[str, float] = SHARES,
    images_per_video: int = 8,
) -> Mixture:
    """Captioned images, videos without text, and captioned videos.

    Args:
        images, videos, labelled_videos: How many different ones; None is no end, 0 leaves them out.
        frames, stride: Frames of a clip, and of its time from one to the next.
        motions: Share of the images' captions that name a motion.
        depth: Whether images carry their exact depth; videos never do.
        shares, images_per_video: As for ``joined``.

    Raises:
        BadRequest: nothing is left.
    """
    still, clip = Still(motions), Clip(frames, stride)
    counts = {"images": images, "videos": videos, "labelled_videos": labelled_videos}
    sources = {
        "text_to_image": ("images", Paintings(still, images, True, depth)),
        "image_to_image": ("images", Paintings(still, images, False, depth)),
        "image_to_video": ("videos", Paintings(clip, videos, False)),
        "text_image_to_video": ("labelled_videos", Paintings(clip, labelled_videos, True)),
    }
    kept = {kind: source for kind, (key, source) in sources.items() if counts[key] != 0}
    return joined({kind: {"": source} for kind, source in kept.items()}, shares, images_per_video)
