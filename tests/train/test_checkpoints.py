"""What a checkpoint holds is what a training goes on with, whatever it does beside learning."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from test_loop import interrupted
from trainings import composed, curve, last, same

from vidgen_core.errors import BadRequest, VidgenError
from vidgen_core.train import train
from vidgen_core.training.checkpoints import Checkpoints


@pytest.mark.parametrize(
    "more",
    [
        ("trainer.validate_every=2", "trainer.validation_samples=1", "trainer.export=best"),
        ("trainer.mixed_precision=bf16",),
        ("trainer.cache=latents",),
        ("trainer.gradient_checkpointing=true", "trainer.dropout=0.1"),
    ],
    ids=lambda more: more[0],
)
def test_a_resumed_training_has_the_bits_of_the_straight_one(
    more: tuple[str, ...], stories: Path, tmp_path: Path
) -> None:
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    off = () if "gradient" in more[0] else ("trainer.gradient_checkpointing=false",)
    train(composed(stories, straight, *more, *off))
    interrupted(composed(stories, resumed, *more, *off), 3)
    train(composed(stories, resumed, *more, *off, "resume=true"))
    assert same(last(resumed), last(straight)) and curve(resumed) == curve(straight)
    for file in ("checkpoints/best/trained.safetensors", "checkpoints/index.json"):
        found, wanted = (folder / file for folder in (resumed, straight))
        assert found.is_file() == wanted.is_file() and (not wanted.is_file() or same_bytes(found, wanted))


def same_bytes(first: Path, second: Path) -> bool:
    return first.read_bytes() == second.read_bytes()


def checkpoints(folder: Path, *names: str, size: int = 2, keep: int = 1) -> Checkpoints:
    weights = {name: torch.nn.Parameter(torch.zeros(size)) for name in names}
    return Checkpoints(folder, Accelerator(cpu=True), weights, None, keep=keep, samples=1)


def test_a_checkpoint_of_another_method_is_refused(tmp_path: Path) -> None:
    checkpoints(tmp_path, "talc.gate", "denoiser.conv").save(1)
    with pytest.raises(BadRequest, match=r"is of another training: 2 parameters differ, first 'denoiser\.conv'"):
        checkpoints(tmp_path, "talc.gate", "streaming.cam").load()
    with pytest.raises(BadRequest, match="is of another training: 2 parameters differ"):
        checkpoints(tmp_path, "talc.gate", "denoiser.conv", size=3).load()


def test_a_training_goes_on_with_a_gradient_scaler_that_the_checkpoint_has_not(tmp_path: Path) -> None:
    checkpoints(tmp_path, "weight").save(7)
    resumed = checkpoints(tmp_path, "weight")
    resumed.accelerator.scaler = scaler = torch.amp.GradScaler("cpu")
    assert resumed.load() == 7 and resumed.accelerator.scaler is scaler


def test_data_that_grew_is_refused_and_a_checkpoint_that_does_not_tell_goes_on(tmp_path: Path) -> None:
    def of_items(items: int) -> Checkpoints:
        found = checkpoints(tmp_path, "weight")
        found.items = items
        return found

    of_items(6).save(3)
    with pytest.raises(BadRequest, match="is of a training on data of 6 items, which has 7 now"):
        of_items(7).load()
    assert of_items(6).load() == 3
    file = tmp_path / "step_00000003" / "state.json"
    file.write_text(json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != "items"}))
    assert of_items(7).load() == 3


def test_a_training_whose_list_grew_meanwhile_is_not_resumed(stories: Path, tmp_path: Path) -> None:
    grown = stories.with_name("grown.jsonl")
    grown.write_text(stories.read_text())
    interrupted(composed(grown, tmp_path / "run"), 3)
    grown.write_text(stories.read_text() + stories.read_text().splitlines()[0] + "\n")
    with pytest.raises(BadRequest, match="of 6 items, which has 7 now"):
        train(composed(grown, tmp_path / "run", "resume=true"))


def test_a_checkpoint_that_is_whole_is_gone_on_from_though_the_disk_refused_its_note(tmp_path: Path) -> None:
    saved = checkpoints(tmp_path, "weight", keep=2)
    saved.save(1)
    (tmp_path / ".index.json").mkdir()  # where the note is written first
    with pytest.raises(VidgenError, match=r"index.json' could not be written.*step_00000002' stays"):
        saved.save(2)
    assert saved.index["last"] == "step_00000001" and checkpoints(tmp_path, "weight").load() == 2


@pytest.mark.parametrize("file", ["trained.safetensors", "random_states_0.pkl", "state.json"])
def test_a_checkpoint_that_the_disk_does_not_take_in_the_end_has_no_place(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(number: int) -> None:
        if os.path.samestat(os.fstat(number), (tmp_path / f".step_00000001.unfinished/{file}").stat()):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(VidgenError, match="the disk is full"):
        checkpoints(tmp_path, "weight").save(1)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def trained(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    train(composed(stories, out, "trainer.keep=2"))
    return out


@pytest.mark.parametrize("file", ["trained.safetensors", "averaged.safetensors", "optimizer.bin", "state.json"])
def test_a_damaged_checkpoint_is_named_with_the_one_that_takes_its_place(
    file: str, stories: Path, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(trained, out)
    damaged = out / "checkpoints" / "step_00000004" / file
    os.truncate(damaged, damaged.stat().st_size // 2)
    with pytest.raises(VidgenError, match=r"step_00000004' cannot be read.*remove that folder.*from '.*step_00000002'"):
        train(composed(stories, out, "resume=true"))
