"""Scores are measured by an oracle that reads rendered truth without error, and what is wrong counts as wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from vidgen_moving_shapes import scores
from vidgen_moving_shapes.captions import image_pair_caption
from vidgen_moving_shapes.retrieval import exchanged_colours, exchanged_objects
from vidgen_moving_shapes.subjects import SETS, subjects_of
from vidgen_moving_shapes.world import Entity

COUNTS = {"clips": 84, "pictures": 84, "clips of two objects": 12, "pictures of two objects": 30}


@pytest.mark.parametrize("name", COUNTS)
def test_the_oracle_reads_rendered_truth(name: str) -> None:
    place = [found for found, _ in SETS["oracle"]].index(name)
    subjects = SETS["oracle"][place][1](np.random.default_rng(place), COUNTS[name])
    found = scores.means([subject.mark(subject.scene.frames()) for subject in subjects])
    attributes = {key: value for key, value in found.items() if key != "n" and not key.endswith("_iou")}
    assert min(attributes.values()) >= 0.99
    assert min((value for key, value in found.items() if key.endswith("_iou")), default=1) >= 0.9


def test_what_shows_something_else_is_wrong() -> None:
    subjects = subjects_of("depth_to_image", 4, 0)
    for name in ("training", "two objects"):
        first, second = subjects[name][:2]
        assert first.caption != second.caption
        mark = first.mark(second.scene.frames())
        assert not scores.all_right(mark)
        assert min(mark.values()) < 0.9


def test_held_out_subjects_show_no_training_combination() -> None:
    for kind in ("text_to_video", "text_to_image", "depth_to_image"):
        subjects = subjects_of(kind, 28, 0)
        assert not {s.caption for s in subjects["training"]} & {s.caption for s in subjects["held-out"]}


def test_the_same_seed_asks_the_same() -> None:
    first, second = (subjects_of("text_to_image", 8, seed=3)["training"] for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.caption == other.caption and np.array_equal(one.scene.frames(), other.scene.frames())


def test_a_model_is_asked_by_the_public_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["text_to_image", "--count", "2", "--out", str(tmp_path), "num_inference_steps=1"]
    assert scores.main(arguments) == 0
    report = json.loads((tmp_path / "text_to_image.json").read_text())
    assert report["num_inference_steps"] == 1 and report["scores"]["training"]["n"] == 2
    assert "held-out: n 2" in capsys.readouterr().out
    assert (tmp_path / "text_to_image_held-out.png").is_file()


def test_captions_are_exchanged_as_said() -> None:
    caption = image_pair_caption(Entity("red", "circle"), Entity("blue", "square"), "white")
    assert exchanged_objects(caption) == "a blue square in front of a red circle on a white background"
    assert exchanged_colours(caption) == "a blue circle in front of a red square on a white background"
