"""Samples of one scene: a clip of a video, or an image. What sources of media files share, wherever the files lie."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidgen_core.data.epochs import Broken, ItemSource
from vidgen_core.data.frame_sampling import clip_indices
from vidgen_core.data.latent_cache import cache_key
from vidgen_core.data.pixels import fit, size_of
from vidgen_core.data.sample import Sample
from vidgen_core.errors import BadRequest
from vidgen_core.video import VideoReader, size_of_video

if TYPE_CHECKING:
    from torch import Tensor

    from vidgen_core.data.image_maps import ImageMaps

VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".gif")
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
ORIENTATION = 0x0112
"""The tag of EXIF that says how an image is turned."""

ENDINGS = {"videos": VIDEOS, "images": IMAGES}
"""Kind -> endings of the files that count, in lower case."""


class Clips(ItemSource):
    """A source of one file and one caption per item; a subclass says where they lie.

    Args:
        kind: ``videos``, or ``images``, which are samples of one frame.
        frames: Frames of a clip.
        stride: Frames of the video from one frame of the clip to the next.
        fps: Frames a second that a video is taken to, before ``stride``; None takes its own.
        start: Where a clip begins: ``random``, ``first`` or ``middle`` of the places where it fits.
        short: A video with too few frames is left out (``skip``), or its last frame is held (``hold``).
        size: Height and width.
        crop: ``resize_center``, or ``center`` without resizing.
        shuffle: Whether epochs are permuted.

    Attributes:
        items: What stands for each file.
        captioned: Whether items are shown with their captions, and those without are broken.
        uncaptioned: What such an item's message says can be done.
        maps: Of images, which samples then bring as extra tensors; those without are broken.

    Raises:
        BadRequest: a rate or size that is none.
    """

    def __init__(
        self,
        kind: str,
        frames: int,
        stride: int,
        fps: float | None,
        start: str,
        short: str,
        size: int | Sequence[int],
        crop: str,
        shuffle: bool,
    ) -> None:
        super().__init__(shuffle)
        if fps is not None and fps <= 0:
            raise BadRequest(f"data.fps={fps:g} is no frame rate. Give a number above 0, or null for the video's own.")
        self.kind, self.frames, self.stride, self.fps = kind, 1 if kind == "images" else frames, stride, fps
        self.start, self.short, self.size, self.crop = start, short, size_of(size), crop
        self.items: Sequence[Any] = ()
        self.captioned, self.uncaptioned = True, "data.caption=... is one for all"
        self.maps: ImageMaps | None = None
        self._validation: Any = None

    def __len__(self) -> int:
        return len(self.items)

    @property
    def extras(self) -> frozenset[str]:
        """What ``maps`` bring."""
        return frozenset() if self.maps is None else frozenset(self.maps.folders)

    @property
    def recurring(self) -> bool:
        """Whether clips begin where they began before."""
        return self.kind == "images" or self.start != "random"

    @property
    def sizes(self) -> frozenset[tuple[int, int]]:
        """The one that every sample has."""
        return frozenset({self.size})

    def held_out(self) -> Any:
        return self._validation

    @abstractmethod
    def caption(self, item: int) -> str:
        """The caption of an item. Raises Broken where it has none."""

    @abstractmethod
    def identity(self, item: int) -> tuple[Any, ...]:
        """What tells the item's file, as it is now, from all others. Raises OSError where it is gone."""

    @abstractmethod
    def opened(self, item: int) -> AbstractContextManager[Path]:
        """The item's file on the disk, for the time of the context."""

    def own_size(self, item: int) -> tuple[int, int]:
        """Height and width of an item's file, upright. Raises Broken, VidgenError, OSError where it cannot be read."""
        with self.opened(item) as file:
            return size_of_image(file) if self.kind == "images" else size_of_video(file)

    def load(self, item: int, scenes: int | None, rng: np.random.Generator) -> Sample:
        caption, identity = self.caption(item) if self.captioned else "", self.identity(item)
        with self.opened(item) as file:
            indices, read = self._shot(file, rng)
            key = cache_key(identity, indices, self.size, self.crop)
            sample = Sample((caption,), (self.frames,), cache_keys=(key,), name=self.name(item))
            if self.maps is not None:
                sample.extra |= self.maps.read(sample.name, size_of_image(file), self.size, self.crop)
            return self.complete(sample, lambda: self._pixels(read()))

    def _shot(self, file: Path, rng: np.random.Generator) -> tuple[tuple[int, ...], Callable[[], np.ndarray]]:
        """The frames to show, and what decodes them, (F, H, W, 3) uint8."""
        if self.kind == "images":
            return (0,), lambda: read_image(file)
        reader = VideoReader(file)
        indices = self._indices(len(reader), reader.fps, rng)
        return indices, lambda: reader.frames(indices)

    def _indices(self, total: int, fps: float, rng: np.random.Generator) -> tuple[int, ...]:
        if self.fps is not None and fps <= 0:
            raise Broken(f"the file does not say its frame rate, which data.fps={self.fps:g} needs")
        step = self.stride * (fps / self.fps if self.fps is not None else 1)
        start = {"random": rng.random(), "first": 0.0, "middle": 0.5}[self.start]
        indices = clip_indices(total, self.frames, step, start)
        if indices is None and (self.short == "skip" or total < 1):
            needed = round(step * (self.frames - 1)) + 1
            raise Broken(f"it has {total} frames of the {needed} that a clip needs (data.short=hold repeats the last)")
        return indices or tuple(min(round(step * i), total - 1) for i in range(self.frames))

    def _pixels(self, frames: np.ndarray) -> Tensor:
        import torch

        return fit(torch.from_numpy(frames).permute(0, 3, 1, 2), self.size, self.crop)

    def only(self, items: Sequence[int]) -> Sequence[Any]:
        """What stands for some of the items."""
        return [self.items[item] for item in items]

    def as_validation(self) -> Any:
        """A copy that takes its items in order and its clips from the middle, where they would begin at random."""
        held_out = self.copied()
        held_out.shuffle = False
        held_out.start = "middle" if self.start == "random" else self.start
        return held_out

    def copied(
        self,
        captioned: bool = True,
        size: int | Sequence[int] | None = None,
        items: Sequence[int] | None = None,
    ) -> Any:
        """The same items once more, in an order of their own.

        Args:
            captioned: False neither looks for captions nor misses them: all are empty.
            size: Another height and width; None keeps them.
            items: Some of the items; None keeps all.
        """
        other = copy.copy(self)
        other._orders, other.captioned = {}, self.captioned and captioned
        other.size = self.size if size is None else size_of(size)
        other.items = self.items if items is None else self.only(items)
        if self._validation is not None:
            other._validation = self._validation.copied(captioned, size)
        return other


