"""Means, intervals, differences, and how they are shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidgen_core.evaluation.plot import draw
from vidgen_core.evaluation.results import Results, Scored
from vidgen_core.evaluation.statistics import by_unit, interval, paired
from vidgen_core.evaluation.table import table
from vidgen_core.metrics.footage import columns_of, with_means


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.1, 400)
    found = interval(list(values))
    assert found is not None
    error = values.std() / 20
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(found.mean - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(found.mean + 1.96 * error, abs=0.1 * error)
    assert found == interval(list(values))


def test_nothing_has_no_interval_and_equal_values_a_point() -> None:
    assert interval([]) is None
    found = interval([0.5] * 7)
    assert found is not None and (found.low, found.high) == (0.5, 0.5)


def test_a_difference_is_paired_by_story() -> None:
    rng = np.random.default_rng(0)
    theirs = {str(i): float(value) for i, value in enumerate(rng.normal(0, 1, 100))}
    ours = {story: value + 0.1 for story, value in theirs.items()} | {"alone": 9.0}
    found = paired(ours, theirs)
    assert found is not None
    assert (found.n, found.low, found.high) == (100, pytest.approx(0.1), pytest.approx(0.1))


def test_seeds_of_a_story_are_averaged_and_failures_left_out() -> None:
    scores = [{"text": 1.0}, {"text": 0.0}, {"text": None}, {"text": 0.5}, {}]
    assert by_unit(scores, ["a", "a", "b", "b", "c"], "text") == {"a": 0.5, "b": 0.5}


def test_overall_is_the_mean_of_visual_consistency_and_text() -> None:
    found = with_means({"entity": 1.0, "background": 0.5, "text": 0.25})
    assert (found["visual"], found["overall"]) == (0.75, 0.5)
    assert with_means({"entity": None, "background": 1.0, "text": 1.0})["overall"] is None
    assert with_means({"text": 1.0}) == {"text": 1.0}


class Three:
    columns = ("text", "sharpness", "entity", "background")


def test_columns_stand_in_the_order_of_the_paper() -> None:
    assert columns_of({"three": Three()}) == ["entity", "background", "visual", "text", "overall", "sharpness"]


def results(ours: float = 0.9, columns: tuple[str, ...] = ("text", "other")) -> Results:
    videos = [
        Scored(row, f"story {i}", 0, Path("video.mp4"), ("one",), (range(4),), {"text": value, "other": 3.0 * value})
        for row, value in (("ours", ours), ("theirs", 0.5))
        for i in range(4)
    ]
    return Results("Which is better?", {"theirs": "Theirs", "ours": "Ours"}, columns, "ours", videos)


def test_the_table_shows_points_and_signed_differences() -> None:
    text = table(results())
    assert "Ours    90.0 [90.0, 90.0]" in text
    assert "Theirs  +40.0 [+40.0, +40.0]" in text


def test_the_plot_is_a_picture_in_which_a_longer_bar_is_more(tmp_path) -> None:
    def ink(ours: float) -> int:
        picture = np.asarray(Image.open(draw(results(ours, ("text",)), tmp_path / "plot.png")).convert("RGB")).astype(
            int
        )
        return int((np.abs(picture - [0x5B, 0x8F, 0xB9]).max(axis=-1) < 8).sum())

    assert ink(0.9) > 1.5 * ink(0.5) > 0
