"""Files of several sizes, none of which is cut to one for all: each goes to the bucket whose shape is nearest its own.

So a portrait is trained as a portrait, and a batch, which is of one bucket, still has one size.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import log
from typing import Any

from vidgen_core.data.clips import Clips
from vidgen_core.data.epochs import Broken
from vidgen_core.errors import VidgenError

Size = tuple[int, int]
"""Height and width."""

READERS = 8
"""Files whose headers are read at a time."""


def in_buckets(source: Clips, sizes: Sequence[Size]) -> dict[Size, Any]:
    """The files of a source by the size that each is trained in, in the order of ``sizes``; empty ones are left out.

    What the source holds out goes to the same sizes. A file that cannot be read is left to the largest bucket, which
    finds it broken as any other.
    """
    found = _split(source, sizes)
    held_out = source.held_out()
    validation = {} if held_out is None else _split(held_out, list(found))
    for size, part in found.items():
        part._validation = validation.get(size)
    return found


def nearest_size(own: Size, sizes: Sequence[Size]) -> Size:
    """The size of the nearest shape; of one shape the largest that a file fills, else the smallest."""

    def distance(size: Size) -> tuple[float, float, int]:
        shape = round(abs(log(size[0] * own[1] / (size[1] * own[0]))), 6)
        enlarged = max(1.0, size[0] / own[0], size[1] / own[1])
        return shape, enlarged, -size[0] * size[1]

    return min(sizes, key=distance)


def _split(source: Clips, sizes: Sequence[Size]) -> dict[Size, Any]:
    with ThreadPoolExecutor(READERS) as readers:
        own = list(readers.map(lambda item: _own_size(source, item), range(len(source))))
    items: dict[Size, list[int]] = {size: [] for size in sizes}
    for item, size in enumerate(own):
        if size is not None:
            items[nearest_size(size, sizes)].append(item)
    largest = max(items.values(), key=len)
    largest += [item for item, size in enumerate(own) if size is None]
    return {size: source.copied(size=size, items=sorted(chosen)) for size, chosen in items.items() if chosen}


def _own_size(source: Clips, item: int) -> Size | None:
    try:
        return source.own_size(item)
    except (Broken, VidgenError, OSError, ValueError):  # as where samples are drawn
        return None
