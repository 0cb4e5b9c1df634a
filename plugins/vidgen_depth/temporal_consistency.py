"""The temporal consistency loss (arXiv 2408.16704, equation 8), whose formula the paper's text does not settle.

The latents of a clip do not depend on the weights, so a loss on them would train nothing: the latents must be the
model's own, predicted from noise. B videos, C channels, F frames, h w latent cells; abar is the cumulative product of
alphas at each video's timestep.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vidgen_core.errors import BadRequest, nearest

CHOICES = {
    "weighting": ("alpha_bar", "none"),
    "source": ("x0", "prediction"),
    "norm": ("l2", "l1"),
    "target": ("zero", "clip"),
}


def check_choices(**chosen: str) -> None:
    """Raise BadRequest for a choice that ``temporal_consistency`` does not have, or two that exclude each other."""
    for name, value in chosen.items():
        if value not in CHOICES[name]:
            raise BadRequest(f"The temporal consistency loss knows no {name}={value}.{nearest(value, CHOICES[name])}")
    if chosen.get("source") == "prediction" and chosen.get("target") == "clip":
        raise BadRequest("The clip's motion (target=clip) is that of clean latents: use source=x0 with it.")


def temporal_consistency(
    noisy: Tensor,
    prediction: Tensor,
    abar: Tensor,
    prediction_type: str = "epsilon",
    *,
    clean: Tensor | None = None,
    weighting: str = "alpha_bar",
    source: str = "x0",
    norm: str = "l2",
    target: str = "zero",
) -> Tensor:
    """How much neighbouring frames of the model's own latents differ: 0 where all are alike, or where F = 1.

    mean over videos of w * mean over C, h, w and the F - 1 pairs of (x0[i + 1] - x0[i])^2, computed in float32.

    Args:
        noisy: The noised latents (B, C, F, h, w).
        prediction: The network's output for them, of the same shape.
        abar: (B,) in 0..1.
        prediction_type: ``epsilon``, ``v_prediction`` or ``sample``.
        clean: The clip's latents (B, C, F, h, w), scaled as the network reads them; for ``target="clip"``.
        weighting: w = abar (``alpha_bar``), under which noisy steps count no more than others, or 1 (``none``): x0
            holds 1 / sqrt(abar), which lets them count a hundred times as much.
        source: ``x0``, the predicted clean latents; or ``prediction``, the output itself, which punishes independent
            noise too and so works against the denoising loss.
        norm: ``l2``, the squared difference, or ``l1``, the absolute one.
        target: ``zero``, the paper's wording and a pull towards a still video; or ``clip``, the clip's own motion,
            x0[i + 1] - x0[i] - (clean[i + 1] - clean[i]).

    Returns:
        A scalar, not yet weighted against the denoising loss.

    Raises:
        BadRequest: an unknown choice, or the clip's motion of a ``prediction``.
    """
    check_choices(weighting=weighting, source=source, norm=norm, target=target)
    if prediction.shape[2] == 1:
        return torch.zeros((), device=prediction.device)
    power = 2 if norm == "l2" else 1
    weight = abar.float() if weighting == "alpha_bar" else torch.ones_like(abar, dtype=torch.float32)
    scale = torch.ones_like(weight)
    if source == "prediction":
        latents = prediction.float()
    elif weighting == "alpha_bar":
        # abar (x0 - x0')^2 is the square of sqrt(abar) x0 - sqrt(abar) x0', in which nothing is divided by zero.
        latents, scale = scaled_x0(noisy, prediction, abar, prediction_type), weight.sqrt()
        weight = scale ** (2 - power)
    else:
        latents = predicted_x0(noisy, prediction, abar, prediction_type)
    steps = latents.diff(dim=2)
    if target == "clip":
        assert clean is not None, "target=clip needs the clip's latents"
        steps = steps - _per_video(scale) * clean.float().diff(dim=2)
    return (weight * steps.abs().pow(power).flatten(1).mean(1)).mean()


def predicted_x0(noisy: Tensor, prediction: Tensor, abar: Tensor, prediction_type: str = "epsilon") -> Tensor:
    """The clean latents (B, C, F, h, w), float32, that a prediction stands for (DDPM, arXiv 2006.11239, eq. 15).

    Arguments are those of ``temporal_consistency``. Pure noise (abar = 0) says nothing of them where epsilon is
    predicted: large, but never infinite.
    """
    if prediction_type == "sample":
        return prediction.float()
    alpha, sigma = _coefficients(abar)
    if prediction_type == "v_prediction":
        return alpha * noisy.float() - sigma * prediction.float()
    return scaled_x0(noisy, prediction, abar, prediction_type) / alpha.clamp(min=1e-4)


def scaled_x0(noisy: Tensor, prediction: Tensor, abar: Tensor, prediction_type: str = "epsilon") -> Tensor:
    """sqrt(abar) x0, float32, as ``predicted_x0``: without a division, so bounded at every timestep."""
    alpha, sigma = _coefficients(abar)
    if prediction_type == "epsilon":
        return noisy.float() - sigma * prediction.float()
    return alpha * predicted_x0(noisy, prediction, abar, prediction_type)


def _coefficients(abar: Tensor) -> tuple[Tensor, Tensor]:
    abar = _per_video(abar.float())
    return abar.sqrt(), (1 - abar).sqrt()


def _per_video(numbers: Tensor) -> Tensor:
    return numbers[:, None, None, None, None]
