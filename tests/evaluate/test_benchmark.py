"""The published prompt sets, on any model, scored by CLIP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vidgen_talc.benchmark import SETS

from vidgen_core import cli


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    folder = tmp_path / "prompts"
    folder.mkdir()
    for name in SETS:
        scenes = [f"a red circle moves {way} on a white background" for way in ("up", "down", "left", "right")]
        (folder / f"{name}.json").write_text(json.dumps({f"Cat, dog_{i}": scenes for i in range(3)}))
    return folder


def benchmark(*arguments: object) -> int:
    small = ["model=tiny", "height=16", "width=16", "num_inference_steps=1", "scene_frames=1", "guidance_scale=1"]
    return cli.main(["evaluate", "experiment=talc_benchmark", *small, *map(str, arguments)])


def test_every_set_gives_its_first_stories_and_clip_scores_them(prompts, clip_folder, tmp_path, capsys) -> None:
    metric = ["metric=[clip_consistency,clip_text]", f"clip.path={clip_folder}"]
    assert benchmark(f"prompts={prompts}", "n=1", *metric, f"output.dir={tmp_path / 'out'}") == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [video["story"] for video in results["videos"]] == [f"{name}_000" for name in SETS]
    means = results["rows"]["talc"]["means"]
    assert means["clip_consistency"]["n"] == means["clip_text"]["n"] == 3
    assert all(-1 <= means[name]["mean"] <= 1 for name in means)
    assert capsys.readouterr().out.splitlines()[2].split() == ["clip", "consistency", "clip", "text"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs the published prompts: prompts=<folder>"),
        (["prompts=/nowhere"], "there is no such folder"),
        (["prompts={empty}"], "holds no 'single_character_multiple_context.json'"),
        (["prompts={prompts}", "sets=[captions]"], "there is no such set. Did you mean 'captions_from_real_videos'?"),
    ],
    ids=str,
)
def test_prompts_that_are_not_there_are_named(prompts, clip_folder, tmp_path, capsys, arguments, message) -> None:
    (tmp_path / "empty").mkdir()
    placed = [argument.format(prompts=prompts, empty=tmp_path / "empty") for argument in arguments]
    assert benchmark(*placed, "metric=clip_text", f"clip.path={clip_folder}", f"output.dir={tmp_path / 'out'}") == 2
    assert message in capsys.readouterr().err


def test_without_a_judge_the_command_says_what_to_choose(prompts, tmp_path, capsys) -> None:
    assert benchmark(f"prompts={prompts}", f"output.dir={tmp_path / 'out'}") == 2
    assert "asks a judge. Choose one" in capsys.readouterr().err
