"""Stories of captioned video segments, from JSON lines ``{"captions": [..], "video_segments": [..]}``."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidgen_core.data.epochs import Broken, ItemSource
from vidgen_core.data.frame_sampling import segment_indices
from vidgen_core.data.latent_cache import cache_key, file_identity
from vidgen_core.data.listing import given_file, json_lines, texts_of
from vidgen_core.data.pixels import fit, size_of
from vidgen_core.data.sample import Draw, Sample
from vidgen_core.errors import BadRequest
from vidgen_core.video import VideoReader

if TYPE_CHECKING:
    from torch import Tensor

FORM = '{"captions": ["text", ..], "video_segments": ["file", ..]}'


@dataclass(frozen=True)
class Story:
    """One line: a caption for each segment, in order."""

    captions: tuple[str, ...]
    segments: tuple[str, ...]
    line: int


class Captions(ItemSource):
    """Samples of several scenes, each a few frames of one segment under its own caption.

    A story of several segments shows its first 2 to ``max_scenes`` ones, a number drawn anew each time. Where a batch
    holds several samples, all samples of a step show one number of scenes, drawn as often as single samples would
    have it, from the stories that may show it.

    Args:
        path: The file of JSON lines.
        validation: Another such file; its stories show as many scenes as they can.
        root: The folder that segments are relative to; None is the folder of the file.
        max_frames: A JSON file, segment -> frames of it to sample from; None samples from all that the file has.
        frames_per_scene: Frames of every scene.
        max_scenes: Most scenes of a sample.
        fixed_scenes: Show this number of scenes, or all of a shorter story; None draws it.
        size: Height and width.
        crop: ``center`` without resizing, or ``resize_center``.
        shuffle: Whether epochs are permuted.
        parity: As the published training samples: ``max_frames`` holds even where a file has fewer frames.

    Raises:
        BadRequest: a file is missing or is not what it should be, with the line, or values do not go together.
    """

    recurring = True

    def __init__(
        self,
        path: str | None = None,
        validation: str | None = None,
        root: str | None = None,
        max_frames: str | None = None,
        frames_per_scene: int = 8,
        max_scenes: int = 4,
        fixed_scenes: int | None = None,
        size: int | Sequence[int] = 256,
        crop: str = "center",
        shuffle: bool = True,
        parity: bool = False,
    ) -> None:
        super().__init__(shuffle)
        file = given_file("data.path", path, f"a file of JSON lines {FORM}")
        self.frames_per_scene, self.max_scenes, self.fixed_scenes = frames_per_scene, max_scenes, fixed_scenes
        self.size, self.crop, self.parity = size_of(size), crop, parity
        if parity and (max_frames is None or fixed_scenes is not None or crop != "center"):
            raise BadRequest("data.parity=true needs data.max_frames=..., data.crop=center and no data.fixed_scenes.")
        self.counts = read_counts(given_file("data.max_frames", max_frames, "a JSON file")) if max_frames else {}
        self._open(file, root)
        self._validation: Captions | None = None
        if validation is not None:
            held_out = copy.copy(self)
            held_out.fixed_scenes, held_out.shuffle, held_out._orders = fixed_scenes or max_scenes, False, {}
            held_out._open(given_file("data.validation", validation, f"a file of JSON lines {FORM}"), root)
            self._validation = held_out

    def _open(self, file: Path, root: str | None) -> None:
        self.file, self.stories = file, read_stories(file)
        self.root = Path(root).expanduser() if root else file.parent
        if not self.root.is_dir():
            raise BadRequest(f"data.root={root} is no folder. Give the folder that the segments' paths begin at.")
        self._lengths = np.array([len(story.segments) for story in self.stories])

    def __len__(self) -> int:
        return len(self.stories)

    def name(self, item: int) -> str:
        """``file:line``."""
        return f"{self.file.name}:{self.stories[item].line}"

    def held_out(self) -> Captions | None:
        return self._validation

    @property
    def _range(self) -> tuple[int, int]:
        """The fewest and the most scenes of a story that has enough segments."""
        return self.fixed_scenes or min(2, self.max_scenes), self.fixed_scenes or self.max_scenes

    def _scenes(self, item: int, rng: np.random.Generator) -> int:
        fewest, most = self._range
        return int(min(self._lengths[item], rng.integers(fewest, most, endpoint=True)))

    def agreed_scenes(self, draw: Draw) -> Sequence[int]:
        rng = draw.shared_rng("scenes")
        wanted = self._scenes(int(rng.integers(len(self))), rng)
        possible = range(1, int(min(self._lengths.max(), self._range[1])) + 1)
        return sorted(possible, key=lambda scenes: abs(scenes - wanted))

    def items_with(self, scenes: int) -> np.ndarray:
        fewest, most = self._range
        can = (np.minimum(self._lengths, fewest) <= scenes) & (scenes <= np.minimum(self._lengths, most))
        return np.flatnonzero(can)

    def load(self, item: int, scenes: int | None, rng: np.random.Generator) -> Sample:
        story = self.stories[item]
        scenes = scenes or self._scenes(item, rng)
        shots = [self._shot(segment) for segment in story.segments[:scenes]]
        sample = Sample(
            story.captions[:scenes],
            (self.frames_per_scene,) * scenes,
            cache_keys=tuple(
                cache_key(file_identity(reader.path), indices, self.size, self.crop) for reader, indices in shots
            ),
            name=self.name(item),
        )
        return self.complete(sample, lambda: self._pixels(shots))

    def _shot(self, segment: str) -> tuple[VideoReader, tuple[int, ...]]:
        reader = VideoReader(self.root / segment)
        total = self.counts.get(segment, len(reader))
        if self.parity and segment not in self.counts:
            raise Broken(f"data.max_frames does not say how many frames '{segment}' has")
        if not self.parity:
            total = min(total, len(reader))
        if total < 1:
            raise Broken(f"'{segment}' has no frames")
        return reader, segment_indices(total, self.frames_per_scene)

    def _pixels(self, shots: Sequence[tuple[VideoReader, tuple[int, ...]]]) -> Tensor:
        import torch

        scenes = [torch.from_numpy(reader.frames(indices)).permute(0, 3, 1, 2) for reader, indices in shots]
        return torch.cat([fit(frames, self.size, self.crop) for frames in scenes])


def read_stories(file: Path) -> list[Story]:
    """The stories of a file. Raises BadRequest that names the file and the line of the first mistake."""
    stories = []
    for number, value, where in json_lines(file, FORM):
        captions, segments = (texts_of(value.get(key), key, where) for key in ("captions", "video_segments"))
        if len(captions) != len(segments):
            raise BadRequest(f"{where} has {len(captions)} captions for {len(segments)} video_segments; give one each.")
        if not all(segment.strip() for segment in segments):
            raise BadRequest(f"{where}: 'video_segments' holds an empty text, which names no file.")
        stories.append(Story(captions, segments, number))
    if not stories:
        raise BadRequest(f"'{file}' is empty. Every line is {FORM}.")
    return stories


def read_counts(file: Path) -> Mapping[str, int]:
    """Segment -> number of frames. Raises BadRequest for a file that says anything else."""
    try:
        value = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadRequest(f"data.max_frames={file} cannot be read as JSON: {error}.") from error
    if not isinstance(value, dict):
        raise BadRequest(f'data.max_frames={file} is no JSON object {{"segment": frames, ..}}.')
    for segment, count in value.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise BadRequest(f"data.max_frames={file}: '{segment}' has {count!r}; give a whole number, 1 or more.")
    return value
