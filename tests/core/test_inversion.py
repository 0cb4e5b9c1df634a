"""DDIM inversion: the published equation for every kind of prediction, and what it loses on the way back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from vidgen_core.conditioning import Condition, PerFrameText
from vidgen_core.errors import BadRequest
from vidgen_core.inversion import ddim_changes, inversion, reached, reconstruction
from vidgen_core.models import tiny
from vidgen_core.run import Run
from vidgen_core.testing import make_run, request

EMPTY = Condition({})
ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}


@contextmanager
def run_of(**scheduler: object) -> Iterator[Run]:
    """A run on the tiny image model, whose scheduler is read as an inversion needs it."""
    run, backbone = make_run(request("a circle")), tiny.build_image()
    backbone.scheduler_config = {**tiny.SCHEDULER, **scheduler}
    backbone.scheduler_changes = ddim_changes(backbone.scheduler_config, inverts=True)
    with backbone.attention_installed("sdpa"), torch.no_grad():
        run.place(backbone, None)  # type: ignore[arg-type]
        yield run


def clean() -> Tensor:
    return torch.randn(1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def last(steps: Iterator[Tensor]) -> Tensor:
    return deque(steps, maxlen=1).pop()


def as_published(run: Run, z: Tensor, steps: int, prompt: str) -> Tensor:
    """The equation, step by step, at the levels that z has."""
    scheduler, kind = run.make_scheduler(), run.backbone.sampling_config.get("prediction_type", "epsilon")
    abar, apart = scheduler.alphas_cumprod, 1000 // steps
    for tau in torch.arange(steps) * apart + 1:
        level = tau - apart
        a_s = abar[level] if level >= 0 else scheduler.final_alpha_cumprod
        a, (alpha, sigma) = abar[tau], (a_s.sqrt(), (1 - a_s).sqrt())
        found = run.backbone.predict(z, tau, inputs(run, prompt))
        e, x0 = (found, (z - sigma * found) / alpha)
        if kind == "v_prediction":
            e, x0 = sigma * z + alpha * found, alpha * z - sigma * found
        z = a.sqrt() * x0 + (1 - a).sqrt() * e
    return z


def inputs(run: Run, prompt: str) -> object:
    text = PerFrameText(run.backbone.encode_text([prompt]), torch.zeros(1, 2, dtype=torch.long))
    return run.backbone.prepare(Condition(text=text), ["cond"])


def test_options_of_the_scheduler_hold_for_the_inversion_as_for_the_sampling() -> None:
    with run_of(prediction_type="v_prediction") as run:
        expected = last(inversion(run, EMPTY, clean(), 5))
    with run_of() as run:
        run.config = {**run.config, "scheduler": {"options": {"prediction_type": "v_prediction"}}}
        noise = last(inversion(run, EMPTY, clean(), 5))
        assert torch.equal(noise, expected)
        back = reconstruction(run, EMPTY, noise, 5)
    with run_of(prediction_type="v_prediction") as run:
        assert torch.equal(back, reconstruction(run, EMPTY, noise, 5))


@pytest.mark.parametrize("to_one", [True, False])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_it_walks_by_the_published_equation(kind: str, to_one: bool) -> None:
    with run_of(prediction_type=kind, set_alpha_to_one=to_one) as run:
        expected = as_published(run, clean(), 5, "")
        assert torch.allclose(last(inversion(run, EMPTY, clean(), 5)), expected, atol=1e-4)


def test_a_schedule_that_ends_in_pure_noise_is_walked_to_a_step_before_it() -> None:
    with run_of(**ZERO_SNR, set_alpha_to_one=True) as run:
        assert reached(run, 5, 5) == 801
        noise = last(inversion(run, EMPTY, clean(), 5))
        assert torch.allclose(noise, as_published(run, clean(), 5, ""), atol=1e-4)


def test_more_steps_than_the_schedule_has_are_refused_before_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with run_of() as run:
        monkeypatch.setattr(run.backbone, "predict", lambda *_: pytest.fail("a step was taken"))
        with pytest.raises(BadRequest, match="in 1000 steps reaches beyond the 1000 of training. Take fewer"):
            inversion(run, EMPTY, clean(), 1000)
        with pytest.raises(BadRequest, match="DDIM inversion is not possible"):
            inversion(run, EMPTY, clean(), 1001)


def test_text_guides_it_where_it_is_given() -> None:
    with run_of() as run:
        for prompt in ("a red circle", ""):
            found = last(inversion(run, EMPTY, clean(), 4, prompt))
            assert torch.allclose(found, as_published(run, clean(), 4, prompt), atol=1e-4)
        assert not torch.allclose(found, last(inversion(run, EMPTY, clean(), 4, "a red circle")), atol=1e-4)


@pytest.mark.parametrize("scheduler", [{}, {"prediction_type": "v_prediction"}, ZERO_SNR], ids=["e", "v", "zero snr"])
def test_what_is_lost_on_the_way_back_falls_with_the_steps(
    scheduler: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(steps: int) -> float:
        with run_of(**scheduler) as run:
            monkeypatch.setattr(run.backbone, "predict", perfect(run))
            noise = last(inversion(run, EMPTY, clean(), steps))
            return float((reconstruction(run, EMPTY, noise, steps) - clean()).square().mean().sqrt())

    few, more, many = lost(4), lost(16), lost(64)
    assert 2 * many < more < few / 2


def perfect(run: Run) -> Callable[..., Tensor]:
    """The best prediction for latents that are normal with a deviation of 2."""
    abar = run.make_scheduler().alphas_cumprod

    def predict(z: Tensor, t: Tensor, inputs: object) -> Tensor:
        a = abar[t]
        noise = z * (1 - a).sqrt() / (4 * a + 1 - a)
        velocity = z * -3 * (a * (1 - a)).sqrt() / (4 * a + 1 - a)
        return velocity if run.backbone.sampling_config.get("prediction_type") == "v_prediction" else noise

    return predict