def size_of_image(file: Path) -> tuple[int, int]:
    """Height and width of an image, upright, without decoding it. Raises Broken."""
    from PIL import Image

    try:
        with Image.open(file) as opened:
            turned = opened.getexif().get(ORIENTATION, 1) >= 5  # a quarter turn
            return opened.size if turned else opened.size[::-1]
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise Broken(f"it cannot be read as an image ({' '.join(str(error).split())[:120]})") from error


def read_image(file: Path) -> np.ndarray:
    """The image (1, H, W, 3), uint8 RGB, upright; what is transparent is black, and 16 bits become 8. Raises Broken."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            upright = ImageOps.exif_transpose(opened)
            if upright.mode in ("LA", "PA", "RGBA", "P"):
                upright = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, (0, 0, 0, 255)), upright)
            elif upright.mode.startswith("I"):  # Pillow would cut its 16 bits at 255, not scale them
                upright = Image.fromarray((np.asarray(upright) / 257).round().clip(0, 255).astype(np.uint8))
            return np.array(upright.convert("RGB"))[None]
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise Broken(f"it cannot be read as an image ({' '.join(str(error).split())[:120]})") from error


def read_picture(path: str | Path, key: str) -> np.ndarray:
    """A picture (1, H, W, 3) that a user names, as ``read_image``. Raises BadRequest, which says that ``key`` cannot be
    read."""
    try:
        return read_image(Path(path).expanduser())
    except Broken as error:
        raise BadRequest(f"{key}: {error}. Give a PNG or JPEG file.") from error
