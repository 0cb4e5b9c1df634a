"""One picture of a whole video: frames evenly over time, under the prompt that they show."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from vidgen_core.request import Scene

COLUMNS = 8
TILE = 128  # pixels, the longer side of a tile
LINE = 18  # pixels of a line of text


class ContactSheet:
    """Collects a bounded number of small frames while a video passes, and draws them.

    Args:
        path: The PNG to write.
        scenes: The video's scenes; each begins a new row under its prompt.
        most: Frames kept at the most; with more, every second one is dropped and the stride doubles.
    """

    def __init__(self, path: Path, scenes: Sequence[Scene], most: int = 96) -> None:
        self.path = path
        self._scenes = list(scenes)
        self._most = most
        self._stride = 1
        self._seen = 0
        self._tiles: dict[int, Any] = {}

    def write(self, frames: np.ndarray) -> None:
        """Look at frames (F, H, W, 3), uint8 RGB, in order."""
        for frame in frames:
            if self._seen % self._stride == 0:
                self._tiles[self._seen] = _tile(frame)
            if len(self._tiles) > self._most:
                self._stride *= 2
                self._tiles = {index: tile for index, tile in self._tiles.items() if index % self._stride == 0}
            self._seen += 1

    def close(self) -> list[Path]:
        """Draw the sheet; returns what was written."""
        if not self._tiles:
            return []
        rows = [(caption, self._chosen(start, stop)) for caption, start, stop in self._spans()]
        self._draw([(caption, tiles) for caption, tiles in rows if tiles]).save(self.path)
        return [self.path]

    def _spans(self) -> list[tuple[str, int, int]]:
        if not self._scenes:
            return [("", 0, self._seen)]
        stops = [scene.stop for scene in self._scenes[:-1]] + [max(self._seen, self._scenes[-1].stop)]
        return [
            (f"{scene.start}-{stop - 1}: {scene.prompt}", scene.start, stop)
            for scene, stop in zip(self._scenes, stops, strict=True)
        ]

    def _chosen(self, start: int, stop: int) -> list[tuple[int, Any]]:
        # A row for a scene of a story, two rows for a single scene, evenly from its first frame to its last.
        inside = [index for index in self._tiles if start <= index < stop]
        count = min(len(inside), COLUMNS * (2 if len(self._scenes) < 2 else 1))
        picks = [inside[round(i * (len(inside) - 1) / max(count - 1, 1))] for i in range(count)]
        return [(index, self._tiles[index]) for index in picks]

    def _draw(self, rows: Sequence[tuple[str, Sequence[tuple[int, Any]]]]) -> Any:
        from PIL import Image, ImageDraw, ImageFont

        width, height = next(iter(self._tiles.values())).size
        columns = min(COLUMNS, max(len(tiles) for _, tiles in rows))
        wide = columns * (width + 4) + 4
        captions = [textwrap.wrap(caption, max(wide // 8, 20))[:4] for caption, _ in rows]
        lines = [-(-len(tiles) // columns) for _, tiles in rows]
        tall = sum(len(c) * LINE + 6 + n * (height + LINE) for c, n in zip(captions, lines, strict=True)) + 4
        sheet = Image.new("RGB", (wide, tall), "white")
        draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
        y = 4
        for (_, tiles), caption, count in zip(rows, captions, lines, strict=True):
            for line in caption:
                draw.text((4, y), line, fill="black", font=font)
                y += LINE
            for place, (index, tile) in enumerate(tiles):
                x, row = 4 + place % columns * (width + 4), place // columns
                sheet.paste(tile, (x, y + row * (height + LINE)))
                draw.text((x, y + row * (height + LINE) + height), str(index), fill="gray", font=font)
            y += count * (height + LINE) + 6
        return sheet


def _tile(frame: np.ndarray) -> Any:
    from PIL import Image

    picture = Image.fromarray(frame)
    scale = TILE / max(picture.size)
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    # Small frames grow by whole pixels, so that what is seen is what was made.
    return picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
