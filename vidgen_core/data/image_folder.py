"""A folder of images as a clip: a frame each, in the natural order of their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from vidgen_core.data.clips import IMAGES, read_image, size_of_image
from vidgen_core.data.epochs import Broken
from vidgen_core.errors import BadRequest

Found = TypeVar("Found")


class ImageFolder:
    """The images of a folder, without those of folders in it.

    Raises BadRequest for a folder that holds none.
    """

    def __init__(self, path: Path) -> None:
        found = [file for file in path.iterdir() if file.suffix.lower() in IMAGES and not file.name.startswith(".")]
        if not found:
            raise BadRequest(f"The folder '{path}' holds no images ({', '.join(IMAGES)}).")
        self.files = sorted(found, key=lambda file: natural(file.name))

    def __len__(self) -> int:
        return len(self.files)

    def frames(self, indices: Sequence[int]) -> list[np.ndarray]:
        """Images (H, W, 3), uint8 RGB, each of its own size. Raises BadRequest that names one that cannot be read."""
        return [_usable(read_image, self.files[index])[0] for index in indices]

    def sizes(self, indices: Sequence[int]) -> list[tuple[int, int]]:
        """Height and width of images, upright. Raises BadRequest that names one that cannot be read."""
        return [_usable(size_of_image, self.files[index]) for index in indices]


def _usable(read: Callable[[Path], Found], file: Path) -> Found:
    try:
        return read(file)
    except Broken as error:
        raise BadRequest(f"'{file}' is not to be used: {error}.") from error


def natural(name: str) -> tuple[list[tuple[str, int]], str]:
    """A key that sorts ``2.png`` before ``10.png``: texts and numbers in turn, then the name itself."""
    parts = re.split(r"(\d+)", name)
    return [(text.lower(), int(number)) for text, number in zip(parts[::2], [*parts[1::2], "0"], strict=True)], name
