"""The temporal consistency loss: what it measures, where it is nothing, and that it is finite."""

from __future__ import annotations

import pytest
import torch
from vidgen_depth.temporal_consistency import check_choices, predicted_x0, temporal_consistency

from vidgen_core.errors import BadRequest

ABAR = torch.tensor([0.9, 0.2])
KINDS = ["epsilon", "v_prediction", "sample"]
CHOICES = [(w, norm) for w in ("alpha_bar", "none") for norm in ("l2", "l1")]


def drawn(seed: int, frames: int = 5):
    return torch.randn(2, 4, frames, 6, 6, generator=torch.Generator().manual_seed(seed))


def smooth(frames: int = 5):
    """A picture that slowly becomes another."""
    place = torch.linspace(0, 1, frames)[:, None, None]
    return torch.lerp(drawn(1, 1).expand(-1, -1, frames, -1, -1), drawn(2, 1), place)


def prediction_of(kind, clean, noise, abar=ABAR):
    """The noised latents, and the perfect prediction for them."""
    alpha, sigma = abar.sqrt()[:, None, None, None, None], (1 - abar).sqrt()[:, None, None, None, None]
    noisy = alpha * clean + sigma * noise
    return noisy, {"epsilon": noise, "v_prediction": alpha * noise - sigma * clean, "sample": clean}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_prediction_gives_the_clean_latents(kind) -> None:
    noisy, prediction = prediction_of(kind, smooth(), drawn(3))
    assert torch.allclose(predicted_x0(noisy, prediction, ABAR, kind), smooth(), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("weighting", "norm"), CHOICES)
def test_it_is_the_weighted_difference_of_neighbouring_frames(kind, weighting, norm) -> None:
    noisy, prediction = drawn(3), drawn(4)
    x0 = predicted_x0(noisy, prediction, ABAR, kind)
    steps = x0[:, :, 1:] - x0[:, :, :-1]
    each = (steps**2 if norm == "l2" else steps.abs()).mean((1, 2, 3, 4))
    expected = (each * (ABAR if weighting == "alpha_bar" else 1)).mean()
    found = temporal_consistency(noisy, prediction, ABAR, kind, weighting=weighting, norm=norm)
    assert torch.allclose(found, expected)


@pytest.mark.parametrize("weighting", ["alpha_bar", "none"])
def test_the_prediction_itself_may_be_compared(weighting) -> None:
    prediction = drawn(4)
    each = prediction.diff(dim=2).square().mean((1, 2, 3, 4))
    expected = (each * (ABAR if weighting == "alpha_bar" else 1)).mean()
    found = temporal_consistency(drawn(3), prediction, ABAR, source="prediction", weighting=weighting)
    assert torch.allclose(found, expected)


@pytest.mark.parametrize(("weighting", "norm"), CHOICES)
def test_frames_that_are_alike_cost_nothing(weighting, norm) -> None:
    noisy, prediction = (drawn(seed, 1).expand(-1, -1, 5, -1, -1) for seed in (3, 4))
    assert temporal_consistency(noisy, prediction, ABAR, weighting=weighting, norm=norm) == 0


def test_one_frame_costs_nothing() -> None:
    assert temporal_consistency(drawn(3, 1), drawn(4, 1), ABAR) == 0


@pytest.mark.parametrize(("weighting", "norm"), CHOICES)
def test_frames_out_of_order_cost_more(weighting, norm) -> None:
    noise = drawn(3, 1).expand(-1, -1, 5, -1, -1)
    in_order, shuffled = (
        temporal_consistency(*prediction_of("epsilon", clean, noise), ABAR, weighting=weighting, norm=norm)
        for clean in (smooth(), smooth()[:, :, [2, 0, 4, 1, 3]])
    )
    assert shuffled > 2 * in_order


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("weighting", "norm"), CHOICES)
def test_the_motion_of_the_clip_is_free_where_it_is_the_target(kind, weighting, norm) -> None:
    noisy, prediction = prediction_of(kind, smooth(), drawn(3))
    chosen = {"clean": smooth(), "target": "clip", "weighting": weighting, "norm": norm}
    assert temporal_consistency(noisy, prediction, ABAR, kind, **chosen) < 1e-5
    still = prediction_of(kind, smooth()[:, :, :1].expand_as(smooth()), drawn(3))
    assert temporal_consistency(*still, ABAR, kind, **chosen) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("weighting", "norm"), CHOICES)
def test_pure_noise_gives_no_infinity(kind, weighting, norm) -> None:
    prediction = drawn(4).bfloat16().requires_grad_()
    loss = temporal_consistency(drawn(3), prediction, torch.zeros(2), kind, weighting=weighting, norm=norm)
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite() and prediction.grad.isfinite().all()


def test_under_alpha_bar_it_does_not_grow_with_noise() -> None:
    losses = [temporal_consistency(drawn(3), drawn(4), torch.full((2,), abar)) for abar in (0.5, 0.05, 0.0)]
    assert max(losses) < 1.5 * min(losses)


def test_the_gradient_reaches_every_frame() -> None:
    prediction = drawn(4).requires_grad_()
    temporal_consistency(drawn(3), prediction, ABAR).backward()
    assert (prediction.grad != 0).all()


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"weighting": "alpha"}, "knows no weighting=alpha. Did you mean 'alpha_bar'?"),
        ({"norm": "l3"}, "knows no norm=l3"),
        ({"source": "prediction", "target": "clip"}, "use source=x0"),
    ],
)
def test_choices_that_do_not_exist_are_refused(chosen, message) -> None:
    with pytest.raises(BadRequest, match=message):
        check_choices(**chosen)
