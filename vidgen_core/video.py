"""Reading video: one interface over decord (where it has a wheel) and PyAV; the frames are identical, bit for bit."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidgen_core.errors import BadRequest
from vidgen_core.video_frame import orientation, pixels

if TYPE_CHECKING:
    import numpy as np


INDEXED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
"""Containers whose packets carry the time of each frame, so that a frame can be sought. In others (avi, mpeg-ts, gif)
times are guesses and both libraries return wrong frames; there frames are counted from the first."""

PLAIN = ("yuv420p", "yuvj420p")
"""Pixel formats that both libraries' scalers turn into the same RGB, where the height is even."""


class VideoReader:
    """Frames of a video file by index, in the order of presentation, upright. Open one per worker process, after the
    fork.

    Attributes:
        fps: Frames a second, on average; 0 where the file does not say.

    Args:
        path: A video file.
        backend: ``decord``, ``pyav``, or None for decord where it is installed. What decord would show otherwise than
            PyAV (turned video, hidden frames, rare pixel formats) is read with PyAV all the same.

    Raises:
        BadRequest: the file is not there or holds no video.
    """

    def __init__(self, path: str | Path, backend: str | None = None) -> None:
        self.path = Path(path).expanduser()
        if not self.path.is_file():
            raise BadRequest(f"There is no video file '{self.path}'. Check the path.")
        plain = self._opened(lambda: self._scan(for_decord=backend != "pyav"))
        self._decord = self._by_decord(backend) if plain else None

    def __len__(self) -> int:
        return len(self._times)

    def frames(self, indices: Sequence[int], size: tuple[int, int] | None = None) -> np.ndarray:
        """The frames (len(indices), H, W, 3), uint8 RGB, in the order asked; each is decoded once.

        Args:
            size: Height and width that whole frames are scaled to, whatever their aspect, as decord's own ``height=``
                and ``width=`` scale them; None keeps their own.

        Raises BadRequest for an index outside 0..len - 1.
        """
        import numpy as np

        wrong = [index for index in indices if not 0 <= index < len(self)]
        if wrong:
            raise BadRequest(f"'{self.path}' has frames 0..{len(self) - 1}; frame {wrong[0]} was asked for.")
        wanted = sorted(set(indices))
        found = self._batch_of_decord(wanted) if size is None else None
        if found is None:
            found = self._opened(lambda: self._decoded(wanted, size))
        place = {index: i for i, index in enumerate(wanted)}
        picked: np.ndarray = np.asarray(found)[[place[index] for index in indices]]
        return picked

    def _by_decord(self, backend: str | None) -> Any:
        try:
            import decord
        except ImportError:
            if backend == "decord":
                raise BadRequest("decord is not installed; leave the backend out to read with PyAV.") from None
            return None
        try:
            reader = decord.VideoReader(str(self.path), num_threads=1)
        except Exception:  # PyAV reads more files, and says what is wrong with the others
            return None
        return reader if len(reader) == len(self) else None  # decord shows frames that an edit list hides

    def _batch_of_decord(self, wanted: Sequence[int]) -> np.ndarray | None:
        if self._decord is None:
            return None
        try:
            found: np.ndarray = self._decord.get_batch(wanted).asnumpy()
        except Exception:  # decord 0.6 fails on sizes that its scaler pads, such as 34 rows; PyAV reads the same frames
            self._decord = None
            return None
        return found

    def _opened(self, read: Any) -> Any:
        try:
            return read()
        except Exception as error:  # decord and PyAV each raise many kinds for a damaged file
            reason = " ".join(str(error).split())[:120]
            raise BadRequest(f"'{self.path}' cannot be read as video ({reason}). Is it a damaged file?") from error

    def _scan(self, for_decord: bool) -> bool:
        # Presentation times of all frames, and where decoding can begin, from packets; and whether decord is to read
        # the file. Nothing is decoded but, for decord, the first frame.
        import av

        with av.open(str(self.path)) as container:
            stream = _video_of(container)
            packets = [
                (packet.pts or 0, packet.dts, packet.is_keyframe, packet.is_discard)
                for packet in container.demux(stream)
                if packet.size
            ]
            self._indexed = container.format.name in INDEXED
            self._keys = sorted((time, time if dts is None else dts) for time, dts, is_key, _ in packets if is_key)
            # What a cut left without the key frame that it builds on cannot be decoded.
            first = self._keys[0][0] if self._indexed and self._keys else float("-inf")
            self._times = sorted(time for time, _, _, hidden in packets if not hidden and time >= first)
            self.fps = self._rate(stream)
            return for_decord and self._indexed and self._is_plain(container, stream)

    def _rate(self, stream: Any) -> float:
        told = float(stream.average_rate or 0)
        if not self._indexed or len(self) < 2 or self._times[0] == self._times[-1]:
            return told
        shown = float((len(self) - 1) / ((self._times[-1] - self._times[0]) * stream.time_base))
        # Recorders of browsers and screens write a rate that is none, such as 1000; times in whole ms are not exact.
        return told if abs(told - shown) < 0.05 * shown else shown

    def _is_plain(self, container: Any, stream: Any) -> bool:
        # decord turns frames of some containers and not of others, and its scaler, an older one, mixes the colours of
        # odd rows and of more than 8 bits otherwise.
        import av

        if stream.codec_context.pix_fmt not in PLAIN or stream.codec_context.height % 2 or not self._times:
            return False
        container.seek(self._key_before(self._times[0]), stream=stream, backward=True)
        try:
            first = next(container.decode(stream), None)
        except av.FFmpegError:
            return False
        return first is not None and not any(orientation(first))

    def _decoded(self, wanted: Sequence[int], size: tuple[int, int] | None) -> np.ndarray:
        import av
        import numpy as np

        numbers = {time: index for index, time in enumerate(self._times)}
        left = set(wanted)
        found: dict[int, np.ndarray] = {}
        with av.open(str(self.path)) as container:
            stream = _video_of(container)
            if self._indexed:
                container.seek(self._key_before(self._times[wanted[0]]), stream=stream, backward=True)
            for count, frame in enumerate(container.decode(stream)):
                index = numbers.get(frame.pts, -1) if self._indexed else count
                if index in left:
                    left.remove(index)
                    found[index] = pixels(frame, size)
                if not left:
                    break
        if left:
            raise ValueError(f"frame {min(left)} cannot be decoded")
        return np.stack([found[index] for index in wanted])

    def _key_before(self, time: int) -> int:
        # Containers seek by the time of decoding; a frame may be decoded after the key frame that is shown after it.
        return self._keys[max(bisect_right(self._keys, time, key=lambda key: key[0]) - 1, 0)][1] if self._keys else time


def _video_of(container: Any) -> Any:
    stream = container.streams.best("video")
    if stream is None:
        raise ValueError("it holds no video")
    return stream


def size_of_video(path: str | Path) -> tuple[int, int]:
    """Height and width of a video's first frame, upright. Raises BadRequest where it cannot be read."""
    import av

    try:
        with av.open(str(path)) as container:
            frame = next(container.decode(_video_of(container)))
            transposed, _, _ = orientation(frame)
            return (frame.width, frame.height) if transposed else (frame.height, frame.width)
    except (OSError, ValueError, StopIteration, av.FFmpegError) as error:
        reason = " ".join(str(error).split())[:120] or "it has no frames"
        raise BadRequest(f"'{path}' cannot be read as video ({reason}). Is it a damaged file?") from error


def read_video(path: str | Path, indices: Sequence[int] | None = None) -> np.ndarray:
    """Frames (F, H, W, 3), uint8 RGB, of a video file: all of them, or those of ``indices``."""
    reader = VideoReader(path)
    return reader.frames(range(len(reader)) if indices is None else indices)
