"""What the plugin brings works where it is installed; run by test_fresh_environment.py in an environment of its own."""

import json
from pathlib import Path

import vidgen_example
from vidgen_example.parts import Still

from vidgen_core import cli
from vidgen_core.testing import check_method


def test_the_package_is_the_installed_one():
    assert "site-packages" in vidgen_example.__file__


def test_the_contract_is_kept():
    check_method("example")


def test_all_that_it_brings_is_listed_and_shown(capsys):
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    for name in ("example ", "example_model", "example_clips", "example_brightness", "example_scheduler"):
        assert f"\n  {name}" in out
    assert "Broken" not in out
    assert cli.main(["show", "example", "example_model", "example_clips", "example_scheduler"]) == 0
    out = capsys.readouterr().out
    for line in ("brings    model=example_model", "command   vidgen example_frames: counts", "needs     talc"):
        assert line in out


def test_its_model_scheduler_metric_and_command_work_together(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made = ["method=example", "model=example_model", "scheduler=example_scheduler", "output.dir=made"]
    assert cli.main(made) == 0
    assert Still.steps == 2
    capsys.readouterr()
    assert cli.main(["example_frames", "made/video.mp4"]) == 0
    assert capsys.readouterr().out == "4\n"
    assert cli.main(["example_frames"]) == 2
    assert cli.main(["evaluate", "videos=made", "metric=[example_brightness]", "output.dir=scored"]) == 0
    assert "brightness" in json.dumps(json.loads(Path("scored/results.json").read_text()))


def test_its_data_train(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keys = ["model=example_model", "data=example_clips", "trainer.max_steps=1", "trainer.workers=0", "output.dir=run"]
    assert cli.main(["train", *keys]) == 0
    assert json.loads(Path("run/log.jsonl").read_text().splitlines()[-1])["loss"] > 0
