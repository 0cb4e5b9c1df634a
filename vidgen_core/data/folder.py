"""A folder, or a list, of videos or images with a caption each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidgen_core.data.clips import ENDINGS, Clips
from vidgen_core.data.epochs import Broken
from vidgen_core.data.latent_cache import file_identity
from vidgen_core.data.listing import given_file, read_listing, text_of
from vidgen_core.errors import BadRequest

WHAT = "a folder, or a list: .txt (a path per line, or path|||caption), .csv or .jsonl (with columns path and caption)"


@dataclass(frozen=True)
class Entry:
    """One file, as messages name it, and its caption where a table gives one."""

    name: str
    file: Path
    caption: str | None


class Folder(Clips):
    """Files below a folder, in the order of their names, or those of a list, in its order.

    A caption is looked for in the table, then in a text file beside (``clip.txt`` for ``clip.mp4``), then it is
    ``caption``; a file with none of these is left out as broken.

    Args:
        path: The folder or list.
        validation: The same, held out for validation.
        root: The folder that a list's paths begin at; None is the folder of the list.
        metadata: A ``.csv`` or ``.jsonl`` file with captions for the files of a folder, by their path in it.
        caption: For whatever has none of its own.

    The others are those of ``Clips``.

    Raises:
        BadRequest: the folder or list is missing, holds nothing, or is not what it should be.
    """

    def __init__(
        self,
        path: str | None = None,
        validation: str | None = None,
        root: str | None = None,
        metadata: str | None = None,
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
        self.items = read_entries("data.path", path, root, metadata, kind)
        if validation is not None:
            self._validation = self.as_validation()
            self._validation.items = read_entries("data.validation", validation, root, metadata, kind)

    def name(self, item: int) -> str:
        return self.items[item].name

    def caption(self, item: int) -> str:
        entry = self.items[item]
        beside = entry.file.with_suffix(".txt")
        if entry.caption is not None:
            return entry.caption
        if beside.is_file():
            return text_of(beside).strip()
        if self.default is None:
            raise Broken(f"it has no caption: no '{beside.name}' beside it and none in a table ({self.uncaptioned})")
        return self.default

    def check_captions(self, key: str) -> None:
        """Raise BadRequest, which names the key, where no file at all has a caption: nothing could be shown."""
        if not any(self._has_caption(item) for item in range(len(self))):
            raise BadRequest(
                f"{key}: none of the {len(self)} files has a caption, such as '{self.name(0)}': none in a table or "
                f"list, and no text file beside it ({self.uncaptioned})."
            )

    def _has_caption(self, item: int) -> bool:
        entry = self.items[item]
        return entry.caption is not None or self.default is not None or entry.file.with_suffix(".txt").is_file()

    def identity(self, item: int) -> tuple[Any, ...]:
        return file_identity(self.items[item].file)

    @contextmanager
    def opened(self, item: int) -> Iterator[Path]:
        yield self.items[item].file


def read_entries(key: str, path: str | None, root: str | None, metadata: str | None, kind: str) -> list[Entry]:
    """The files of a folder or list. Raises BadRequest where there are none, naming the key."""
    place = Path(path).expanduser() if path else None
    if place is None or not place.is_dir():
        file = given_file(key, path, WHAT)
        if metadata is not None:
            raise BadRequest(f"data.metadata={metadata} is for a folder; the list {key}={path} holds captions itself.")
        base = Path(root).expanduser() if root else file.parent
        return [Entry(name, base / name, caption) for name, caption in read_listing(file)]
    if root is not None:
        raise BadRequest(f"data.root={root} is for the paths of a list; {key}={path} is a folder.")
    files = sorted(p for p in files_below(place) if p.suffix.lower() in ENDINGS[kind] and not p.name.startswith("."))
    if not files:
        raise BadRequest(f"{key}={path} holds no {kind} ({', '.join(ENDINGS[kind])}); data.kind is videos or images.")
    names = [file.relative_to(place).as_posix() for file in files]
    captions = _captions(metadata, names) if metadata is not None else {}
    return [Entry(name, file, captions.get(name)) for name, file in zip(names, files, strict=True)]


def files_below(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """The files of a folder and of those in it, also of linked ones, but for links back to a folder around them."""
    real = folder.resolve()
    if real in above or not os.access(folder, os.R_OK | os.X_OK):
        return
    for path in folder.iterdir():
        if path.is_dir():
            yield from files_below(path, above | {real})
        else:
            yield path


def _captions(metadata: str, names: Sequence[str]) -> Mapping[str, str]:
    rows = read_listing(given_file("data.metadata", metadata, "a .csv or .jsonl file with columns path and caption"))
    captions = {Path(name).as_posix(): caption for name, caption in rows if caption is not None}
    if not captions.keys() & set(names):
        raise BadRequest(f"data.metadata={metadata} has a caption for none of the files, such as '{names[0]}'.")
    return captions
