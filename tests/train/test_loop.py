"""What one training does, and what it leaves behind."""

from __future__ import annotations

import json
import math
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trainings import composed, curve, interrupt_after, last, numbers, same
from vidgen_moving_shapes.training.clips import Clips

from vidgen_core import train as loop
from vidgen_core.cli import main
from vidgen_core.config import compose
from vidgen_core.data.captions import Captions
from vidgen_core.data.epochs import NothingReadable
from vidgen_core.data.sample import Batch, Draw
from vidgen_core.errors import BadRequest, VidgenError
from vidgen_core.train import train
from vidgen_core.training.denoising import Denoising
from vidgen_core.training.options import doubts
from vidgen_core.training.validation import SEED


@pytest.fixture(scope="module")
def trained(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    train(composed(stories, out, "trainer.validate_every=2", "trainer.validation_samples=2"))
    return out


def test_the_log_has_a_line_for_every_step_with_its_losses(trained: Path) -> None:
    steps = [line for line in curve(trained) if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    assert all(line["loss"] == pytest.approx(line["denoising"]) and line["grad_norm"] > 0 for line in steps)


def test_the_result_is_a_model_of_the_averaged_weights(trained: Path) -> None:
    from vidgen_core.models.unet3d import load

    unet = load(str(trained / "model")).denoiser.state_dict()
    averaged = load_file(trained / "checkpoints" / "step_00000004" / "averaged.safetensors")
    best = load_file(trained / "checkpoints" / "best" / "trained.safetensors")
    assert any(same({f"denoiser.{k}": v for k, v in unet.items()}, found) for found in (averaged, best))


def test_the_result_makes_videos(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    request = ["prompt=x", "num_frames=2", "height=32", "width=32", "num_inference_steps=1"]
    assert main([*request, "model=modelscope", f"model.path={trained / 'model'}"]) == 0


def test_validation_measures_the_same_samples_at_every_timestep(trained: Path) -> None:
    measured = [line for line in curve(trained) if "validation" in line]
    assert [line["step"] for line in measured] == [2, 4]
    assert {f"validation_t{t}" for t in (1, 10, 100, 500, 800, 950)} <= measured[0].keys()
    best = json.loads((trained / "checkpoints" / "index.json").read_text())["best"]
    assert best["loss"] == pytest.approx(min(numbers(measured, "validation")), rel=1e-6)


def test_validation_does_not_change_the_training(stories: Path, trained: Path, tmp_path: Path) -> None:
    train(composed(stories, tmp_path / "run"))
    assert same(last(tmp_path / "run"), last(trained))


def interrupted(wanted: Any, steps: int) -> None:
    """Train until so many steps are done."""
    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(loop, "optimise", interrupt_after(steps))
        train(wanted)


def test_twenty_steps_equal_ten_resumed_for_ten_more(stories: Path, tmp_path: Path) -> None:
    more = ("trainer.max_steps=20", "trainer.accumulation=1", "trainer.checkpoint_every=5", "trainer.workers=1")
    train(composed(stories, tmp_path / "straight", *more))
    interrupted(composed(stories, tmp_path / "resumed", *more), 12)
    torch.rand(7)  # the state of the generator must not matter
    train(composed(stories, tmp_path / "resumed", *more, "resume=true"))
    for file in ("trained.safetensors", "averaged.safetensors"):
        assert same(last(tmp_path / "resumed", file), last(tmp_path / "straight", file))
    assert curve(tmp_path / "resumed") == curve(tmp_path / "straight")


def test_a_training_asked_to_end_writes_a_checkpoint_first(
    stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, steps = loop.optimise, iter(range(10))

    def terminated_in_the_third(*args: Any, **kwargs: Any) -> Any:
        if next(steps) == 2:
            signal.raise_signal(signal.SIGTERM)
        return whole(*args, **kwargs)

    monkeypatch.setattr(loop, "optimise", terminated_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        train(composed(stories, tmp_path / "run", "trainer.checkpoint_every=100"))
    assert (tmp_path / "run" / "checkpoints" / "step_00000003").is_dir()


@pytest.mark.parametrize("seed", [0, SEED], ids=["training", "validation"])
def test_an_error_of_the_data_loses_no_step(
    seed: int, stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Captions.draw

    def draw(self: Captions, wanted: Draw) -> Batch:
        if wanted.seed == seed and wanted.step == (0 if seed else 3):
            raise NothingReadable({"a.mp4": "it is damaged"})
        return whole(self, wanted)

    wanted = (
        tmp_path / "run",
        "trainer.checkpoint_every=100",
        "trainer.validate_every=3",
        "trainer.validation_samples=1",
    )
    with monkeypatch.context() as patched, pytest.raises(NothingReadable, match=r"a.mp4: it is damaged"):
        patched.setattr(Captions, "draw", draw)
        train(composed(stories, *wanted))
    assert (tmp_path / "run/checkpoints/step_00000003").is_dir()
    assert json.loads((tmp_path / "run/skipped.jsonl").read_text())["item"] == "a.mp4"


def test_only_so_many_checkpoints_are_kept(stories: Path, tmp_path: Path) -> None:
    train(composed(stories, tmp_path / "run", "trainer.checkpoint_every=1", "trainer.keep=2"))
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("step_*"))
    assert kept == ["step_00000003", "step_00000004"]


def test_samples_are_drawn_as_contact_sheets(stories: Path, tmp_path: Path) -> None:
    prompt = 'prompt=["one","two"]'
    small = ("num_frames=2", "height=32", "width=32", "num_inference_steps=1")
    train(composed(stories, tmp_path / "run", prompt, *small, "trainer.sample_every=2"))
    sheets = sorted(path.name for path in (tmp_path / "run" / "samples").glob("*.png"))
    assert [sheet[:13] for sheet in sheets] == ["step_00000002", "step_00000004"]


@pytest.mark.parametrize("refused", ["planned", "ContactSheet.close"])
def test_samples_that_cannot_be_made_end_no_training(
    refused: str, stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"vidgen_core.training.validation.{refused}", full)
    small = ("prompt=one", "num_frames=2", "height=32", "width=32", "num_inference_steps=1")
    train(composed(stories, tmp_path / "run", *small, "trainer.sample_every=1", "trainer.max_steps=1"))
    assert "no samples at step 1: [Errno 28] No space left" in capsys.readouterr().err
    assert (tmp_path / "run" / "model").is_dir()


def test_frozen_parts_stay_as_they_are(stories: Path, tmp_path: Path) -> None:
    train(composed(stories, tmp_path / "run", "trainer.trainable=temporal"))
    assert all("temp_convs" in name or "temp_attentions" in name for name in last(tmp_path / "run"))


class TestNumbersThatAreNone:
    @pytest.fixture
    def broken_from(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Makes the loss NaN in a range of micro-batches."""
        whole, calls = Denoising.training_step, iter(range(10**6))

        def install(bad: range) -> None:
            def training_step(self: Any, run: Any, batch: Any) -> Any:
                prediction = whole(self, run, batch)
                if next(calls) in bad:
                    prediction.output = prediction.output * math.nan
                return prediction

            monkeypatch.setattr(Denoising, "training_step", training_step)
            for name, value in vars(whole).items():
                setattr(training_step, name, value)

        return install

    def test_one_bad_step_is_left_out(self, stories: Path, tmp_path: Path, broken_from: Any) -> None:
        broken_from(range(2, 4))
        train(composed(stories, tmp_path / "run"))
        assert all(torch.isfinite(tensor).all() for tensor in last(tmp_path / "run").values())

    def test_many_end_the_training_and_leave_the_last_good_checkpoint(
        self, stories: Path, tmp_path: Path, broken_from: Any
    ) -> None:
        broken_from(range(4, 100))
        more = ("trainer.max_steps=20", "trainer.nonfinite_limit=2", "trainer.checkpoint_every=100")
        with pytest.raises(VidgenError, match="3 steps in a row.*What was learnt is saved in .*checkpoints"):
            train(composed(stories, tmp_path / "run", *more))
        assert all(torch.isfinite(tensor).all() for tensor in last(tmp_path / "run").values())
        assert (tmp_path / "run/checkpoints/step_00000005").is_dir()  # the third of those that were left out

    @pytest.mark.parametrize("every", [100, 1])
    def test_weights_that_are_no_numbers_are_not_saved(
        self, stories: Path, tmp_path: Path, broken_from: Any, monkeypatch: pytest.MonkeyPatch, every: int
    ) -> None:
        broken_from(range(2, 100))
        whole = loop.optimise

        def spoilt(learner: Any, *args: Any, **more: Any) -> Any:
            found = whole(learner, *args, **more)
            if args[3] == 1:  # the step
                next(iter(learner.trainables.values())).data.fill_(float("nan"))
            return found

        monkeypatch.setattr(loop, "optimise", spoilt)
        more = ("trainer.nonfinite_limit=0", f"trainer.checkpoint_every={every}")
        there = "The last checkpoint is '.*step_00000001'" if every == 1 else "There is no checkpoint"
        with pytest.raises(VidgenError, match=f"itself holds NaN or infinity by now. {there}"):
            train(composed(stories, tmp_path / "run", *more))


def test_a_full_disk_costs_nothing_that_was_written(
    stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vidgen_core.training import checkpoints

    whole = checkpoints.save_file

    def full_from_step_4(state: Any, path: Path) -> None:
        if "step_00000004" in str(path):
            raise OSError(28, "No space left on device")
        whole(state, path)

    out = tmp_path / "run"
    with monkeypatch.context() as patched, pytest.raises(VidgenError, match=r"disk is full.*step_00000002' stays"):
        patched.setattr(checkpoints, "save_file", full_from_step_4)
        train(composed(stories, out))
    assert not list((out / "checkpoints").glob(".*unfinished"))
    train(composed(stories, out, "resume=true"))
    assert (out / "model").is_dir()


def test_a_full_disk_is_told_from_torchs_own_words(
    stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 3717824 vs 3717716")

    monkeypatch.setattr("accelerate.Accelerator.save_state", full)
    with pytest.raises(VidgenError, match=r"could not be written.*No checkpoint was written before"):
        train(composed(stories, tmp_path / "run"))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("trainer.trackers=[tensorbord]", "Did you mean 'tensorboard'"),
        ("trainer.trackers=[comet_ml]", "'comet_ml' is not installed"),
        ("trainer.rate_scale.attn9=2", "no parameter that trains has 'attn9'"),
        ("trainer.processes=2", "the launcher started 1"),
        ("trainer.mixed_precision=fp16", "needs a GPU"),
        ("trainer.optimizer=adamw8bit", "pip install bitsandbytes"),
        ("trainer.betas=[0.9]", r"trainer.betas=\[0.9\]: AdamW takes two numbers, from 0 to below 1"),
        ("trainer.betas=[0.9,1]", r"trainer.betas=\[0.9, 1\]: AdamW takes two numbers, from 0 to below 1"),
        ("trainer.validation_timesteps=[]", r"trainer.validation_timesteps=\[\] leaves nothing to validate at"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_first_step(
    argument: str, message: str, stories: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadRequest, match=message):
        train(composed(stories, tmp_path / "run", argument))


@pytest.mark.parametrize(
    ("more", "told"),
    [((), False), (("trainer.export=best",), True), (("trainer.export=best", "trainer.validate_every=100"), False)],
    ids=str,
)
def test_the_best_weights_that_nothing_will_find_are_warned_of(more: tuple[str, ...], told: bool) -> None:
    said = doubts(compose(["model=tiny", *more], entry="train").config, Clips())
    assert [line for line in said if "trainer.export=best needs validation" in line] == said and bool(said) is told


def test_a_cache_of_clips_that_begin_at_random_is_warned_of(
    stories: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["model=tiny", "data=folder", f"data.path={stories.parent}", "data.caption=x", "data.size=32"]
    small += ["data.frames=2", "trainer.max_steps=1", "trainer.workers=0", "trainer.cache=latents"]
    for start, told in (("random", 1), ("middle", 0)):
        train(compose([*small, f"data.start={start}", f"output.dir={tmp_path / start}"], entry="train"))
        assert capsys.readouterr().err.count("or data.start=middle for the same frames every time") == told


def test_a_checkpoint_of_another_training_is_refused(stories: Path, trained: Path) -> None:
    with pytest.raises(BadRequest, match=r"another trainer\.trainable"):
        train(composed(stories, trained, "trainer.trainable=temporal", "resume=true"))


def test_an_overwritten_training_leaves_nothing_to_resume_from(stories: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(composed(stories, out, "trainer.validate_every=2"))
    train(composed(stories, out, "trainer.max_steps=1", "trainer.validate_every=0", "output.overwrite=true"))
    assert [path.name for path in (out / "checkpoints").glob("*_*")] == ["step_00000001"]
    assert [line["step"] for line in curve(out)] == [1]
    assert not (out / "checkpoints" / "best").exists()


def test_a_torn_last_line_of_the_log_is_left_out(stories: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    interrupted(composed(stories, out), 3)
    with (out / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    train(composed(stories, out, "resume=true"))
    assert [line["step"] for line in curve(out) if "loss" in line] == [1, 2, 3, 4]


def test_a_lost_last_checkpoint_gives_way_to_the_one_before(stories: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(composed(stories, out))
    shutil.rmtree(out / "checkpoints" / "step_00000004")
    train(composed(stories, out, "resume=true"))
    assert (out / "checkpoints" / "step_00000004").is_dir()


def test_micro_batches_may_be_cut_anew_on_resume_but_a_step_stays_a_step(stories: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    interrupted(composed(stories, out), 3)
    with pytest.raises(BadRequest, match="2 samples a step, this one has 3"):
        train(composed(stories, out, "trainer.accumulation=3", "resume=true"))
    train(composed(stories, out, "trainer.accumulation=1", "trainer.batch_size=2", "resume=true"))
    assert (out / "model").is_dir()


def test_a_validation_that_is_no_number_is_never_the_best(
    stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([0.5, math.nan])
    monkeypatch.setattr(loop, "validate", lambda *args: {"validation": next(found)})
    train(composed(stories, tmp_path / "run", "trainer.validate_every=2"))
    best = json.loads((tmp_path / "run" / "checkpoints" / "index.json").read_text())["best"]
    assert best == {"step": 2, "loss": 0.5}


def test_trainings_of_other_precision_follow_one_another(stories: Path, tmp_path: Path) -> None:
    for precision in ("no", "bf16"):
        train(composed(stories, tmp_path / precision, f"trainer.mixed_precision={precision}", "trainer.max_steps=1"))
        assert curve(tmp_path / precision)[0]["loss"] > 0


def test_a_finished_folder_is_not_written_over(stories: Path, trained: Path) -> None:
    with pytest.raises(BadRequest, match="already holds a run"):
        train(composed(stories, trained))
