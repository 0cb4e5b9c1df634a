"""One captioned clip, again and again: what one-shot tuning trains on, and what an edit starts from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidgen_core.data import pixels
from vidgen_core.data.frame_sampling import even_indices
from vidgen_core.data.image_folder import ImageFolder
from vidgen_core.data.latent_cache import cache_key
from vidgen_core.data.sample import Batch, Draw, Sample
from vidgen_core.errors import BadRequest, nearest
from vidgen_core.models.loading import file_hash, located
from vidgen_core.video import VideoReader, size_of_video

if TYPE_CHECKING:
    from torch import Tensor

    from vidgen_core.data.latent_cache import LatentCache

SPREADS = ("stride", "even")
FITS = ("stretch", "resize_center")


class OneClip:
    """A source whose every sample is the same clip. It is read when it is needed, once in a process, and kept.

    Args:
        path: A video file (a gif, too), ``pkg://package/folder/file.mp4``, or a folder of images, which are taken in
            the natural order of their names.
        captions: One text for each scene; the frames are shared out evenly among several.
        num_frames: F, frames of the clip.
        size: Height and width of the samples.
        start: The first frame that is taken, counted from 0.
        stride: Frames of the file from one frame of the clip to the next.
        spread: ``stride``, or ``even``: the frames are spread from ``start`` to the end, both included.
        fit: ``stretch`` scales whole frames to ``size``, whatever their aspect, as decord does for its ``width`` and
            ``height``; ``resize_center`` keeps the aspect and cuts what is too much.
        parity: As published: a file that ends early gives fewer frames.
        keys: What stands before the names of these options where the user writes them: ``<method>.``, in messages.

    Attributes:
        cache: What the VAE made of the clip, or None; frames that are all kept there are not decoded.

    Raises:
        BadRequest: a value is none of its kind. Whether the file serves is said by ``check``, or on reading.
    """

    cache: LatentCache | None = None
    recurring = True

    def __init__(
        self,
        path: str | Path,
        captions: Sequence[str],
        num_frames: int,
        size: tuple[int, int],
        start: int = 0,
        stride: int = 1,
        spread: str = "stride",
        fit: str = "stretch",
        parity: bool = False,
        keys: str = "",
    ) -> None:
        self.keys = keys
        for name, chosen, choices in (("spread", spread, SPREADS), ("fit", fit, FITS)):
            if chosen not in choices:
                raise BadRequest(f"{keys}{name}={chosen} is none of {', '.join(choices)}.{nearest(chosen, choices)}")
        for name, value, least in (("num_frames", num_frames, 1), ("stride", stride, 1), ("start", start, 0)):
            if value < least:
                full = name if name == "num_frames" else f"{keys}{name}"
                raise BadRequest(f"{full}={value} is too small. Give {least} or more.")
        if spread == "even" and stride != 1:
            raise BadRequest(f"{keys}stride={stride} has no meaning where the frames are spread evenly. Leave it out.")
        self.path, self.num_frames, self.size = str(path), num_frames, (int(size[0]), int(size[1]))
        self.captions = (captions,) if isinstance(captions, str) else tuple(captions)
        self.start, self.stride, self.spread, self.fit, self.parity = start, stride, spread, fit, parity
        if not self.captions:
            raise BadRequest(f"'{path}' has no caption. Say what it shows.")

    def __len__(self) -> int:
        return 1

    def __getstate__(self) -> dict[str, Any]:
        """Without what was read: a worker reads it itself."""
        return {name: value for name, value in vars(self).items() if name not in ("_file", "_frames")}

    def held_out(self) -> None:
        """None: validation sees the clip, too."""
        return None

    def check(self) -> None:
        """Raise BadRequest unless the file is there, says how many frames it has, and they are enough.

        Nothing is decoded.
        """
        _ = self.scene_frames

    def frames(self) -> Tensor:
        """The clip (F, 3, H, W), uint8. Raises BadRequest for a file that does not serve or cannot be decoded."""
        return self._frames

    def originals(self) -> Iterator[Tensor]:
        """Each frame (1, 3, H', W'), uint8, whole and as large as in the file. Raises BadRequest as ``frames``."""
        return self._read(stretched=False)

    def alike(self, path: str | Path) -> OneClip:
        """Another file, from which frames are taken and cut as from this one."""
        choice = (self.num_frames, self.size, self.start, self.stride, self.spread, self.fit, self.parity, self.keys)
        return OneClip(path, self.captions, *choice)

    def cut(self, maps: Tensor, own: bool = False) -> Tensor:
        """Maps of whole frames, cut as the clip's frames are cut; as they come where whole frames are stretched.

        Args:
            maps: (F, H', W') float32, of any size.
            own: They show the frames of this clip, whose aspect counts, whatever the maps were squeezed into. Of other
                maps their own counts.

        Returns:
            (F, *size), or the maps themselves. Raises BadRequest for a clip that cannot be read.
        """
        import torch

        if self.fit == "stretch":
            return maps
        shapes = self._shapes if own else [(maps.shape[-2], maps.shape[-1])] * len(maps)
        whole = (pixels.fit(frame[None, None], shape, "stretch") for frame, shape in zip(maps, shapes, strict=True))
        return torch.cat([pixels.fit(frame, self.size, self.fit)[0] for frame in whole])

    @property
    def content(self) -> str:
        """What tells these frames, as they come, from all others: of the files' bytes, which frames, size and fit."""
        return hashlib.sha256(repr((self._digest, self.indices, self.size, self.fit)).encode()).hexdigest()[:16]

    @property
    def total(self) -> int:
        """Frames of the file."""
        return len(self._file)

    @cached_property
    def indices(self) -> tuple[int, ...]:
        """Which frames of the file are taken. Raises BadRequest where they are not enough."""
        return self.chosen(len(self._file), self.path)

    def chosen(self, total: int, path: str) -> tuple[int, ...]:
        """Which of ``total`` frames, or maps of frames, in ``path`` are taken. Raises BadRequest for too few."""
        if total == 0:
            raise BadRequest(f"'{path}' has no frames. Is it a damaged file?")
        if self.start >= total:
            raise BadRequest(
                f"'{path}' has {_frames(total)}: 0..{total - 1}; {self.keys}start={self.start} is none of them."
            )
        fitting = tuple(range(self.start, total, self.stride))
        if len(fitting) < self.num_frames and not self.parity:
            raise BadRequest(self._too_short(total, len(fitting), path))
        if self.spread == "even":
            return tuple(self.start + index for index in even_indices(total - self.start, self.num_frames))
        return fitting[: self.num_frames]

    @property
    def scene_frames(self) -> tuple[int, ...]:
        """Frames of each scene. Raises BadRequest for more captions than frames."""
        frames, scenes = len(self.indices), len(self.captions)
        if scenes > frames:
            raise BadRequest(f"{scenes} captions for {_frames(frames)} of '{self.path}' leave scenes without any.")
        return tuple(end - begin for begin, end in pairwise(i * frames // scenes for i in range(scenes + 1)))

    @property
    def cache_keys(self) -> tuple[str, ...]:
        """One key per scene under which the moments of its frames are kept."""
        borders = [sum(self.scene_frames[:i]) for i in range(len(self.captions) + 1)]
        shown = [self.indices[begin:end] for begin, end in pairwise(borders)]
        return tuple(cache_key(self._digest, indices, self.size, self.fit) for indices in shown)

    def draw(self, draw: Draw) -> Batch:
        """The clip, as often as samples are asked for."""
        moments = None if self.cache is None else self.cache.moments(self.cache_keys, self.scene_frames)
        frames = self.frames() if moments is None else None
        shares, keys = self.scene_frames, self.cache_keys
        samples = [
            Sample(self.captions, shares, frames, moments, keys, name=self.path, number=number)
            for number in draw.numbers
        ]
        return Batch(samples, draw)

    @cached_property
    def _file(self) -> VideoReader | ImageFolder:
        place = located(self.path)
        if place.is_dir():
            return ImageFolder(place)
        if not place.is_file():
            raise BadRequest(f"There is no clip '{self.path}'. Give a video file or a folder of images.")
        return VideoReader(place, "pyav")  # for a few frames decord saves nothing

    @cached_property
    def _frames(self) -> Tensor:
        import torch

        return torch.cat([pixels.fit(frame, self.size, self.fit) for frame in self._read(self.fit == "stretch")])

    def _read(self, stretched: bool) -> Iterator[Tensor]:
        # One by one, (1, 3, H, W): images differ in size, and frames as they were may be large.
        import torch

        read: Iterable[Any]
        if isinstance(self._file, VideoReader):
            read = self._file.frames(self.indices, self.size if stretched else None)
        else:
            read = self._file.frames(self.indices)
        return (torch.from_numpy(frame).permute(2, 0, 1)[None] for frame in read)

    @property
    def _shapes(self) -> list[tuple[int, int]]:
        # Height and width of each frame in the file.
        if isinstance(self._file, VideoReader):
            return [size_of_video(self._file.path)] * len(self.indices)
        return self._file.sizes(self.indices)

    @cached_property
    def _digest(self) -> str:
        file = self._file
        used = [file.path] if isinstance(file, VideoReader) else [file.files[index] for index in self.indices]
        return hashlib.sha256(b"".join(_digest_of(path) for path in used)).hexdigest()

    def _too_short(self, total: int, fitting: int, path: str) -> str:
        reach = (self.num_frames - 1) * self.stride + 1
        strided = f" with {self.keys}stride={self.stride}" if self.stride > 1 else ""
        stride = (total - 1 - self.start) // (self.num_frames - 1)
        mends = [f"num_frames={fitting} or fewer"]
        mends += [f"{self.keys}stride={stride}"] if stride else []
        mends += [f"{self.keys}start={total - reach} or less"] if reach <= total else []
        return (
            f"'{path}' has {_frames(total)}; {_frames(self.num_frames)} from {self.keys}start={self.start}{strided} "
            f"need {self.start + reach}. Ask for {', or '.join(mends)}."
        )


def _digest_of(path: Path) -> bytes:
    try:
        return bytes.fromhex(file_hash(path))
    except OSError as error:
        raise BadRequest(f"'{path}' cannot be read: {error.strerror}.") from error


def _frames(count: int) -> str:
    return f"{count} frame{'' if count == 1 else 's'}"
