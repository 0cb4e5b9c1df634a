"""The configuration of a training: groups, what methods bring, experiments."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidgen_core.config import compose
from vidgen_core.errors import BadRequest
from vidgen_core.experiments import stages_of

EXPERIMENT = """\
# Two stages.
command: train
stages:
  first:
    model: tiny
    trainer: {max_steps: 3, learning_rate: 1.0e-3}
  second:
    model: modelscope
    model.path: "{first}/model"
    method: streaming
    methods.streaming.chunk: 16
"""
CARD = """
from vidgen_core import Plugin
plugin = Plugin(name="lab", summary="s", package=__name__, is_method=False)
"""


def test_a_method_brings_its_recipe_and_the_user_wins() -> None:
    trainer = compose(["method=talc", "trainer.warmup=0.5"], entry="train").config["trainer"]
    assert (trainer["accumulation"], trainer["learning_rate"], trainer["warmup"]) == (4, 1e-5, 0.5)


def test_a_plain_training_has_no_methods_recipe() -> None:
    assert compose(["model=tiny"], entry="train").config["trainer"]["accumulation"] == 1


def test_generating_knows_no_trainer() -> None:
    with pytest.raises(BadRequest, match=r"no key 'trainer\.max_steps'"):
        compose(["trainer.max_steps=3", "prompt=x"])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("trainer.schedule=cosin", "is one of constant"),
        ("trainer.max_steps=0", "must be at least 1"),
        ("objective=denoisin", "Did you mean 'denoising'"),
        ("data=caption", "Did you mean 'captions'"),
    ],
)
def test_a_wrong_value_is_one_sentence(argument: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        compose(["model=tiny", argument], entry="train")


class TestExperiments:
    @pytest.fixture(autouse=True)
    def lab(self, install_plugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
        install_plugin("lab", CARD, {"conf/experiment/pair.yaml": EXPERIMENT})
        monkeypatch.chdir(tmp_path)

    def test_stages_follow_one_another_and_name_each_others_folders(self) -> None:
        first, second = stages_of(["experiment=pair", "output.dir=out"], "train")
        assert compose(first.overrides, first.values, entry="train").config["trainer"]["max_steps"] == 3
        assert second.values["model.path"] == str(Path("out/first/model"))

    def test_what_the_user_writes_wins_in_every_stage(self) -> None:
        (first,) = stages_of(["experiment=pair", "stages=[first]", "trainer.max_steps=9"], "train")
        composed = compose(first.overrides, first.values, entry="train")
        assert (composed.config["trainer"]["max_steps"], composed.config["trainer"]["learning_rate"]) == (9, 1e-3)

    @pytest.mark.parametrize("written", ["streaming.chunk=8", "methods.streaming.chunk=8", "streaming={chunk: 8}"])
    def test_an_option_of_a_method_wins_however_it_is_written(self, written: str) -> None:
        (second,) = stages_of(["experiment=pair", "stages=[second]", written], "train")
        composed = compose(second.overrides, second.values, entry="train")
        assert composed.config["methods"]["streaming"]["chunk"] == 8

    def test_a_finished_stage_is_not_repeated_unless_it_changed(self) -> None:
        first, _ = stages_of(["experiment=pair"], "train")
        assert first.folder is not None and not first.finished
        first.folder.mkdir(parents=True)
        (first.folder / "run.yaml").write_text("")
        first.finish()
        again, _ = stages_of(["experiment=pair"], "train")
        changed, _ = stages_of(["experiment=pair", "trainer.max_steps=9"], "train")
        assert again.finished and not changed.finished

    def test_an_unfinished_stage_goes_on(self) -> None:
        folder = Path("outputs/pair/first")
        folder.mkdir(parents=True)
        (folder / "run.yaml").write_text("")
        first, second = stages_of(["experiment=pair"], "train")
        assert first.values["resume"] and not second.values["resume"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["experiment=pear"], "Did you mean 'pair'"),
            (["experiment=pair", "stages=[third]"], "has no stage 'third'"),
        ],
    )
    def test_what_is_not_there_is_named(self, arguments: list[str], message: str) -> None:
        with pytest.raises(BadRequest, match=message):
            stages_of(arguments, "train")
