"""The comparison of what text-free videos add: every row trains, makes its videos and is scored, once."""

from __future__ import annotations

import json
from pathlib import Path

from vidgen_core import cli, run, train
from vidgen_core.evaluation.config import compose_evaluation
from vidgen_core.evaluation.trained import trainings_of
from vidgen_core.evaluation.trainings import command

SMALL = ["n=2", "seeds=[0]", "steps=1", "clips_at_once=1", "scene_frames=2", "num_inference_steps=1", "real.n=3"]


def test_rows_differ_in_what_they_are_shown_and_in_nothing_else(tmp_path: Path) -> None:
    evaluation = compose_evaluation(["experiment=tf_t2v_claim"])
    trainings = {one.name: command(one, []).config for one in trainings_of(evaluation, tmp_path) if one.of == "seed_2"}
    shown = {name: (c["data"]["videos"], c["data"]["labelled_videos"]) for name, c in trainings.items()}
    assert shown == {
        "images": (0, 0),
        "once": (1, 0),
        "twice": (2, 0),
        "videos": (8, 0),
        "no_coherence": (8, 0),
        "labelled": (0, 4),
        "labelled_and_videos": (8, 4),
    }
    weights = {name: c["methods"]["tf_t2v"]["coherence_weight"] for name, c in trainings.items()}
    assert weights.pop("no_coherence") == 0 and set(weights.values()) == {0.1}
    assert {(c["seed"], c["trainer"]["max_steps"], c["trainer"]["batch_size"]) for c in trainings.values()} == {
        (2, 150, 2)
    }


def test_a_row_is_trained_made_and_scored_and_never_again(tmp_path: Path, monkeypatch) -> None:
    asked = ["evaluate", "experiment=tf_t2v_claim", "compare=[videos]", "reference=videos", *SMALL]
    assert cli.main([*asked, f"output.dir={tmp_path}"]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert {"fvd", "fid", "looks", "motion", "clipsim", "colour_shift"} <= set(results["columns"])
    assert results["rows"]["videos"]["means"]["fvd"]["n"] == 1
    assert (tmp_path / "trained" / "videos" / "seed_0" / "methods" / "tf_t2v.safetensors").is_file()

    def refuse(*arguments: object, **keywords: object) -> None:
        raise AssertionError("something was made again")

    monkeypatch.setattr(run, "generate", refuse)
    monkeypatch.setattr(train, "train", refuse)
    assert cli.main([*asked, f"output.dir={tmp_path}"]) == 0
