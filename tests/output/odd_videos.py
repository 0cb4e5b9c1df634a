"""Videos as phones, browsers and editors write them, made with PyAV for the tests of reading."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BACKENDS = ("decord", "pyav")
TICKS = 600
"""Ticks of a second in which ``times`` are given."""

UNEVEN = [0, 25, 75, 85, 160, 185, *(200 + 40 * i + i % 3 for i in range(18))]
"""Times of 24 frames that do not follow one another evenly."""

OPEN_GOP = "open-gop=1:keyint=6:min-keyint=6:scenecut=0:bframes=3:b-adapt=0"
FRAGMENTED = "frag_keyframe+empty_moov"


def greys(frames: int = 24, height: int = 64, width: int = 96) -> np.ndarray:
    """Frame i is flat, of grey 8 i, so that a frame can be told by its value."""
    values = (np.arange(frames, dtype=np.uint8) * 8)[:, None, None, None]
    return np.broadcast_to(values, (frames, height, width, 3)).copy()


def told(frames: np.ndarray) -> list[int]:
    """Which of the ``greys`` frames (F, H, W, 3) are."""
    return [round(float(frame.mean()) / 8) for frame in frames]


def encoded(
    path: Path,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    pictures: np.ndarray | None = None,
    times: Sequence[int] | None = None,
    **options: str,
) -> Path:
    """A video of pictures (F, H, W, 3), 24 a second or at times of their own; the container is that of the name."""
    pictures = greys() if pictures is None else pictures
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24, options=options)
        stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], pix_fmt
        if times is not None:
            stream.codec_context.time_base = Fraction(1, TICKS)
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = (i, Fraction(1, 24)) if times is None else (times[i], Fraction(1, TICKS))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def remuxed(path: Path, name: str, later: int = 0, skip: int = 0, **options: str) -> Path:
    """The same packets beside it: shown ``later`` frames of 24 a second later, without the first ``skip`` ones."""
    copy = path.with_name(name)
    with av.open(str(path)) as given, av.open(str(copy), "w", options=options) as container:
        source = given.streams.video[0]
        stream = container.add_stream_from_template(source)
        shift = int(later / source.time_base / 24)
        for packet in [packet for packet in given.demux(source) if packet.size][skip:]:
            packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
            container.mux(packet)
    return copy


def with_matrix(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """A copy of an mp4 file that is shown with a point (x, y) at (a x + c y, b x + d y); the matrix is (a, b, c, d)."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    assert data[place : place + 36] == struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    a, b, c, d = (value << 16 for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    copy = path.with_name(f"shown {path.name}")
    copy.write_bytes(data)
    return copy
