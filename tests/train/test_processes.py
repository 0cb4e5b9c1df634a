"""Two processes on the CPU: they are two, they see what one would see, and they resume as one does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from trainings import arguments, composed, curve, last, numbers, same

from vidgen_core.config import compose
from vidgen_core.errors import BadRequest
from vidgen_core.train import train
from vidgen_core.training.machine import check_fsdp

HERE = Path(__file__).parent


def launch(processes: int, steps: int, *given: str, driver: str = "driver.py") -> str:
    """Train in processes of their own; returns what they said."""
    done = launched(processes, driver, str(steps), *given)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def launched(processes: int, driver: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Processes of their own that came to an end."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*launcher, str(HERE / driver), *arguments]
    return subprocess.run(command, env=environment, cwd=HERE, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def two(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("two") / "run"
    return out, launch(2, -1, *arguments(with_broken(stories), out, *TWENTY))


def with_broken(stories: Path) -> Path:
    """The stories and one more, whose videos are not there."""
    file = stories.with_name("with_broken.jsonl")
    broken = {"captions": ["a story", "of nothing"], "video_segments": ["gone.mp4", "lost.mp4"]}
    file.write_text(stories.read_text() + json.dumps(broken) + "\n")
    return file


TWENTY = ("trainer.max_steps=20", "trainer.accumulation=1", "trainer.checkpoint_every=5", "trainer.dropout=0")


def test_there_are_two_processes(two: tuple[Path, str]) -> None:
    assert "20 steps of 2 samples, 2 processes on cpu" in two[1]


def test_what_either_process_skips_is_counted_and_named_once(two: tuple[Path, str]) -> None:
    lines = [json.loads(line) for line in (two[0] / "skipped.jsonl").read_text().splitlines()]
    assert [line["item"] for line in lines] == ["with_broken.jsonl:7"] and "gone.mp4" in lines[0]["reason"]
    assert curve(two[0])[-1]["skipped"] == two[1].count("skipped 1: with_broken.jsonl:7") == 1
    assert "1 item of the data could not be used" in two[1]


def test_two_processes_have_the_loss_curve_of_one_with_the_same_samples(
    two: tuple[Path, str], stories: Path, tmp_path: Path
) -> None:
    launch(1, -1, *arguments(with_broken(stories), tmp_path / "one", *TWENTY, "trainer.batch_size=2"))
    one, both = numbers(curve(tmp_path / "one"), "loss"), numbers(curve(two[0]), "loss")
    assert both == pytest.approx(one, rel=2e-4)


def test_two_processes_that_accumulate_have_the_curve_of_one(stories: Path, tmp_path: Path) -> None:
    short = ("trainer.accumulation=2", "trainer.dropout=0")
    launch(2, -1, *arguments(stories, tmp_path / "two", *short))
    train(composed(stories, tmp_path / "one", *short, "trainer.batch_size=2"))
    both, one = numbers(curve(tmp_path / "two"), "loss"), numbers(curve(tmp_path / "one"), "loss")
    assert len(one) == 4 and both == pytest.approx(one, rel=2e-4)


def test_a_disk_that_is_full_for_one_process_ends_all_of_them_with_a_paragraph(stories: Path, tmp_path: Path) -> None:
    done = launched(2, "driver_full.py", *arguments(stories, tmp_path / "run", "trainer.accumulation=1"))
    told = [line for line in done.stderr.splitlines() if line.startswith("vidgen: ")]
    assert done.returncode != 0 and sum("the disk is full. No checkpoint was written before" in t for t in told) == 1
    assert all("could not" in line for line in told)
    assert not list((tmp_path / "run/checkpoints").glob("*"))


def test_two_processes_resumed_equal_two_straight(two: tuple[Path, str], stories: Path, tmp_path: Path) -> None:
    out = tmp_path / "resumed"
    assert "interrupted" in launch(2, 12, *arguments(with_broken(stories), out, *TWENTY))
    launch(2, -1, *arguments(with_broken(stories), out, *TWENTY, "resume=true"))
    for file in ("trained.safetensors", "averaged.safetensors"):
        assert same(last(out, file), last(two[0], file))
    assert curve(out) == curve(two[0])


JOINT = (
    *("method=tf_t2v", "model=tiny", "data=moving_shapes_joint", "data.frames=2", "data.images_per_video=2"),
    *("trainer.max_steps=10", "trainer.workers=0", "trainer.log_every=1", "trainer.checkpoint_every=5"),
    *("trainer.learning_rate=1e-3", "trainer.ema=0.9", "trainer.dropout=0"),
)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process with as many samples a step as two have."""
    out = tmp_path_factory.mktemp("alone") / "run"
    train(compose([*JOINT, "trainer.batch_size=2", f"output.dir={out}"], entry="train"))
    return out


def test_images_and_videos_give_one_curve_begun_by_two_processes_and_ended_by_one(alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "shared"
    assert "interrupted" in launch(2, 5, *JOINT, f"output.dir={out}")
    train(compose([*JOINT, "trainer.batch_size=2", f"output.dir={out}", "resume=true"], entry="train"))
    mixed, whole = curve(out), curve(alone)
    assert [sorted(line) for line in mixed] == [sorted(line) for line in whole]  # the same kind in every step
    assert numbers(mixed, "loss") == pytest.approx(numbers(whole, "loss"), rel=2e-4)
    assert json.loads((out / "checkpoints/step_00000005/state.json").read_text())["processes"] == 2


def test_begun_by_one_process_they_are_ended_by_two(alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "taken_over"
    shutil.copytree(alone, out)
    shutil.rmtree(out / "checkpoints/step_00000010")
    assert "2 processes" in launch(2, -1, *JOINT, f"output.dir={out}", "resume=true")
    assert numbers(curve(out), "loss") == pytest.approx(numbers(curve(alone), "loss"), rel=2e-4)
    assert json.loads((out / "checkpoints/step_00000010/state.json").read_text())["processes"] == 2


def test_spread_over_two_processes_by_fsdp_and_resumed_it_is_the_same_training(alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "fsdp"
    short = [key for key in JOINT if "max_steps" not in key and "checkpoint_every" not in key]
    short += ["trainer.max_steps=4", "trainer.checkpoint_every=2", f"output.dir={out}"]
    assert "interrupted" in launch(2, 3, *short, driver="driver_fsdp.py")
    assert (out / "checkpoints/step_00000004/optimizer_0").is_dir()  # a part of every process
    assert numbers(curve(out), "loss") == pytest.approx(numbers(curve(alone), "loss")[:4], rel=2e-4)
    learnt, expected = (load_file(run / "methods/tf_t2v.safetensors") for run in (out, alone))
    assert {n: t.shape for n, t in learnt.items()} == {n: t.shape for n, t in expected.items()}


@pytest.mark.parametrize(
    ("second", "options", "message"),
    [
        (False, {}, "accelerate launch --use_fsdp --fsdp_version 2"),
        (True, {"optimizer": "adamw8bit"}, "trainer.optimizer=adamw8bit does not go with FSDP"),
        (True, {"sample_every": 5}, "trainer.sample_every draws samples in one process"),
        (True, {"validate_every": 5}, "validation_samples=7 cannot be shared evenly by 2 processes"),
    ],
)
def test_what_fsdp_cannot_do_is_refused(second: bool, options: dict[str, int], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        check_fsdp(
            second,
            2,
            {"optimizer": "adamw", "sample_every": 0, "validate_every": 0, "validation_samples": 7, **options},
        )
