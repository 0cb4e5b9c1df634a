"""Videos of a few grey frames, lists of them, and draws, for the tests of data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from vidgen_core.data.sample import Draw
from vidgen_core.video_writer import VideoWriter


def write_video(path: Path, frames: int = 12, height: int = 32, width: int = 48, fps: int = 8) -> Path:
    """A clip whose frame i is a flat grey of 8 i, so that a frame can be told by its value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    greys = (np.arange(frames, dtype=np.uint8) * 8)[:, None, None, None]
    writer = VideoWriter(path, fps)
    writer.write(np.broadcast_to(greys, (frames, height, width, 3)).copy())
    writer.close()
    return path


def write_sound(path: Path) -> Path:
    """An mp4 with a sound and no video stream."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        silence = av.AudioFrame(format="fltp", layout="mono", samples=1024)
        silence.planes[0].update(bytes(4096))
        silence.sample_rate = 8000
        container.mux([*stream.encode(silence), *stream.encode(None)])
    return path


def shown(frames: Any) -> list[int]:
    """Which frames of such a clip a tensor (F, 3, H, W) holds, told by the middle pixel."""
    middle = frames[:, 0, frames.shape[2] // 2, frames.shape[3] // 2]
    return [round(int(value) / 8) for value in middle]


def batch_draw(first: int = 0, size: int = 1, seed: int = 0, step: int = 0) -> Draw:
    """A draw of ``size`` samples from number ``first``."""
    return Draw(tuple(range(first, first + size)), step, 0, 0, 0.0, seed)


def write_lines(path: Path, *values: Any) -> Path:
    """A file of JSON lines; a text stands as it is."""
    path.write_text("\n".join(v if isinstance(v, str) else json.dumps(v) for v in values) + "\n", encoding="utf-8")
    return path


def write_image(path: Path, grey: int = 0, height: int = 40, width: int = 24) -> Path:
    """A flat image, of value 8 ``grey``."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (8 * grey,) * 3).save(path)
    return path
