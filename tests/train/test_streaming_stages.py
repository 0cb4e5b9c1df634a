"""Both stages of StreamingT2V's training are trainings like any other: averaged, interrupted and resumed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from trainings import composed, curve, interrupt_after, last, same

from vidgen_core import train as loop
from vidgen_core.config import Composed
from vidgen_core.errors import BadRequest
from vidgen_core.train import train

SMALL = (
    "method=[talc,streaming]",
    "streaming.chunk=3",
    "streaming.overlap=1",
    "streaming.embedding_widths=[8,8,8,8]",
    "streaming.hidden=8",
    "trainer.accumulation=1",
    "trainer.gradient_checkpointing=false",
)
DRAWN: dict[str, Sequence[str]] = {"cam": (), "apm": ("objective.anchor_dropout=0.3", "objective.still=0.3")}


@pytest.mark.parametrize(("stage", "steps"), [("cam", 20), ("apm", 4)])
def test_a_stage_equals_its_half_resumed_for_the_other_half(
    stage: str, steps: int, stories: Path, tmp_path: Path
) -> None:
    def wanted(name: str, *more: str) -> Composed:
        length = (f"trainer.max_steps={steps}", f"trainer.checkpoint_every={steps // 2}")
        return composed(stories, tmp_path / name, *SMALL, *length, f"streaming.stage={stage}", *DRAWN[stage], *more)

    train(wanted("straight"))
    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(loop, "optimise", interrupt_after(steps // 2))
        train(wanted("resumed"))
    torch.rand(7)  # the state of the generator must not matter
    train(wanted("resumed", "resume=true"))
    for file in ("trained.safetensors", "averaged.safetensors"):
        assert same(last(tmp_path / "resumed", file), last(tmp_path / "straight", file))
    assert curve(tmp_path / "resumed") == curve(tmp_path / "straight")
    # What is kept is the average.
    averaged, learnt = last(tmp_path / "straight", "averaged.safetensors"), last(tmp_path / "straight")
    assert not same(averaged, learnt)
    kept = {name: tensor for name, tensor in averaged.items() if not name.startswith("denoiser.")}
    file = load_file(tmp_path / "straight" / "methods" / "streaming.safetensors")
    assert same({name: file[name] for name in kept}, kept)


def test_the_latent_cache_is_refused_before_the_first_step(stories: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="streaming looks at pixels, .* Use trainer.cache=none"):
        train(composed(stories, tmp_path, *SMALL, "trainer.cache=latents"))
