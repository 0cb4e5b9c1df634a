"""WebDataset shards: tar files of videos or images with their captions, read at random.

The library reads shards as streams, whose order depends on who reads what. Training wants a sample to be a function of
its number, so the members of each tar are indexed once, by the library's own rules, and then read where they lie.
"""

from __future__ import annotations

import json
import re
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from vidgen_core.data.clips import ENDINGS, Clips
from vidgen_core.data.epochs import Broken
from vidgen_core.data.latent_cache import file_identity
from vidgen_core.data.listing import CAPTIONS, caption_in
from vidgen_core.errors import BadRequest, VidgenError

WHAT = "a folder of .tar files, or their names: shards-{0000..0041}.tar"
TEXTS = ("txt", "caption", "text")
"""Parts of a sample that are its caption as they stand; ``json`` holds it under one of the names of a table."""


@dataclass(frozen=True, slots=True)  # there may be millions
class Part:
    """A member of a tar."""

    ending: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)  # there may be millions
class Packed:
    """A sample: its key, its shard, and where its media file and its captions lie."""

    key: str
    shard: Path
    media: Part
    texts: tuple[Part, ...]


class Shards(Clips):
    """Samples of shards on the local disk, in the order of shards and members.

    Of the parts of a sample the first of the right kind is shown; a caption is its ``txt`` part, or ``caption``,
    ``text`` or ``prompt`` inside its ``json`` part.

    Args:
        path: A folder of tars, or their names with braces: ``shards-{0000..0041}.tar``.
        validation: The same, held out for validation.
        caption: For samples without one.

    The others are those of ``Clips``.

    Raises:
        BadRequest: webdataset is not installed, or shards are missing or hold nothing of the kind.
    """

    def __init__(
        self,
        path: str | None = None,
        validation: str | None = None,
        caption: str | None = None,
        kind: str = "videos",
        frames: int = 16,
        stride: int = 1,
        fps: float | None = None,
        start: str = "random",
        short: str = "skip",
        size: int | Sequence[int] = 256,
        crop: str = "resize_center",
        shuffle: bool = True,
    ) -> None:
        super().__init__(kind, frames, stride, fps, start, short, size, crop, shuffle)
        self.default = caption
        self.items = read_shards("data.path", path, kind)
        if validation is not None:
            self._validation = self.as_validation()
            self._validation.items = read_shards("data.validation", validation, kind)

    def name(self, item: int) -> str:
        """``shard/key``."""
        sample = self.items[item]
        return f"{sample.shard.name}/{sample.key}"

    def caption(self, item: int) -> str:
        sample = self.items[item]
        for part in sample.texts:
            found = _caption(part, _content(sample.shard, part))
            if found is not None:
                return found
        if self.default is None:
            raise Broken(f"it has no caption: no txt part and no json part that holds one ({self.uncaptioned})")
        return self.default

    def identity(self, item: int) -> tuple[Any, ...]:
        sample = self.items[item]
        return (*file_identity(sample.shard), sample.media.offset, sample.media.size)

    @contextmanager
    def opened(self, item: int) -> Iterator[Path]:
        sample = self.items[item]
        with tempfile.TemporaryDirectory(prefix="vidgen-") as folder:
            file = Path(folder) / f"{Path(sample.key).name}.{sample.media.ending}"
            file.write_bytes(_content(sample.shard, sample.media))
            try:
                yield file
            except (Broken, VidgenError) as error:  # the copy's name says nothing
                raise Broken(str(error).replace(str(file), file.name)) from error


def read_shards(key: str, path: str | None, kind: str) -> list[Packed]:
    """The samples of all shards that a key names. Raises BadRequest."""
    library = _webdataset()
    if not path:
        raise BadRequest(f"The data is not given: {key}=... is {WHAT}.")
    place = Path(path).expanduser()
    shards = sorted(place.glob("*.tar")) if place.is_dir() else _expanded(library, str(place))
    missing = next((shard for shard in shards if not shard.is_file()), None)
    if missing is not None or not shards:
        which = f"there is no '{missing}'" if missing else "it holds no .tar file"
        raise BadRequest(f"{key}={path}: {which}. Give {WHAT}; shards are read from the local disk.")
    samples = [sample for shard in shards for sample in _index(library, shard, kind)]
    if not samples:
        raise BadRequest(f"{key}={path} holds no {kind} ({', '.join(ENDINGS[kind])}); data.kind is videos or images.")
    return samples


def _webdataset() -> ModuleType:
    try:
        import webdataset
    except ImportError as error:
        raise BadRequest("data=shards needs webdataset: pip install 'vidgen[data]'.") from error
    return webdataset


def _expanded(library: ModuleType, names: str) -> list[Path]:
    try:
        return [Path(name) for name in library.shardlists.expand_urls(names)]
    except Exception as error:  # unbalanced braces, or an environment variable that is not set
        raise BadRequest(f"'{names}' names no shards ({error}). Give {WHAT}.") from error


def _index(library: ModuleType, shard: Path, kind: str) -> Iterator[Packed]:
    """The samples of one tar: neighbouring members whose names agree up to the first point."""
    before = ""
    parts: list[Part] = []
    try:
        with tarfile.open(shard, "r:") as opened:
            for member in opened:
                opened.members = []  # type: ignore[attr-defined]  # tarfile would keep every header in memory
                key, ending = library.tariterators.base_plus_ext(member.name)
                if not member.isreg() or not key or re.match(r"__[^/]*__($|/)", member.name):
                    continue
                if key != before:
                    yield from _packed(before, shard, parts, kind)
                    before, parts = key, []
                parts.append(Part(ending.lower(), member.offset_data, member.size))
    except (OSError, tarfile.TarError) as error:
        raise BadRequest(
            f"The shard '{shard}' cannot be read ({error}). Is it a damaged or a compressed tar?"
        ) from error
    yield from _packed(before, shard, parts, kind)


def _packed(key: str, shard: Path, parts: Sequence[Part], kind: str) -> Iterator[Packed]:
    media = next((part for part in parts if f".{part.ending.rpartition('.')[2]}" in ENDINGS[kind]), None)
    if media is not None:
        texts = [part for ending in (*TEXTS, "json") for part in parts if part.ending == ending]
        yield Packed(key, shard, media, tuple(texts))


def _content(shard: Path, part: Part) -> bytes:
    with shard.open("rb") as file:
        file.seek(part.offset)
        content = file.read(part.size)
    if len(content) < part.size:
        raise Broken("its shard ends before it does")
    return content


def _caption(part: Part, content: bytes) -> str | None:
    try:
        text = content.decode("utf-8-sig")
        if part.ending != "json":
            return text.strip()
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Broken(f"its {part.ending} part cannot be read: {error}") from error
    return caption_in(value, CAPTIONS) if isinstance(value, dict) else None
