"""The captioned clips that the video model trains on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vidgen_moving_shapes.captions import clip_caption
from vidgen_moving_shapes.combinations import TRAINING_COMBINATIONS
from vidgen_moving_shapes.motions import ENDLESS_MOTIONS
from vidgen_moving_shapes.stories import CHANGES, draw_story
from vidgen_moving_shapes.world import CLIP_FRAMES, Scene, draw_scene, play

FEW_FRAMES, MANY_FRAMES = 96, 128
"""Frames in a batch, whatever the length of its clips: few at first, because words are learnt by many steps."""
THE_SHARE = 0.15
EMPTY_SHARE = 0.1
"""Clips whose every caption is replaced by the empty one, for classifier-free guidance."""
ENDLESS_SHARE = 0.25
"""Long clips that show one endless motion; the others are stories of two scenes."""


@dataclass(frozen=True)
class CaptionedClip:
    """frames (F, CANVAS, CANVAS, 3) uint8, captions that each cover F / len(captions) frames, and `path` (F, 3):
    x and y (in tens of pixels) and size (in threes) of the object, relative to their mean over the clip."""

    frames: NDArray[np.uint8]
    captions: tuple[str, ...]
    path: NDArray[np.float32]


def _captioned(scenes: Sequence[Scene], captions: tuple[str, ...]) -> CaptionedClip:
    tracks = [scene.layers[0].track for scene in scenes]
    track = np.concatenate([np.column_stack([track.centre / 10, track.size / 3]) for track in tracks])
    return CaptionedClip(play(scenes), captions, track - track.mean(axis=0))


def draw_clip(rng: np.random.Generator, stride: int) -> CaptionedClip:
    """A whole short clip, every `stride`-th frame of it: the path from start to end always shows."""
    entity, motion, ground = TRAINING_COMBINATIONS[rng.integers(len(TRAINING_COMBINATIONS))]
    offset = int(rng.integers(stride))
    article = "the" if rng.random() < THE_SHARE else "a"
    scene = draw_scene(rng, entity, motion, ground)[offset::stride]
    return _captioned([scene], (clip_caption(entity, motion, ground, article),))


def draw_long_clip(rng: np.random.Generator, length: int) -> CaptionedClip:
    """A story of two scenes, or one endless motion, in `length` frames; endless clips have two equal captions."""
    if rng.random() < ENDLESS_SHARE:
        entity, _, ground = TRAINING_COMBINATIONS[rng.integers(len(TRAINING_COMBINATIONS))]
        motion = ENDLESS_MOTIONS[rng.integers(len(ENDLESS_MOTIONS))]
        scene = draw_scene(rng, entity, motion, ground, length)
        return _captioned([scene], (clip_caption(entity, motion, ground),) * 2)
    story = draw_story(rng, [CHANGES[rng.integers(len(CHANGES))]], length // 2, TRAINING_COMBINATIONS)
    return _captioned(story.scenes, story.captions)


def without_captions(rng: np.random.Generator, clip: CaptionedClip) -> CaptionedClip:
    """The clip, its captions emptied now and then."""
    return replace(clip, captions=("",) * len(clip.captions)) if rng.random() < EMPTY_SHARE else clip


def draw_batch(rng: np.random.Generator, progress: float) -> Sequence[CaptionedClip]:
    """Clips of one length. Training goes from 8 frames to 16 to as many as 32.

    Eight frames of every second time are twice as many clips for the same work, and their ends, the only frame
    positions that the network can see, are near; they teach the words. The full length follows.
    """
    kind, budget = rng.random(), FEW_FRAMES if progress < 0.5 else MANY_FRAMES
    short = np.interp(progress, (0.0, 0.25, 0.5, 1.0), (0.8, 0.7, 0.1, 0.0))
    long = np.interp(progress, (0.5, 0.65, 1.0), (0.0, 0.3, 0.3))
    if kind < short:
        clips = [draw_clip(rng, stride=2) for _ in range(2 * budget // CLIP_FRAMES)]
    elif kind < short + long:
        length = 2 * int(rng.integers(12, CLIP_FRAMES + 1))
        clips = [draw_long_clip(rng, length) for _ in range(budget // length)]
    else:
        clips = [draw_clip(rng, stride=1) for _ in range(budget // CLIP_FRAMES)]
    return [without_captions(rng, clip) for clip in clips]
