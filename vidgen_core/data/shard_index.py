"""Which samples shards hold and where: the members of each tar, indexed once by webdataset's own rules.

With a folder for it the index is kept there, a file for every shard, and read again where a sample is asked for: the
memory then holds a number for every sample, not its names.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import sys
import tarfile
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from vidgen_core.data.clips import ENDINGS
from vidgen_core.data.epochs import Broken
from vidgen_core.data.latent_cache import file_identity
from vidgen_core.data.shard_cache import ShardCache, base_name, is_remote
from vidgen_core.errors import BadRequest

TEXTS = ("txt", "caption", "text")
"""Parts of a sample that are its caption as they stand; ``json`` holds it under one of the names of a table."""

AT_ONCE = 4
"""Share of the cache, one of so many, that the remote shards fill whose samples are mixed with each other."""

RULES = 2
"""Changes where other members are taken for a sample, so that indices made before are not read."""

NAMED = 3
"""Samples that a line names."""


@dataclass(frozen=True, slots=True)  # there may be millions
class Part:
    """A member of a tar."""

    ending: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)  # there may be millions
class Packed:
    """A sample: its key, its shard, a path or an address, and where its media file and its captions lie."""

    key: str
    shard: str
    media: Part
    texts: tuple[Part, ...]


class ShardIndex(Sequence[Packed]):
    """The samples of shards, in the order of shards and members.

    Raises BadRequest for a shard that cannot be read, or that is larger than the cache of remote ones.
    """

    def __init__(self, library: ModuleType, shards: Sequence[str], kind: str, cache: ShardCache) -> None:
        self._held: list[Path | tuple[Packed, ...]] = []
        counts, sizes = [], [0]
        for shard in shards:
            held, count, size = _indexed(library, shard, kind, cache)
            self._held.append(held)
            counts.append(count)
            sizes.append(size if is_remote(shard) else 0)
        self._starts = np.cumsum([0, *counts])
        self._items = np.arange(self._starts[-1])
        self.at_once = max(1, cache.size // (AT_ONCE * max(sizes))) if any(sizes) else len(shards)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, item: Any) -> Any:
        place = self._items[item]
        shard = int(self._shards_of(place))
        held = self._held[shard]
        samples = _stored(held) if isinstance(held, Path) else held
        return samples[place - self._starts[shard]]

    def only(self, items: Sequence[int]) -> ShardIndex:
        """Some of the samples."""
        other = copy(self)
        other._items = self._items[np.asarray(items, int)]
        return other

    def permuted(self, rng: np.random.Generator) -> np.ndarray:
        """An order of all samples. Those of a few remote shards come together: they are fetched once an epoch."""
        order = rng.permutation(len(self))
        if self.at_once >= len(self._held):
            return order
        turn = rng.permutation(len(self._held)) // self.at_once
        return order[np.argsort(turn[self._shards_of(self._items[order])], kind="stable")]

    def _shards_of(self, places: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._starts, places, side="right") - 1


def _indexed(
    library: ModuleType, shard: str, kind: str, cache: ShardCache
) -> tuple[Path | tuple[Packed, ...], int, int]:
    """The samples of a shard, or the file that holds them; their number; and the bytes of the shard."""
    file = None
    if cache.folder is not None:
        state = (shard,) if is_remote(shard) else file_identity(Path(shard))
        digest = hashlib.sha256(json.dumps([state, kind, RULES]).encode()).hexdigest()[:32]
        file = cache.folder / "index" / f"{digest}.json"
        if file.is_file():
            said = json.loads(file.read_text(encoding="utf-8"))
            return file, len(said["samples"]), said["size"]
        if is_remote(shard):
            print(f"fetching '{shard.partition('?')[0]}' to index it, once", file=sys.stderr)
    try:
        with cache.open(shard) as opened:
            size = os.fstat(opened.fileno()).st_size
            samples = _samples(library, shard, opened, kind)
    except (Broken, OSError, tarfile.TarError) as error:
        raise BadRequest(
            f"The shard '{shard}' cannot be read ({error}). Is it a damaged or a compressed tar?"
        ) from error
    if is_remote(shard) and size > cache.size:
        raise BadRequest(
            f"The shard '{shard}' takes {size / 1e9:.2g} GB, more than the copies of all may take, "
            f"data.shard_cache_gb={cache.size / 1e9:g}. Give more."
        )
    if file is None:
        return samples, len(samples), size
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(f".{os.getpid()}")
    told = {"shard": shard, "size": size, "samples": [dataclasses.astuple(sample) for sample in samples]}
    fresh.write_text(json.dumps(told), encoding="utf-8")
    fresh.replace(file)
    return file, len(samples), size


@lru_cache(maxsize=32)
def _stored(file: Path) -> tuple[Packed, ...]:
    """The samples of a shard whose index was kept."""
    said = json.loads(file.read_text(encoding="utf-8"))["samples"]
    return tuple(
        Packed(key, shard, Part(*media), tuple(Part(*text) for text in texts)) for key, shard, media, texts in said
    )


def _samples(library: ModuleType, shard: str, file: BinaryIO, kind: str) -> tuple[Packed, ...]:
    """The samples of one tar, of one that is cut those before the cut; what is left out is said."""
    found: list[Packed] = []
    without: list[str] = []
    try:
        for key, parts in _grouped(library, file):
            media = [part for part in parts if f".{part.ending.rpartition('.')[2]}" in ENDINGS[kind]]
            if not media:
                without.append(key)
                continue
            texts = [part for ending in (*TEXTS, "json") for part in parts if part.ending == ending]
            # Of a.depth.png and a.png the latter is the picture, and the former belongs to it.
            shown = min(media, key=lambda part: "." in part.ending)
            found.append(Packed(key, shard, shown, tuple(texts)))
    except tarfile.TarError as error:
        if not found:
            raise
        print(f"'{base_name(shard)}' is cut ({error}): its first {len(found)} samples are used", file=sys.stderr)
    if without:
        more = ", ..." if len(without) > NAMED else ""
        print(
            f"'{base_name(shard)}': {len(without)} samples hold no {kind} ({', '.join(ENDINGS[kind])}) and are left "
            f"out: {', '.join(without[:NAMED])}{more}",
            file=sys.stderr,
        )
    return tuple(found)


def _grouped(library: ModuleType, file: BinaryIO) -> Iterator[tuple[str, list[Part]]]:
    """Neighbouring members whose names agree up to the first point."""
    before = ""
    parts: list[Part] = []
    with tarfile.open(fileobj=file, mode="r:") as opened:
        for member in opened:
            opened.members = []  # type: ignore[attr-defined]  # tarfile would keep every header in memory
            key, ending = library.tariterators.base_plus_ext(member.name)
            if not member.isreg() or not key or re.match(r"__[^/]*__($|/)", member.name):
                continue
            if key != before and parts:
                yield before, parts
                parts = []
            before = key
            parts.append(Part(ending.lower(), member.offset_data, member.size))
    if parts:
        yield before, parts
