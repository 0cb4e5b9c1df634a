"""Reading video: one interface over decord (where it has a wheel) and PyAV; the frames are identical, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidgen_core.errors import BadRequest

if TYPE_CHECKING:
    import numpy as np


INDEXED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
"""Containers whose packets carry the time of each frame, so that a frame can be sought. In others (avi, mpeg-ts, gif)
times are guesses and both libraries return wrong frames; there frames are counted from the first."""


class VideoReader:
    """Frames of a video file by index. Open one per worker process, after the fork.

    Args:
        path: A video file.
        backend: ``decord``, ``pyav``, or None for decord where it is installed.

    Raises:
        BadRequest: the file is not there or holds no video.
    """

    def __init__(self, path: str | Path, backend: str | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise BadRequest(f"There is no video file '{self.path}'. Check the path.")
        self._decord: Any = None
        self.fps, self._times, self._indexed = self._opened(self._scan)
        if backend in (None, "decord") and self._indexed:
            try:
                import decord
            except ImportError:
                if backend == "decord":
                    raise BadRequest("decord is not installed; leave the backend out to read with PyAV.") from None
            else:
                self._decord = self._opened(lambda: decord.VideoReader(str(self.path), num_threads=1))

    def __len__(self) -> int:
        return len(self._times)

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        """The frames (len(indices), H, W, 3), uint8 RGB, in the order asked; each is decoded once.

        Raises BadRequest for an index outside 0..len - 1.
        """
        import numpy as np

        wrong = [index for index in indices if not 0 <= index < len(self)]
        if wrong:
            raise BadRequest(f"'{self.path}' has frames 0..{len(self) - 1}; frame {wrong[0]} was asked for.")
        wanted = sorted(set(indices))
        found = self._by_decord(wanted)
        if found is None:
            found = self._opened(lambda: self._decoded(wanted))
        place = {index: i for i, index in enumerate(wanted)}
        picked: np.ndarray = np.asarray(found)[[place[index] for index in indices]]
        return picked

    def _by_decord(self, wanted: Sequence[int]) -> np.ndarray | None:
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

    def _scan(self) -> tuple[float, list[int], bool]:
        # Presentation times of all frames, from packets: nothing is decoded.
        import av

        with av.open(str(self.path)) as container:
            stream = container.streams.video[0]
            times = sorted(packet.pts or 0 for packet in container.demux(stream) if packet.size)
            return float(stream.average_rate or 0), times, container.format.name in INDEXED

    def _decoded(self, wanted: Sequence[int]) -> np.ndarray:
        import av
        import numpy as np

        numbers = {time: index for index, time in enumerate(self._times)}
        left = set(wanted)
        found: dict[int, np.ndarray] = {}
        with av.open(str(self.path)) as container:
            stream = container.streams.video[0]
            if self._indexed:
                container.seek(self._times[wanted[0]], stream=stream, backward=True)
            for count, frame in enumerate(container.decode(stream)):
                index = numbers.get(frame.pts, -1) if self._indexed else count
                if index in left:
                    left.remove(index)
                    found[index] = frame.to_ndarray(format="rgb24")
                if not left:
                    break
        if left:
            raise ValueError(f"frame {min(left)} cannot be decoded")
        return np.stack([found[index] for index in wanted])


def read_video(path: str | Path, indices: Sequence[int] | None = None) -> np.ndarray:
    """Frames (F, H, W, 3), uint8 RGB, of a video file: all of them, or those of ``indices``."""
    reader = VideoReader(path)
    return reader.frames(range(len(reader)) if indices is None else indices)
