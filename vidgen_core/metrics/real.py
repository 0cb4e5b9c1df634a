"""The real videos that a set of made ones is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vidgen_core.errors import BadRequest
from vidgen_core.metrics.footage import Footage


class Real:
    """The videos of a folder.

    Args:
        path: Of the folder, as ``videos=`` takes one; None refuses whoever asks for the videos.
    """

    def __init__(self, path: str | None = None) -> None:
        self._path = path

    def __call__(self, metric: str) -> Iterator[Footage]:
        """The videos, one after the other. Raises BadRequest where none are given, or the folder holds none."""
        from vidgen_core.evaluation.folder import video_files

        if self._path is None:
            raise BadRequest(f"metric={metric} compares with real videos. Name a folder of them: real.path=<folder>.")
        for name, path in video_files(Path(self._path).expanduser(), "real.path").items():
            yield Footage(name, path, (), ())
