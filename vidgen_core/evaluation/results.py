"""From scores to the numbers of the report: a mean with its interval for every row and column, and differences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidgen_core.evaluation.statistics import Interval, by_unit, interval, paired
from vidgen_core.metrics.footage import TITLES

Scores = Mapping[str, "float | None"]


@dataclass(frozen=True)
class Scored:
    """One video with its scores."""

    row: str
    story: str
    seed: int
    path: Path
    captions: tuple[str, ...]
    spans: tuple[range, ...]
    scores: Scores
    source: Path | None = None

    @property
    def unit(self) -> str:
        """What counts as one in means and intervals: a story, or a clip with all its edits."""
        return self.source.stem if self.source else self.story


@dataclass(frozen=True)
class ScoredSet:
    """All videos of a row and a seed, with the scores that they have together."""

    row: str
    seed: int
    scores: Scores


@dataclass(frozen=True)
class Results:
    """What an evaluation found.

    Attributes:
        title: Of the table, the plot and the page.
        rows: Name -> label, in order.
        columns: Of the table, in order.
        reference: The row whose difference to the others is shown; empty for none.
        videos: Every video with its scores.
        accounts: Metric -> what it says of itself: cost, failures.
        about: More for ``results.json``: configuration, versions.
        numbers: The columns that are no shares.
        sets: Every set of videos with its scores.
        by_seed: Seeds are the units of all means and intervals, and not only those of sets: what a row shows differs
            from seed to seed by more than noise, where its model was trained with the seed.
    """

    title: str
    rows: Mapping[str, str]
    columns: Sequence[str]
    reference: str
    videos: Sequence[Scored]
    accounts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    numbers: frozenset[str] = frozenset()
    sets: Sequence[ScoredSet] = ()
    by_seed: bool = False

    def shown(self, column: str, value: float, sign: str = "", digits: int = 1) -> str:
        """A value of a column as the report writes it: a share in points, a number as it is with two decimals."""
        return f"{value:{sign}.2f}" if column in self.numbers else f"{100 * value:{sign}.{digits}f}"

    def mean(self, row: str, column: str) -> Interval | None:
        """Over units; None where no video has the score."""
        return interval(list(self._by_unit(row, column).values()))

    def difference(self, row: str, column: str) -> Interval | None:
        """The reference row minus another, unit by unit."""
        return paired(self._by_unit(self.reference, column), self._by_unit(row, column))

    def others(self) -> list[str]:
        """The rows that the reference is compared with."""
        return [row for row in self.rows if self.reference in self.rows and row != self.reference]

    @property
    def unit(self) -> str:
        """What one unit is called."""
        return "seed" if self.by_seed else "clip" if self._of_clips else "story"

    @property
    def extent(self) -> str:
        """How many stories, or edits of how many clips."""
        stories = len({video.story for video in self.videos})
        units = len({video.unit for video in self.videos})
        return f"{stories} edits of {units} clips" if self._of_clips else f"{stories} stories"

    @property
    def _of_clips(self) -> bool:
        return any(video.source for video in self.videos)

    @property
    def of_sets(self) -> frozenset[str]:
        """The columns that only sets have."""
        return frozenset(column for one in self.sets for column in one.scores)

    def missing(self, column: str) -> int:
        """Videos, or sets, that were to have a score and have none."""
        scored = self.sets if column in self.of_sets else self.videos
        return sum(one.scores.get(column) is None for one in scored)

    def details(self) -> list[str]:
        """Names of the scores that are no columns, in order."""
        names = dict.fromkeys(name for video in self.videos for name in video.scores)
        return [name for name in names if name not in self.columns]

    def _by_unit(self, row: str, column: str) -> dict[str, float]:
        if column in self.of_sets:
            sets = [one for one in self.sets if one.row == row]
            return by_unit([one.scores for one in sets], [str(one.seed) for one in sets], column)
        mine = [video for video in self.videos if video.row == row]
        units = [str(video.seed) if self.by_seed else video.unit for video in mine]
        return by_unit([video.scores for video in mine], units, column)

    def record(self, folder: Path) -> dict[str, Any]:
        """Plain data: all means, differences and scores, with paths relative to a folder."""
        names = [*self.columns, *self.details()]

        def of(row: str) -> dict[str, Any]:
            return {name: _plain(self.mean(row, name)) for name in names}

        return {
            "title": self.title,
            "reference": self.reference or None,
            "columns": list(self.columns),
            "rows": {row: {"label": label, "means": of(row)} for row, label in self.rows.items()},
            "differences": {
                row: {column: _plain(self.difference(row, column)) for column in self.columns} for row in self.others()
            },
            "missing": {column: count for column in self.columns if (count := self.missing(column))},
            "accounts": {name: dict(account) for name, account in self.accounts.items()},
            **self.about,
            "sets": [{"row": one.row, "seed": one.seed, "scores": dict(one.scores)} for one in self.sets],
            "videos": [
                {
                    "row": video.row,
                    "story": video.story,
                    "seed": video.seed,
                    "path": _relative(video.path, folder),
                    "captions": list(video.captions),
                    "scores": dict(video.scores),
                }
                for video in self.videos
            ],
        }

    def write(self, folder: Path) -> Path:
        """``results.json`` in a folder."""
        file = folder / "results.json"
        part = file.with_suffix(".part")
        part.write_text(json.dumps(self.record(folder), indent=1, ensure_ascii=False), encoding="utf-8")
        part.replace(file)
        return file


def title_of(column: str) -> str:
    """A column's heading."""
    return TITLES.get(column, column.replace("_", " "))


def _plain(value: Interval | None) -> dict[str, float | int] | None:
    return value.record() if value else None


def _relative(path: Path, folder: Path) -> str:
    try:
        return path.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        return str(path)
