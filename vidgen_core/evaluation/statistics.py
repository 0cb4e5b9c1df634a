"""Means with bootstrap intervals, and paired differences. Units are stories, whose seeds are averaged, or seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % bootstrap interval, and of how many units."""

    mean: float
    low: float
    high: float
    n: int

    def record(self) -> dict[str, float | int]:
        """As it stands in ``results.json``."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "n": self.n}


def by_unit(scores: Sequence[Mapping[str, float | None]], units: Sequence[str], column: str) -> dict[str, float]:
    """Unit -> the mean of what belongs to it; a unit without any score is left out."""
    values: dict[str, list[float]] = {}
    for unit, row in zip(units, scores, strict=True):
        value = row.get(column)
        if value is not None:
            values.setdefault(unit, []).append(value)
    return {unit: sum(known) / len(known) for unit, known in values.items()}


def interval(values: Sequence[float], seed: int = 0) -> Interval | None:
    """The mean over units and its interval by the percentile bootstrap; None where there is no value.

    The draws are the same on every machine and for every column.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not len(numbers):
        return None
    low, high = np.quantile(_means(numbers, seed), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(numbers.mean()), float(low), float(high), len(numbers))


def paired(ours: Mapping[str, float], theirs: Mapping[str, float], seed: int = 0) -> Interval | None:
    """The mean over units of ours minus theirs, over the units that both have."""
    return interval([ours[unit] - theirs[unit] for unit in ours if unit in theirs], seed)


def _means(numbers: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    means = np.empty(DRAWS)
    for start in range(0, DRAWS, 1000):  # a few at a time: memory stays small for thousands of stories
        means[start : start + 1000] = numbers[rng.integers(len(numbers), size=(1000, len(numbers)))].mean(axis=1)
    return means
