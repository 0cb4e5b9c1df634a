"""The captioned clips that the video models train on, painted as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from vidgen_core.data.sample import Batch, Draw, Sample
from vidgen_core.errors import BadRequest, nearest
from vidgen_moving_shapes.captions import clip_caption, pair_caption, shortened_caption
from vidgen_moving_shapes.combinations import HELD_OUT_COMBINATIONS, TRAINING_COMBINATIONS
from vidgen_moving_shapes.motions import ENDLESS_MOTIONS
from vidgen_moving_shapes.palette import RGB
from vidgen_moving_shapes.shapes import CANVAS, SHAPES
from vidgen_moving_shapes.stories import CHANGES, draw_story
from vidgen_moving_shapes.told import told
from vidgen_moving_shapes.training.images import PAIR_MOTIONS
from vidgen_moving_shapes.world import CLIP_FRAMES, Layer, Scene, draw_pair_scene, draw_scene, play

FEW_FRAMES, MANY_FRAMES = 64, 96
"""Frames in a batch, whatever the length of its clips: few at first, because words are learnt by many steps."""
LONG_CLIPS = 4
"""Long clips in a batch; half of their frames are only looked at."""
USUAL_SIZE = 12.0
"""Pixels."""
THE_SHARE = 0.15
STORY_SCENES = (2, 3, 4)
STORY_SCENE_FRAMES = (6, 8, 10, 12, 16)
MOST_STORY_FRAMES = 32
MOST_CLIPS = 64
"""More than a batch ever holds; numbers of samples are spaced by it."""


@dataclass(frozen=True)
class CaptionedClip:
    """frames (F, CANVAS, CANVAS, 3) uint8, captions that each cover F / len(captions) frames, `path` (F, 10), see
    ``path_of``, `identity` (F, 10): colour of the object in -1..1, which of SHAPES it is, colour of the ground in -1..1
    and `place` (F, 3): x and y of the object from the middle of the canvas, in tens of pixels, and its size."""

    frames: NDArray[np.uint8]
    captions: tuple[str, ...]
    path: NDArray[np.float32]
    identity: NDArray[np.float32]
    place: NDArray[np.float32]

    def sample(self, number: int) -> Sample:
        """The clip as training takes it."""
        scenes = len(self.captions)
        return Sample(
            captions=self.captions,
            scene_frames=(len(self.frames) // scenes,) * scenes,
            frames=torch.from_numpy(self.frames).permute(0, 3, 1, 2).contiguous(),
            extra={name: torch.from_numpy(getattr(self, name)) for name in ("path", "identity", "place")},
            name=self.captions[0],
            number=number,
        )


class Clips:
    """Endless clips of training combinations: ``single`` scenes, ``stories`` of two to four, ``pairs`` of objects of
    which one passes the other, or ``long`` clips of 32 frames, most of one scene whose motion has no end,
    ``long_strided`` every second frame of them.

    A batch holds a fixed number of frames, so shorter clips are more; all of its clips have one length. Without
    ``short`` there is no time at the beginning in which most are short. ``brief`` is the share of clips of one scene
    whose captions may leave out the colour, the ground or both.

    Raises BadRequest for other scenes; for a share outside 0 to 1, or of other scenes than single ones; and for a draw
    of several numbers, each of which would have a length of its own.
    """

    def __init__(self, scenes: str = "single", short: bool = True, brief: float = 0.0) -> None:
        if scenes not in DRAWN:
            raise BadRequest(f"data.scenes={scenes} is not a choice.{nearest(scenes, DRAWN)}")
        if not 0 <= brief <= 1:
            raise BadRequest(f"data.brief={brief} is a share of clips, from 0 to 1.")
        if brief and scenes != "single":
            raise BadRequest(f"data.brief={brief} is of clips of one scene: use data.scenes=single.")
        self.scenes, self.short, self.brief = scenes, short, brief

    cache = None

    def __len__(self) -> int:
        return 0

    def held_out(self) -> None:
        return None

    def draw(self, draw: Draw) -> Batch:
        """The clips of one micro-batch."""
        if (size := len(draw.numbers)) > 1:
            raise BadRequest(
                f"trainer.batch_size={size}: data=moving_shapes_clips fills a micro-batch with {FEW_FRAMES} frames or "
                f"more by itself. Use trainer.batch_size=1 trainer.accumulation={size}."
            )
        rng = draw.rng(draw.numbers[0])
        progress = draw.progress if self.short else 1.0
        clips = [_briefly(rng, clip, self.brief) for clip in DRAWN[self.scenes](rng, progress)]
        first = draw.numbers[0] * MOST_CLIPS
        return Batch([clip.sample(first + i) for i, clip in enumerate(clips)], draw)


def draw_singles(rng: np.random.Generator, progress: float) -> Sequence[CaptionedClip]:
    """Clips of one scene and one length. Training goes from 8 frames to 16, with some endless motions of up to 32.

    Eight frames of every second time are twice as many clips for the same work, and their ends, the only frame
    positions that the network can see, are near; they teach the words. The full length follows.
    """
    kind, budget = rng.random(), FEW_FRAMES if progress < 0.4 else MANY_FRAMES
    short = np.interp(progress, (0.0, 0.25, 0.5, 1.0), (0.8, 0.7, 0.1, 0.0))
    endless = np.interp(progress, (0.5, 0.65, 1.0), (0.0, 0.2, 0.2))
    if kind < short:
        return [_draw_clip(rng, stride=2) for _ in range(2 * budget // CLIP_FRAMES)]
    if kind < short + endless:
        length = int(rng.integers(CLIP_FRAMES, 2 * CLIP_FRAMES + 1))
        return [_draw_endless(rng, length) for _ in range(budget // length)]
    return [_draw_clip(rng, stride=1) for _ in range(budget // CLIP_FRAMES)]


def draw_stories(rng: np.random.Generator, progress: float) -> Sequence[CaptionedClip]:
    """Stories of one number of scenes and one scene length; a tenth of the batches are single clips as before.

    At first most are scenes of four frames, every second of eight: what captions leave out is learnt by many stories.
    """
    if rng.random() < 0.1:
        return [_draw_clip(rng, stride=1) for _ in range(FEW_FRAMES // CLIP_FRAMES)]
    scenes = int(rng.choice(STORY_SCENES))
    if rng.random() < np.interp(progress, (0.0, 0.4, 0.7), (0.8, 0.6, 0.0)):
        return [_draw_story(rng, scenes, 8, stride=2) for _ in range(FEW_FRAMES // (scenes * 4))]
    fitting = [frames for frames in STORY_SCENE_FRAMES if scenes * frames <= MOST_STORY_FRAMES]
    frames = int(rng.choice(fitting))
    return [_draw_story(rng, scenes, frames) for _ in range(FEW_FRAMES // (scenes * frames))]


def draw_pairs(rng: np.random.Generator, progress: float) -> Sequence[CaptionedClip]:
    """Whole clips of two objects of different colours, of which one passes before or behind the other."""
    return [_draw_pair(rng) for _ in range(FEW_FRAMES // CLIP_FRAMES)]


def draw_long(rng: np.random.Generator, progress: float, stride: int = 1) -> Sequence[CaptionedClip]:
    """Clips of 32 frames, to be continued: four of five of one scene, the others stories of two or four."""
    length = MOST_STORY_FRAMES
    if rng.random() < 0.8:
        return [_draw_endless(rng, length, stride) for _ in range(LONG_CLIPS)]
    scenes = int(rng.choice((2, 4)))
    return [_draw_story(rng, scenes, length // scenes, stride) for _ in range(LONG_CLIPS)]


DRAWN: dict[str, Callable[[np.random.Generator, float], Sequence[CaptionedClip]]] = {
    "single": draw_singles,
    "stories": draw_stories,
    "pairs": draw_pairs,
    "long": draw_long,
    "long_strided": partial(draw_long, stride=2),
}
"""``data.scenes`` -> (rng, progress) -> the clips of a batch."""


def _captioned(scenes: Sequence[Scene], captions: tuple[str, ...], first: int = 0) -> CaptionedClip:
    """``first``: the layer of the object that the captions name first, of which the numbers tell."""
    layers, tracks = [scene.layers[first] for scene in scenes], _tracks(scenes, first)
    identity = np.concatenate(
        [np.tile(_identity(layer, s.ground), (len(layer.track), 1)) for layer, s in zip(layers, scenes, strict=True)]
    )
    place = np.concatenate(tracks) - (CANVAS / 20, CANVAS / 20, USUAL_SIZE / 3)
    return CaptionedClip(
        play(scenes), captions, path_of(scenes, first), identity.astype(np.float32), place.astype(np.float32)
    )


def path_of(scenes: Sequence[Scene], first: int = 0) -> NDArray[np.float32]:
    """(F, 10) of the layer ``first``, from x, y (in tens of pixels) and size (in threes) in each scene: the frame's
    place in its scene, -1..1; how the scene changes them, their slope against the place; where they are, relative to
    the scene's mean, and to the clip's."""
    tracks = _tracks(scenes, first)
    rows, mean = [], np.concatenate(tracks).mean(axis=0)
    for track in tracks:
        place = np.linspace(-1, 1, len(track))[:, None]
        within = track - track.mean(axis=0)
        change = np.broadcast_to(3 * (within * place).mean(axis=0), within.shape)
        rows.append(np.hstack([place, change, within, track - mean]))
    return np.concatenate(rows).astype(np.float32)


def _tracks(scenes: Sequence[Scene], first: int) -> list[NDArray[np.float64]]:
    layers = [scene.layers[first] for scene in scenes]
    return [np.column_stack([layer.track.centre / 10, layer.track.size / 3]) for layer in layers]


def _identity(layer: Layer, ground: RGB) -> NDArray[np.float64]:
    shape = [float(layer.shape == name) for name in SHAPES]
    return np.concatenate([np.asarray(layer.rgb) / 127.5 - 1, shape, np.asarray(ground) / 127.5 - 1])


def _draw_clip(rng: np.random.Generator, stride: int) -> CaptionedClip:
    """A whole short clip, every `stride`-th frame of it: the path from start to end always shows."""
    entity, motion, ground = TRAINING_COMBINATIONS[rng.integers(len(TRAINING_COMBINATIONS))]
    offset = int(rng.integers(stride))
    article = "the" if rng.random() < THE_SHARE else "a"
    scene = draw_scene(rng, entity, motion, ground)[offset::stride]
    return _captioned([scene], (clip_caption(entity, motion, ground, article),))


def _briefly(rng: np.random.Generator, clip: CaptionedClip, share: float) -> CaptionedClip:
    """The clip, or one of ``share`` of them with a caption that may leave out the colour, the ground or both."""
    if not share or rng.random() >= share:
        return clip
    ((entity, motion, ground),) = told(clip.captions)
    return replace(clip, captions=(shortened_caption(rng, entity, motion, ground, same_entity=True, same_ground=True),))


def _draw_pair(rng: np.random.Generator) -> CaptionedClip:
    movers = [c for c in TRAINING_COMBINATIONS if c[1] in PAIR_MOTIONS]
    mover, motion, ground = movers[rng.integers(len(movers))]
    still = [e for e, m, g in TRAINING_COMBINATIONS if (m, g) == ("stays still", ground) and e.colour != mover.colour]
    other, in_front = still[rng.integers(len(still))], bool(rng.random() < 0.5)
    scene = draw_pair_scene(rng, mover, motion, in_front, other, ground)
    return _captioned([scene], (pair_caption(mover, motion, in_front, other, ground),), first=int(in_front))


def _draw_endless(rng: np.random.Generator, length: int, stride: int = 1) -> CaptionedClip:
    entity, _, ground = TRAINING_COMBINATIONS[rng.integers(len(TRAINING_COMBINATIONS))]
    motion = ENDLESS_MOTIONS[rng.integers(len(ENDLESS_MOTIONS))]
    if (entity, motion, ground) in HELD_OUT_COMBINATIONS:  # one of these motions, standing still, short clips have too
        return _draw_endless(rng, length, stride)
    scene = draw_scene(rng, entity, motion, ground, length)[::stride]
    return _captioned([scene], (clip_caption(entity, motion, ground),))


def _draw_story(rng: np.random.Generator, scenes: int, frames: int, stride: int = 1) -> CaptionedClip:
    changes = [CHANGES[i] for i in rng.integers(len(CHANGES), size=scenes - 1)]
    story = draw_story(rng, changes, frames, TRAINING_COMBINATIONS)
    return _captioned([scene[::stride] for scene in story.scenes], story.captions)
