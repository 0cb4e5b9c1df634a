"""Experiments on edits: a clip is tuned once, every row edits it, and what is finished is never made again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vidgen_moving_shapes.edit_clips import edit_clips

from vidgen_core import cli, run, train
from vidgen_core.evaluation.config import compose_evaluation
from vidgen_core.evaluation.edits import tunings_of

TINY = ["n=1", "edits=1", "scene_frames=4", "num_inference_steps=2", "trainer.max_steps=1", "placement.device=cpu"]


def evaluate(name: str, folder: Path, *arguments: str) -> int:
    given = {argument.partition("=")[0] for argument in arguments}
    small = [argument for argument in TINY if argument.partition("=")[0] not in given]
    return cli.main(["evaluate", f"experiment={name}", f"output.dir={folder}", *small, *arguments])


def refuse(*arguments: object, **keywords: object) -> None:
    raise AssertionError("something was made")


def nothing_is_made(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(run, "generate", refuse)
    patch.setattr(train, "train", refuse)


@pytest.fixture(scope="module")
def claim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("claim") / "out"
    assert evaluate("tune_a_video_claim", folder) == 0
    return folder


def test_every_row_edits_the_clip_and_has_every_score(claim) -> None:
    results = json.loads((claim / "results.json").read_text())
    assert list(results["rows"]) == ["tuned", "no_inversion", "not_tuned", "per_frame"]
    assert results["columns"] == ["edited", "kept", "motion_kept", "success", "frame_consistency"]
    assert [video["story"] for video in results["videos"]] == ["edit_000_colour"] * 4
    assert all(video["scores"][column] is not None for video in results["videos"] for column in results["columns"])
    assert "1 edits of 1 clips" in (claim / "table.txt").read_text()


def test_rows_share_what_was_tuned_on_a_clip(claim) -> None:
    assert [path.relative_to(claim).as_posix() for path in claim.glob("tuned/*/*")] == ["tuned/one_shot/edit_000"]


def test_the_page_shows_the_source_beside_its_edits(claim) -> None:
    page = (claim / "index.html").read_text()
    assert page.count("data:video/mp4") == 5
    assert "<figcaption>Source" in page


def test_nothing_is_made_twice_wherever_the_folder_is(claim, tmp_path, monkeypatch) -> None:
    nothing_is_made(monkeypatch)
    moved = claim.rename(tmp_path / "moved")
    try:
        assert evaluate("tune_a_video_claim", moved) == 0
    finally:
        moved.rename(claim)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("trainer.max_steps=2", "were made with other trainer.max_steps"),
        ("trainer.accumulation=2", "were made with other trainer.accumulation"),
        ("num_inference_steps=3", "were made with other num_inference_steps"),
        ("clips_seed=1", "another clip 'edit_000'"),
        ("tune_a_video.invert=prompt", "the rows of this experiment set that key"),
        ("trainer.workers=1", "the rows of this experiment set that key"),
        ("guidance=3", "There is no key 'guidance'"),
    ],
    ids=str,
)
def test_other_settings_are_refused_before_anything_is_made(claim, monkeypatch, capsys, argument, message) -> None:
    nothing_is_made(monkeypatch)
    assert evaluate("tune_a_video_claim", claim, argument) == 2
    assert message in capsys.readouterr().err


def test_a_clip_that_is_tuned_again_is_edited_again(tmp_path, monkeypatch) -> None:
    only = ["compare=[no_inversion]", "reference=no_inversion", "num_inference_steps=1", "page_videos=0"]
    assert evaluate("tune_a_video_claim", tmp_path, *only) == 0
    made = []
    monkeypatch.setattr(
        run, "generate", lambda composed, seen, make=run.generate: made.append(1) or make(composed, seen)
    )
    assert evaluate("tune_a_video_claim", tmp_path, *only, "trainer.learning_rate=0.1", "output.overwrite=true") == 0
    assert made == [1]


def test_only_rows_that_are_compared_are_tuned(tmp_path) -> None:
    evaluation = compose_evaluation(["experiment=depth_claim", "compare=[tune_a_video]"])
    clips = edit_clips(str(tmp_path), 2, 1, crossings=True)
    assert [(tuning.name, tuning.of) for tuning in tunings_of(evaluation, clips, tmp_path)] == [
        ("without_depth", "crossing_000"),
        ("without_depth", "crossing_001"),
    ]


def test_the_depth_claim_finds_the_maps_beside_the_clips_and_scores_the_order(tmp_path) -> None:
    assert evaluate("depth_claim", tmp_path, "compare=[depth]", "num_inference_steps=1", "page_videos=0") == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert "occlusion_order" in results["columns"]
    assert all(0 <= video["scores"]["kept"] <= 1 for video in results["videos"])


def test_a_larger_number_of_clips_keeps_those_that_are_there(tmp_path) -> None:
    one = edit_clips(str(tmp_path), 1, 1)
    assert one == {name: clip for name, clip in edit_clips(str(tmp_path), 2, 1).items() if name == "edit_000"}
