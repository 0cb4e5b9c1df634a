"""Frames as images: a gif, or a folder of PNG files."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


class FrameFolder:
    """A folder of ``00000.png`` and so on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0

    def write(self, frames: np.ndarray) -> None:
        """Append frames (F, H, W, 3), uint8 RGB."""
        from PIL import Image

        self.folder.mkdir(parents=True, exist_ok=True)
        for frame in frames:
            Image.fromarray(frame).save(self.folder / f"{self._count:05d}.png")
            self._count += 1

    def close(self) -> list[Path]:
        return [self.folder] if self._count else []


class Gif:
    """An endless gif, written frame by frame, each with a palette of its own 256 colours."""

    def __init__(self, path: Path, fps: int) -> None:
        self.path = path
        self._fps = fps
        self._container: Any = None
        self._stream: Any = None
        self._graph: Any = None
        self._count = 0

    def write(self, frames: np.ndarray) -> None:
        """Append frames (F, H, W, 3), uint8 RGB."""
        import av

        if self._container is None:
            self._container = av.open(str(self.path), "w", format="gif", options={"loop": "0"})
            self._stream = self._container.add_stream("gif", rate=self._fps)
            self._stream.height, self._stream.width = frames.shape[1:3]
            self._stream.pix_fmt = "pal8"
            self._graph = self._palettes(*frames.shape[1:3])
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = self._count, Fraction(1, self._fps)
            self._graph.push(picture)
            self._container.mux(self._stream.encode(self._graph.pull()))
            self._count += 1

    def _palettes(self, height: int, width: int) -> Any:
        # The format's fixed palette turns flat blues and greys into other colours.
        import av

        graph = av.filter.Graph()
        source = graph.add_buffer(width=width, height=height, format="rgb24", time_base=Fraction(1, self._fps))
        split, sink = graph.add("split"), graph.add("buffersink")
        palette = graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
        use = graph.add("paletteuse", "new=1:dither=none")
        source.link_to(split)
        split.link_to(palette, 0, 0)
        split.link_to(use, 1, 0)
        palette.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()
        return graph

    def close(self) -> list[Path]:
        if self._container is None:
            return []
        self._container.mux(self._stream.encode(None))
        self._container.close()
        self._container = None
        return [self.path]
