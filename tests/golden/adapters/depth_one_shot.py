"""Adapters of the depth-conditioned one-shot cases: as those of Tune-A-Video, with the case's depth maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from adapters.tune_a_video import Case, Given, GivenStep, batch_of, inflated
from torch import Tensor
from vidgen_depth.method import Depth
from vidgen_depth.temporal_consistency import predicted_x0, temporal_consistency
from vidgen_tune_a_video.published import from_published

from vidgen_core.depth_map import depth_channel
from vidgen_core.inversion import inversion
from vidgen_core.moments import Moments
from vidgen_core.request import Request
from vidgen_core.run import Group, Run, Window
from vidgen_core.sampling import denoiser
from vidgen_core.training.learner import Learner, choose_trainables


class GivenDepth(Depth):
    """Depth maps from the case, in the place of a clip's."""

    def __init__(self, case: Case, **options: Any) -> None:
        super().__init__(**options)
        self.depth.supplied = lambda clip: case["tensors"]["depth"]  # type: ignore[method-assign]

    def clip(self, request: Request) -> Any:
        return SimpleNamespace(content="the case's clip")


def depth_map(case: Case, folder: Path) -> dict[str, Tensor]:
    """Depth maps of single frames as the network reads them."""
    size = case["scalars"]["height"] // 8, case["scalars"]["width"] // 8
    maps = {name: depth_channel(maps[None], size)[0].transpose(0, 1) for name, maps in case["tensors"].items()}
    return {name.replace("depth", "map"): found for name, found in maps.items()}


def invert_sample(case: Case, folder: Path) -> dict[str, Tensor]:
    """Inversion with the empty prompt and the depth, then guided sampling from its end."""
    scalars, latents = case["scalars"], case["tensors"]["latents"]
    request = {"guidance_scale": scalars["guidance_scale"], "num_inference_steps": scalars["num_inference_steps"]}
    given = Given(latents)
    with inflated(case, folder, GivenDepth(case), len(latents), {"given": given}, request) as run:
        window = Window(range(latents.shape[2]), range(latents.shape[2]))
        run.prepare(window)
        condition = run.moments.methods["depth"].source_condition(run, window)  # type: ignore[attr-defined]
        trajectory = [latents, *inversion(run, condition, latents, scalars["num_inv_steps"])]
        given.latents = trajectory[-1]
        list(run.moments.sample(run=run, group=Group((window,)), denoise=denoiser(run)))
    depth = window.condition["channels"]
    return {"depth": depth, "trajectory": torch.stack(trajectory), "steps": torch.stack(given.steps)}


def train_step(case: Case, folder: Path) -> dict[str, Tensor]:
    """One training step's losses and gradients."""
    scalars, tensors = case["scalars"], case["tensors"]
    latents = tensors["latents"]
    method = GivenDepth(case, temporal_weight=scalars["temporal_weight"])
    objective = GivenStep(latents, tensors["noise"], scalars["timesteps"])
    seen: dict[str, Any] = {}
    with inflated(case, folder, method, len(latents)) as run:
        run.moments = Moments({"depth": method, "objective": objective})
        learner = Learner(trained(run), choose_trainables(run)).eval()
        whole = run.moments.training_step
        run.moments.training_step = lambda **named: seen.setdefault("prediction", whole(**named))
        terms = learner(batch_of(case))
        loss = sum(terms.values())
        loss.backward()
        ours = [f"denoiser.{next(iter(from_published({name: latents})))}" for name in case["trainable"]]
        norms = torch.stack([learner.trainables[name].grad.norm() for name in ours])
    made = seen["prediction"]
    abar = made.scheduler.alphas_cumprod[made.timesteps]
    output = made.output.detach()
    return {
        "model_pred": output,
        "x0": predicted_x0(made.noisy, output, abar),
        "temporal_plain": temporal_consistency(made.noisy, output, abar, weighting="none").view(1),
        "temporal_alpha_bar": temporal_consistency(made.noisy, output, abar).view(1),
        "loss_ldm": terms["denoising"].detach().view(1),
        "loss": loss.detach().view(1),
        "grad_norms": norms,
    }


def trained(run: Run) -> Run:
    """The run as a training has it."""
    run.config["trainer"]["trainable"] = "all"
    return run


ADAPTERS: dict[str, Callable[[Case, Path], dict[str, Tensor]]] = {
    "depth_map": depth_map,
    "invert_sample": invert_sample,
    "train_step": train_step,
}
