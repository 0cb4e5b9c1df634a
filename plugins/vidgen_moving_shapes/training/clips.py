"""The captioned clips that the video model trains on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidgen_moving_shapes.captions import clip_caption
from vidgen_moving_shapes.combinations import TRAINING_COMBINATIONS
from vidgen_moving_shapes.motions import ENDLESS_MOTIONS
from vidgen_moving_shapes.stories import CHANGES, draw_story
from vidgen_moving_shapes.world import CLIP_FRAMES, draw_scene

FRAMES_PER_STEP = 128
"""Frames in a batch, whatever the length of its clips, so that every step costs about the same."""
THE_SHARE = 0.15
EMPTY_SHARE = 0.1
"""Clips whose every caption is replaced by the empty one, for classifier-free guidance."""
ENDLESS_SHARE = 0.25
"""Long clips that show one endless motion; the others are stories of two scenes."""


@dataclass(frozen=True)
class CaptionedClip:
    """frames (F, CANVAS, CANVAS, 3) uint8, and captions that each cover F / len(captions) frames."""

    frames: NDArray[np.uint8]
    captions: tuple[str, ...]


def draw_clip(rng: np.random.Generator, stride: int) -> CaptionedClip:
    """A whole short clip, every `stride`-th frame of it: the path from start to end always shows."""
    entity, motion, ground = TRAINING_COMBINATIONS[rng.integers(len(TRAINING_COMBINATIONS))]
    offset = int(rng.integers(stride))
    frames = draw_scene(rng, entity, motion, ground)[offset::stride].frames()
    article = "the" if rng.random() < THE_SHARE else "a"
    return CaptionedClip(frames, (clip_caption(entity, motion, ground, article),))


def draw_long_clip(rng: np.random.Generator, length: int) -> CaptionedClip:
    """A story of two scenes, or one endless motion, in `length` frames; endless clips have two equal captions."""
    if rng.random() < ENDLESS_SHARE:
        entity, _, ground = TRAINING_COMBINATIONS[rng.integers(len(TRAINING_COMBINATIONS))]
        motion = ENDLESS_MOTIONS[rng.integers(len(ENDLESS_MOTIONS))]
        frames = draw_scene(rng, entity, motion, ground, length).frames()
        return CaptionedClip(frames, (clip_caption(entity, motion, ground),) * 2)
    story = draw_story(rng, [CHANGES[rng.integers(len(CHANGES))]], length // 2, TRAINING_COMBINATIONS)
    return CaptionedClip(story.frames(), story.captions)


def without_captions(rng: np.random.Generator, clip: CaptionedClip) -> CaptionedClip:
    """The clip, its captions emptied now and then."""
    return CaptionedClip(clip.frames, ("",) * len(clip.captions)) if rng.random() < EMPTY_SHARE else clip


def draw_batch(rng: np.random.Generator, progress: float) -> Sequence[CaptionedClip]:
    """Clips of one length. Training goes from 8 frames to 16 to as many as 32.

    Eight frames of every second time are twice as many clips for the same work, and their ends, the only frame
    positions that the network can see, are near; they teach the words. The full length follows.
    """
    kind = rng.random()
    short = np.interp(progress, (0.0, 0.25, 0.5, 1.0), (0.8, 0.7, 0.1, 0.0))
    long = np.interp(progress, (0.5, 0.65, 1.0), (0.0, 0.3, 0.3))
    if kind < short:
        clips = [draw_clip(rng, stride=2) for _ in range(2 * FRAMES_PER_STEP // CLIP_FRAMES)]
    elif kind < short + long:
        length = 2 * int(rng.integers(12, CLIP_FRAMES + 1))
        clips = [draw_long_clip(rng, length) for _ in range(FRAMES_PER_STEP // length)]
    else:
        clips = [draw_clip(rng, stride=1) for _ in range(FRAMES_PER_STEP // CLIP_FRAMES)]
    return [without_captions(rng, clip) for clip in clips]
