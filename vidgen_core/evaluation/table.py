"""The table of an evaluation as text: rows are methods, shares are points (times 100), all with 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence

from vidgen_core.evaluation.results import Results, title_of
from vidgen_core.evaluation.statistics import Interval


def table(results: Results) -> str:
    """The whole table, differences and what is missing included, without a newline at its end."""
    seeds = len({video.seed for video in results.videos})
    several = f", {seeds} seeds each" if seeds > 1 else ""
    lines = [f"{results.title}: {results.extent}{several}; points with 95 % intervals", ""]
    heading = ["", *map(title_of, results.columns)]
    lines += _aligned(
        [heading]
        + [
            [label, *(_cell(results, column, results.mean(row, column)) for column in results.columns)]
            for row, label in results.rows.items()
        ]
    )
    others = results.others()
    if others:
        apart = "" if results.by_seed or not results.of_sets else ", sets seed by seed"
        lines += ["", f"{results.rows[results.reference]} minus the others, {results.unit} by {results.unit}{apart}"]
        lines += _aligned(
            [heading]
            + [
                [results.rows[row], *(_cell(results, c, results.difference(row, c), "+") for c in results.columns)]
                for row in others
            ]
        )
    for column in results.columns:
        count = results.missing(column)
        if count:
            scored = f"{len(results.sets)} sets" if column in results.of_sets else f"{len(results.videos)} videos"
            lines.append(f"{title_of(column)}: {count} of {scored} have no score and are left out.")
    for name, account in results.accounts.items():
        if account:
            lines.append(f"{name}: " + ", ".join(f"{key} {value}" for key, value in account.items()))
    return "\n".join(lines)


def _cell(results: Results, column: str, value: Interval | None, sign: str = "") -> str:
    if value is None:
        return "-"
    mean, low, high = (results.shown(column, number, sign) for number in (value.mean, value.low, value.high))
    return f"{mean} [{low}, {high}]"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
