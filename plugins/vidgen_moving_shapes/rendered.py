"""Rendered clips as the real videos of a comparison, and the captions that a model is to make such clips of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from vidgen_core.errors import BadRequest
from vidgen_core.metrics.footage import Footage
from vidgen_core.metrics.real import Real
from vidgen_core.video import read_video
from vidgen_core.video_writer import VideoWriter, make_plain
from vidgen_moving_shapes.captions import clip_caption
from vidgen_moving_shapes.combinations import Combination
from vidgen_moving_shapes.told import ALLOWED
from vidgen_moving_shapes.world import FRAMES_PER_SECOND, draw_scene


class Rendered(Real):
    """Clips of one scene that are painted, and go through a video file as made ones do.

    Args:
        path: Of a folder of real videos to take instead.
        n: How many.
        frames: Of every clip.
        stride: Frames of the world's time from one to the next.
        combinations: ``training`` or ``all``.
        seed: Another number paints other clips.
    """

    def __init__(
        self,
        path: str | None = None,
        n: int = 256,
        frames: int = 16,
        stride: int = 1,
        combinations: str = "training",
        seed: int = 0,
    ) -> None:
        super().__init__(path)
        self._paints = path is None
        self._n, self._frames, self._stride = n, frames, stride
        self._drawn = drawn(n, combinations, "real", seed)
        self._seed = seed

    def __call__(self, metric: str) -> Iterator[Footage]:
        """The clips, one after the other."""
        if not self._paints:
            yield from super().__call__(metric)
            return
        for number, (entity, motion, ground) in enumerate(self._drawn):
            rng = np.random.default_rng([self._seed, number])
            scene = draw_scene(rng, entity, motion, ground, self._frames * self._stride)[:: self._stride]
            with TemporaryDirectory() as place:
                writer = VideoWriter(Path(place) / "clip.mp4", FRAMES_PER_SECOND)
                writer.write(scene.frames())
                writer.close()
                make_plain(writer.path)
                footage = Footage(f"rendered_{number:03d}", writer.path, (), (range(self._frames),))
                vars(footage)["frames"] = read_video(writer.path)
            yield footage


def clip_captions(n: int, combinations: str = "training", seed: int = 0) -> dict[str, tuple[str, ...]]:
    """Name -> the one caption of a clip; a larger number begins with the same.

    Args:
        combinations: ``training`` or ``all``: of object, motion and ground.
    """
    told = drawn(n, combinations, "told", seed)
    return {f"clip_{number:03d}": (clip_caption(*combination),) for number, combination in enumerate(told)}


def drawn(n: int, combinations: str, purpose: str, seed: int) -> Sequence[Combination]:
    """Combinations of object, motion and ground; the first of them are those of a smaller number.

    Raises BadRequest for an unknown set of combinations.
    """
    if combinations not in ALLOWED:
        raise BadRequest(f"combinations={combinations} is neither training nor all.")
    allowed = sorted(ALLOWED[combinations], key=str)
    order = np.random.default_rng([seed, *purpose.encode()]).permutation(len(allowed))
    return [allowed[order[number % len(order)]] for number in range(n)]
