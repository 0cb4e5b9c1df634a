"""A training that runs out of memory loses no step, says what to switch on, and goes on."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from trainings import composed, last, same

from vidgen_core.config import compose
from vidgen_core.data.captions import Captions
from vidgen_core.data.sample import Batch, Draw
from vidgen_core.errors import VidgenError
from vidgen_core.train import train

RARE = "trainer.checkpoint_every=100"


def failing(whole: Any, call: int) -> Any:
    """``whole`` until its call of this number."""
    calls = iter(range(10**6))

    def out_of_memory(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == call:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(*args, **kwargs)

    return out_of_memory


def test_the_steps_before_are_saved_and_the_training_goes_on_bit_for_bit(
    stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = (RARE, "trainer.gradient_checkpointing=false")
    train(composed(stories, tmp_path / "straight", *plain))
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        # Of the third step's two micro-batches the second.
        patched.setattr("accelerate.Accelerator.backward", failing(Accelerator.backward, 5))
        goes_on = re.escape(f"output.dir={out} resume=true")
        with pytest.raises(VidgenError, match=f"on, with {goes_on}, in this order: trainer.gradient_checkpointing=tr"):
            train(composed(stories, out, *plain))
    assert [path.name for path in (out / "checkpoints").glob("step_*")] == ["step_00000002"]
    train(composed(stories, out, *plain, "resume=true"))
    assert same(last(out), last(tmp_path / "straight"))


def test_too_little_memory_for_a_validation_costs_no_step(
    stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidgen_core.train.validate", failing(None, 0))
    with pytest.raises(VidgenError, match="memory did not suffice"):
        train(composed(stories, tmp_path / "run", RARE, "trainer.validate_every=3"))
    assert (tmp_path / "run/checkpoints/step_00000003").is_dir()


def test_what_is_on_already_is_not_offered(stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for precision, offered in (("auto", True), ("bf16", False)):  # on a CPU auto is none
        monkeypatch.setattr("vidgen_core.models.backbone.Backbone.predict", failing(None, 0))
        with pytest.raises(VidgenError, match="memory did not suffice") as told:
            train(composed(stories, tmp_path / precision, f"trainer.mixed_precision={precision}"))
        assert ("mixed_precision=bf16" in str(told.value)) is offered


def test_the_cache_is_offered_where_the_data_shows_the_same_frames_again(
    stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = ("data=folder", f"data.path={stories.parent}", "data.caption=x", "data.size=32", "data.frames=2")
    for data, offered in (
        ((*videos, "data.start=first"), True),
        ((*videos, "data.start=random"), False),
        (("data=moving_shapes_clips",), False),  # painted, without cache keys
    ):
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        small = ("model=tiny", "trainer.max_steps=1", "trainer.workers=0", f"output.dir={out}")
        monkeypatch.setattr("vidgen_core.models.backbone.Backbone.predict", failing(None, 0))
        with pytest.raises(VidgenError, match="memory did not suffice") as told:
            train(compose([*small, *data], entry="train"))
        assert ("trainer.cache=latents" in str(told.value)) is offered


def test_a_reading_process_that_the_system_ends_is_told_of(
    stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Captions.draw

    def draw(self: Captions, wanted: Draw) -> Batch:
        if wanted.step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(self, wanted)

    monkeypatch.setattr(Captions, "draw", draw)
    more = (RARE, "trainer.accumulation=1", "trainer.workers=2")
    with pytest.raises(VidgenError, match=r"resume=true and fewer of them: trainer\.workers=1"):
        train(composed(stories, tmp_path / "run", *more))


def test_samples_that_fail_cost_nothing(stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*args: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("vidgen_core.training.validation.frames", out_of_memory)
    train(composed(stories, tmp_path / "run", 'prompt=["one","two"]', "num_frames=2", "trainer.sample_every=1"))
    assert (tmp_path / "run" / "model").is_dir()
