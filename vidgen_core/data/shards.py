"""WebDataset shards: tar files of videos or images with their captions, read at random.

The library reads shards as streams, whose order depends on who reads what. Training wants a sample to be a function of
its number, so the members of each tar are indexed once, by the library's own rules, and then read where they lie, or in
a copy on the local disk.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from vidgen_core.data.clips import ENDINGS, Clips
from vidgen_core.data.epochs import Broken
from vidgen_core.data.latent_cache import file_identity
from vidgen_core.data.listing import CAPTIONS, caption_in
from vidgen_core.data.shard_cache import ShardCache, base_name, is_remote
from vidgen_core.data.shard_index import TEXTS, Part, ShardIndex
from vidgen_core.errors import BadRequest, VidgenError

WHAT = "a folder of .tar files, or their names: shards-{0000..0041}.tar, also as https://"


class Shards(Clips):
    """Samples of shards, in the order of shards and members.

    Of the parts of a sample the first of the right kind is shown; a caption is its ``txt`` part, or ``caption``,
    ``text`` or ``prompt`` inside its ``json`` part.

    Args:
        path: A folder of tars, or their names with braces: ``shards-{0000..0041}.tar``, also as ``https://``.
        validation: The same, held out for validation.
        caption: For samples without one.
        shard_cache, shard_cache_gb: As for ``ShardCache``.

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
        shard_cache: str | None = None,
        shard_cache_gb: float = 100.0,
    ) -> None:
        super().__init__(kind, frames, stride, fps, start, short, size, crop, shuffle)
        self.default = caption
        self.shards = ShardCache(shard_cache, shard_cache_gb)
        self.items: ShardIndex = read_shards("data.path", path, kind, self.shards)
        if validation is not None:
            self._validation = self.as_validation()
            self._validation.items = read_shards("data.validation", validation, kind, self.shards)

    def name(self, item: int) -> str:
        """``shard/key``."""
        sample = self.items[item]
        return f"{base_name(sample.shard)}/{sample.key}"

    def caption(self, item: int) -> str:
        sample = self.items[item]
        for part in sample.texts:
            found = _caption(part, self._content(sample.shard, part))
            if found is not None:
                return found
        if self.default is None:
            raise Broken(f"it has no caption: no txt part and no json part that holds one ({self.uncaptioned})")
        return self.default

    def check_captions(self, key: str) -> None:
        """Raise BadRequest, which names the key, where no sample at all may have a caption: nothing could be shown."""
        if self.default is None and not any(sample.texts for sample in self.items):
            raise BadRequest(
                f"{key}: none of the {len(self)} samples has a caption, such as '{self.name(0)}': no "
                f"{', '.join(TEXTS)} part and no json part ({self.uncaptioned})."
            )

    def identity(self, item: int) -> tuple[Any, ...]:
        sample = self.items[item]
        shard = (sample.shard,) if is_remote(sample.shard) else file_identity(Path(sample.shard))
        return (*shard, sample.media.offset, sample.media.size)

    @contextmanager
    def opened(self, item: int) -> Iterator[Path]:
        sample = self.items[item]
        with tempfile.TemporaryDirectory(prefix="vidgen-") as folder:
            file = Path(folder) / f"{Path(sample.key).name}.{sample.media.ending}"
            file.write_bytes(self._content(sample.shard, sample.media))
            try:
                yield file
            except (Broken, VidgenError) as error:  # the copy's name says nothing
                raise Broken(str(error).replace(str(file), file.name)) from error

    def only(self, items: Sequence[int]) -> ShardIndex:
        return self.items.only(items)

    def permuted(self, rng: np.random.Generator) -> np.ndarray:
        return self.items.permuted(rng)

    def _content(self, shard: str, part: Part) -> bytes:
        with self.shards.open(shard) as file:
            file.seek(part.offset)
            content = file.read(part.size)
        if len(content) < part.size:
            raise Broken("its shard ends before it does")
        return content


def read_shards(key: str, path: str | None, kind: str, cache: ShardCache) -> ShardIndex:
    """The samples of all shards that a key names. Raises BadRequest."""
    library = _webdataset()
    if not path:
        raise BadRequest(f"The data is not given: {key}=... is {WHAT}.")
    place = Path(path).expanduser()
    if not is_remote(path) and place.is_dir():
        shards = sorted(str(file) for file in place.glob("*.tar"))
    else:
        shards = _expanded(library, path if is_remote(path) else str(place))
    missing = next((shard for shard in shards if not is_remote(shard) and not Path(shard).is_file()), None)
    if missing is not None or not shards:
        which = f"there is no '{missing}'" if missing else "it holds no .tar file"
        raise BadRequest(f"{key}={path}: {which}. Give {WHAT}.")
    samples = ShardIndex(library, shards, kind, cache)
    if not samples:
        raise BadRequest(f"{key}={path} holds no {kind} ({', '.join(ENDINGS[kind])}); data.kind is videos or images.")
    return samples


def _webdataset() -> ModuleType:
    try:
        import webdataset
    except ImportError as error:
        raise BadRequest("data=shards needs webdataset: pip install 'vidgen[data]'.") from error
    return webdataset


def _expanded(library: ModuleType, names: str) -> list[str]:
    try:
        return list(library.shardlists.expand_urls(names))
    except Exception as error:  # unbalanced braces, or an environment variable that is not set
        raise BadRequest(f"'{names}' names no shards ({error}). Give {WHAT}.") from error


def _caption(part: Part, content: bytes) -> str | None:
    try:
        text = content.decode("utf-8-sig")
        if part.ending != "json":
            return text.strip()
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Broken(f"its {part.ending} part cannot be read: {error}") from error
    return caption_in(value, CAPTIONS) if isinstance(value, dict) else None
