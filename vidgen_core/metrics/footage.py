"""A finished video as a metric sees it, what a metric is, and the means that the scores go into."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vidgen_core.video import VideoReader, read_video

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Footage:
    """One finished video with what it is to show.

    Attributes:
        name: For messages and tables.
        path: The video file.
        captions: One per scene; none where nobody said, and no metric asks.
        spans: The frames of each scene, one after the other.
        source: The clip that the video is an edit of, where the experiment knows it.
    """

    name: str
    path: Path
    captions: tuple[str, ...]
    spans: tuple[range, ...]
    source: Path | None = None

    @cached_property
    def frames(self) -> np.ndarray:
        """(F, H, W, 3) uint8, read when first asked for."""
        return read_video(self.path)

    @property
    def count(self) -> int:
        """The number of frames."""
        return len(self.frames) if "frames" in vars(self) else len(VideoReader(self.path))

    def blocks(self, most: int) -> Iterator[np.ndarray]:
        """The frames in order, (f, H, W, 3) uint8, f <= most: a video that only passes by is never in memory whole."""
        if "frames" in vars(self):
            yield from (self.frames[start : start + most] for start in range(0, len(self.frames), most))
            return
        reader = VideoReader(self.path)
        for start in range(0, len(reader), most):
            yield reader.frames(range(start, min(start + most, len(reader))))


class Metric(Protocol):
    """Scores videos. Built once for an evaluation from ``_target_`` and the options of its YAML file.

    It may also have ``numbers``, those of its columns that are no shares and are shown as they are; ``needs_captions``,
    False where it looks at frames only; and ``account()``, what the report is to say of its work beside the scores.
    """

    columns: tuple[str, ...]
    """Names of the scores that belong into the table; ``score`` may return more, which only the JSON holds."""

    def score(self, footage: Footage) -> Mapping[str, float | None]:
        """Name -> score, 1 is best where it is a share; None where there is nothing to score, or it failed."""
        ...


class SetMetric(Protocol):
    """Scores a set of videos as one: all that a row made with a seed, or all of a folder. It may have what a ``Metric``
    may have, but no account."""

    columns: tuple[str, ...]

    def see(self, footage: Footage) -> Any:
        """What is kept of one video until all of the set are there."""
        ...

    def score_set(self, seen: Sequence[Any]) -> Mapping[str, float | None]:
        """Name -> score of the set, from what was kept of its videos; None where there are too few."""
        ...


def no_score(metric: str, footage: Footage, why: str) -> None:
    """Tell the user why a video has no score: the table only counts such videos."""
    print(f"{metric}: '{footage.name}' {why}, so it has no score.", file=sys.stderr, flush=True)


ENTITY, BACKGROUND, TEXT = "entity", "background", "text"
"""The three questions of multi-scene video; metrics that answer them give their scores these names."""
VISUAL, OVERALL = "visual", "overall"

TITLES = {
    ENTITY: "entity",
    BACKGROUND: "background",
    VISUAL: "visual",
    TEXT: "text",
    OVERALL: "overall",
}
"""The columns in the order of the table; those of other metrics follow."""


def with_means(scores: Mapping[str, float | None]) -> dict[str, float | None]:
    """The scores with ``visual``, the mean of entity and background, and ``overall``, the mean of that and text.

    A mean is there where its parts were asked for, and None where one of them is.
    """
    found = dict(scores)
    for name, parts in ((VISUAL, (ENTITY, BACKGROUND)), (OVERALL, (VISUAL, TEXT))):
        if all(part in found for part in parts):
            values = [found[part] for part in parts]
            known = [value for value in values if value is not None]
            found[name] = sum(known) / len(parts) if len(known) == len(parts) else None
    return found


def columns_of(metrics: Mapping[str, Metric | SetMetric]) -> list[str]:
    """The columns of a table, in order. The means come in where all their parts are there."""
    named = dict.fromkeys(column for metric in metrics.values() for column in metric.columns)
    with_all = with_means(dict.fromkeys(named))
    return [name for name in TITLES if name in with_all] + [name for name in named if name not in TITLES]


def numbers_of(metrics: Mapping[str, Metric | SetMetric]) -> frozenset[str]:
    """The columns that are no shares."""
    return frozenset(column for metric in metrics.values() for column in getattr(metric, "numbers", ()))
