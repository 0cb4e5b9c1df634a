"""Writing H.264 as frames arrive: they are on disk as the video grows, whatever ends the process afterwards.

While it grows, the file is a fragmented mp4 with a fragment for each frame and no reordering in the encoder, so memory
does not grow with length and a killed run leaves a playable file, of all frames but the last: the muxer writes a frame
out when the next one tells how long it lasts. ``make_plain`` then gives a finished video the layout
that every player and browser seeks in: one index, at the front.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidgen_core.errors import VidgenError

if TYPE_CHECKING:
    import numpy as np

_NO_FOLDER = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST),
    *(errno.ENOENT, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL),
)
"""Errors of a place where no run can write, whatever is mended on the disk."""

FLAGS = "frag_every_frame+empty_moov+default_base_moof+use_metadata_tags"


class VideoWriter:
    """An mp4 that grows frame by frame.

    Args:
        path: The file to write.
        fps: Frames a second.
        metadata: Text tags of the file, such as ``comment``.
        crf: H.264 quality, 0 (lossless) to 51; 12 keeps flat colours and sharp edges.
        keep_frames: Keep this many frames of an existing file, without encoding them again, and go on after them.

    Raises:
        VidgenError: the file cannot be written: no space, no permission.
    """

    def __init__(
        self,
        path: Path,
        fps: int,
        metadata: Mapping[str, str] | None = None,
        crf: int = 12,
        keep_frames: int = 0,
    ) -> None:
        self.path = path
        self.frames = 0
        self._fps, self._metadata, self._crf, self._keep = fps, dict(metadata or {}), crf, keep_frames
        self._container: Any = None
        self._stream: Any = None

    def write(self, frames: np.ndarray) -> None:
        """Append frames (F, H, W, 3), uint8 RGB. An odd side gets its last line twice: H.264 needs even."""
        import numpy as np

        pad = [(0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)]
        frames = np.pad(frames, pad, mode="edge")
        with self._explained():
            if self._container is None:
                self._open(frames.shape[2], frames.shape[1])
            self._encode(frames)

    def close(self) -> list[Path]:
        """Finish the file; returns what was written."""
        if self._container is None and self._keep and self.path.is_file():
            return [self.path]
        if self._container is None:
            return []
        with self._explained():
            for packet in self._stream.encode(None):
                self._container.mux(packet)
            self._container.close()
        self._container = None
        return [self.path]

    def _open(self, width: int, height: int) -> None:
        part = self.path.with_suffix(".part.mp4") if self._keep else self.path
        self._start(part, width, height)
        if self._keep:
            self._copy_kept()
            os.replace(part, self.path)  # the open file goes on under its final name

    def _start(self, path: Path, width: int, height: int) -> None:
        import av

        options = {"movflags": FLAGS, "flush_packets": "1"}
        self._container = av.open(str(path), "w", format="mp4", options=options)
        self._container.metadata.update(self._metadata)
        self._stream = self._container.add_stream("libx264", rate=self._fps)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        # Zero latency: no frame waits in the encoder for later ones.
        self._stream.options = {"crf": str(self._crf), "preset": "medium", "tune": "zerolatency", "g": "24"}
        self._stream.codec_context.thread_count = 1

    def _copy_kept(self) -> None:
        import av
        from av.bitstream import BitStreamFilterContext

        self._container.start_encoding()
        with av.open(str(self.path)) as old:
            source = old.streams.video[0]
            # The muxer expects packets as this encoder makes them: with start codes.
            annex_b = BitStreamFilterContext("h264_mp4toannexb", source)
            for packet in old.demux(source):
                if packet.dts is None or self.frames == self._keep:
                    break
                for converted in annex_b.filter(packet):
                    converted.stream = self._stream
                    self._container.mux(converted)
                self.frames += 1

    def _encode(self, frames: np.ndarray) -> None:
        import av

        for picture in frames:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = self.frames
            frame.time_base = Fraction(1, self._fps)
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
            self.frames += 1

    def _explained(self) -> Any:
        return explained(self.path)


def whole_frames(path: Path) -> int:
    """Frames of a file that may have been cut off anywhere; one whose bytes are not all there does not count."""
    import av

    count = 0
    try:
        with av.open(str(path)) as container:
            for packet in container.demux(container.streams.video[0]):
                if packet.is_corrupt:
                    break
                count += packet.size > 0
    except (OSError, IndexError, av.FFmpegError):
        pass  # not there, without a video yet, or cut in the middle of a fragment's header
    return count


def make_plain(path: Path) -> None:
    """Turn a finished, fragmented mp4 into one with a single index at its front; nothing is encoded again.

    The growing file is replaced only by a whole one; it stays, and plays, where the copy finds no space.
    """
    import av

    part = path.with_suffix(".part.mp4")
    brands = ("major_brand", "minor_version", "compatible_brands", "encoder")
    options = {"movflags": "faststart+use_metadata_tags"}
    try:
        with av.open(str(path)) as old, av.open(str(part), "w", format="mp4", options=options) as new:
            new.metadata.update({tag: text for tag, text in old.metadata.items() if tag not in brands})
            source = old.streams.video[0]
            stream = new.add_stream_from_template(source)
            for packet in old.demux(source):
                if packet.dts is not None:
                    packet.stream = stream
                    new.mux(packet)
        os.replace(part, path)
    except (OSError, av.FFmpegError):
        return
    finally:
        part.unlink(missing_ok=True)


class explained:
    """Turn an error of the file system or the encoder into one paragraph that names the file and the mend."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        import av

        if isinstance(error, OSError | av.FFmpegError):
            number = getattr(error, "errno", None)
            if number == errno.ENOSPC:
                mend = (
                    "The disk is full: free some space, or write elsewhere with output.dir=..., then add resume=true."
                )
            elif number in _NO_FOLDER:
                mend = "The folder cannot be written: choose another with output.dir=..."
            else:
                mend = "Check the disk and the folder, then go on with resume=true."
            raise VidgenError(
                f"'{self.path}' cannot be written ({error}). {mend} What was written before stays."
            ) from error
