"""Experiments whose rows are trained models: every one is trained once for every seed, and its videos go with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidgen_core.evaluation import trained
from vidgen_core.evaluation.config import Evaluation, Row
from vidgen_core.evaluation.trained import trainings_of
from vidgen_core.evaluation.trainings import filled

CONFIG = {
    "seeds": [3, 5],
    "training": ["method=tf_t2v", "seed={seed}"],
    "trainings": {"few": ["data.videos=4"], "many": ["data.videos=8"], "other": []},
}
ROWS = (Row("first", "First", ("tuned={many}",)), Row("second", "Second", ("tuned={few}", "seed={seed}")))


def test_what_rows_ask_for_is_trained_once_for_every_seed(tmp_path: Path) -> None:
    evaluation = Evaluation(CONFIG, "claim", (), ROWS)
    found = trainings_of(evaluation, tmp_path)
    assert [(one.name, one.of) for one in found] == [
        ("few", "seed_3"),
        ("many", "seed_3"),
        ("few", "seed_5"),
        ("many", "seed_5"),
    ]
    assert found[0].request == ("method=tf_t2v", "seed=3", "data.videos=4")
    assert found[0].folder == tmp_path / "trained" / "few" / "seed_3"


def test_rows_read_what_was_trained_with_their_own_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr(trained, "rows_of", lambda evaluation: evaluation)
    monkeypatch.setattr(trained, "train_missing", lambda evaluation, trainings, *others: seen.update(all=trainings))
    monkeypatch.setattr(trained.comparison, "read_stories", lambda evaluation: {"a": ("a red circle",)})
    monkeypatch.setattr(trained.comparison, "make", lambda evaluation, parts, *others: parts)
    evaluation = Evaluation({**CONFIG, "batch_size": 1}, "claim", (), ROWS)
    parts = trained.make(evaluation, tmp_path)
    assert len(seen["all"]) == 4
    assert [part.row.request for part in parts] == [
        (f"tuned={tmp_path}/trained/many/seed_3",),
        (f"tuned={tmp_path}/trained/many/seed_5",),
        (f"tuned={tmp_path}/trained/few/seed_3", "seed=3"),
        (f"tuned={tmp_path}/trained/few/seed_5", "seed=5"),
    ]


def test_words_that_nobody_knows_stay() -> None:
    assert filled(["a={seed}", "b={what}"], {"seed": 1}) == ("a=1", "b={what}")
