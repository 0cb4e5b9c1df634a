"""Chunks of a long video: spans of frames that were made one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from vidgen_core.errors import BadRequest
from vidgen_core.provenance import read_provenance, record_of

if TYPE_CHECKING:
    from pathlib import Path

    from vidgen_core.metrics.footage import Footage


class Chunks:
    """Tells where the chunks of a video lie: as the user says, else as its record says.

    Args:
        frames: Frames that every chunk adds to the video; the last may add fewer.
        first: Frames of the first chunk; None where it has as many.
    """

    def __init__(self, frames: int | None = None, first: int | None = None) -> None:
        if first and not frames:
            raise BadRequest(f"chunks.first={first} says how long the first chunk is. Give chunks.frames= too.")
        self._frames, self._first = frames, first or frames

    def of(self, footage: Footage) -> list[range]:
        """The spans of frames, one after the other; a single one where all frames were made together.

        Raises:
            BadRequest: nobody says, or what is said does not fit the video.
        """
        count = footage.count
        if self._frames and self._first:
            if self._first >= count:
                key = "first" if self._first != self._frames else "frames"
                raise BadRequest(
                    f"chunks.{key}={self._first} leaves no second chunk in '{footage.name}', which has {count} frames."
                )
            return _spans([0, *range(self._first, count, self._frames), count])
        delivered = _recorded(footage.path)
        if sum(delivered) != count:
            raise BadRequest(
                f"'{footage.name}' has {count} frames, and its record tells of {sum(delivered)}: frames were added or "
                "taken away. Say chunks.frames=<frames that a chunk adds> and, if it has more, chunks.first=."
            )
        return _spans([0, *accumulate(delivered)])


def _spans(borders: Sequence[int]) -> list[range]:
    return [range(*pair) for pair in pairwise(borders)]


def _recorded(video: Path) -> list[int]:
    try:
        return [int(frames) for frames in read_provenance(record_of(video))["window_frames"]]
    except (BadRequest, KeyError, TypeError, ValueError):
        raise BadRequest(
            f"'{video}' holds no record of its chunks. Say chunks.frames=<frames that a chunk adds> and, if the first "
            "chunk has more, chunks.first=<its frames>."
        ) from None
