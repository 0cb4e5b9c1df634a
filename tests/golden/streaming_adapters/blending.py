"""Randomized blending and the enhancer's sampler of StreamingT2V, through the hooks, with the cases' toy denoiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from vidgen_streaming.blending import RandomizedBlending
from vidgen_streaming.enhancer import LEVELS, Enhancer, EnhancerSolver

from vidgen_core import hookimpl
from vidgen_core.conditioning import Condition
from vidgen_core.models.backbone import Backbone
from vidgen_core.placement import Placement
from vidgen_core.run import Run, Window
from vidgen_core.sampling import denoiser
from vidgen_core.testing import make_run, request

Case = dict[str, Any]


class Toy(Backbone):
    """The cases' velocity: a function of the frames that it is given, the level, and a constant for each branch."""

    def __init__(self, cond: Tensor, uncond: Tensor) -> None:
        network = nn.Linear(1, 1)
        network.config = SimpleNamespace(in_channels=cond.shape[1], out_channels=cond.shape[1])
        super().__init__(network)
        self.constants = {"cond": cond, "uncond": uncond}

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        return torch.zeros(len(texts), 1, 1)

    def prepare(self, condition: Condition, branches: Sequence[str]) -> Any:
        return torch.cat([self.constants[branch] for branch in branches])

    def predict(self, latents: Tensor, t: Tensor, inputs: Any) -> Tensor:
        running = latents.cumsum(2) / latents.shape[2]
        return 0.5 * latents.mean(2, keepdim=True) + 0.3 * (t / 100).cos() * latents.flip(2) + 0.2 * running + inputs


class GivenCuts(RandomizedBlending):
    """The cuts that were drawn, step by step and chunk by chunk after the first."""

    def __init__(self, cuts: Sequence[int], **options: Any) -> None:
        super().__init__(**options)
        self.cuts = cuts

    def cut(self, run: Run, windows: Sequence[Window], chunk: int, step: int) -> int:
        drawn = self.cuts[step * (len(windows) - 1) + chunk - 1] if chunk else 0
        return windows[chunk].span.start + drawn


def of(video: Tensor) -> Callable[[range], Tensor]:
    """The frames of a video (B, C, F, h, w) that lie in a span."""
    return lambda span: video[:, :, span.start : span.stop]


class GivenLevel(Enhancer):
    """One evaluation at one ratio of noise to signal, of latents as the network sees them."""

    def __init__(self, latents: Tensor, ratio: float, rescale: float) -> None:
        super().__init__(rescale=rescale)
        self.clean = of(latents)
        self.ratio = ratio

    def scheduler(self, run: Run) -> EnhancerSolver:
        solver = EnhancerSolver().begin_at([self.ratio])
        solver.init_noise_sigma = 1.0
        return solver

    @hookimpl
    def start_latents(self, run: Run, window: Window) -> Tensor:
        return self.clean(window.span)


def opened(case: Case, enhancer: Enhancer, frames: int, noise: Callable[[Window, int], Tensor]) -> Run:
    """A run of blending and the enhancer on the toy, with the noise that was drawn."""
    scalars, tensors = case["scalars"], case["tensors"]
    sizes = {"chunk": scalars["chunk_size"], "overlap": scalars["overlap_size"]}
    blending = GivenCuts(scalars["cut_points"], **sizes, scheduler=enhancer.scheduler)
    steps = {"num_inference_steps": scalars["steps"], "guidance_scale": scalars["guide_scale"]}
    run = make_run(request(num_frames=frames, **steps), {"blending": blending, "enhancer": enhancer})
    run.place(Toy(tensors["y"], tensors["y_negative"]), Placement(torch.device("cpu"), torch.float32))
    run.noise = lambda window, step=-1: noise(window, step)  # type: ignore[method-assign]
    return run


def sampled(run: Run) -> Tensor:
    """The whole video, from the windows that blending yields."""
    (group,) = run.moments.plan(run=run)
    windows = run.moments.sample(run=run, group=group, denoise=denoiser(run))
    return torch.cat([window.latents[:, :, window.kept] for window in windows], dim=2)


def blend_step(case: Case, folder: Path) -> dict[str, Tensor]:
    """The blended estimate of one evaluation: a step from its level straight to the clean latents gives it."""
    scalars, latents = case["scalars"], case["tensors"]["xt"]
    enhancer = GivenLevel(latents, scalars["sigma"], scalars["guide_rescale"])
    run = opened(case, enhancer, latents.shape[2], lambda window, step: torch.zeros(()))
    return {"x0": sampled(run), "t": enhancer.scheduler(run).timesteps.float()}


def blend_sampler(case: Case, folder: Path) -> dict[str, Tensor]:
    """Noise added to clean latents, and the whole way back."""
    scalars, tensors = case["scalars"], case["tensors"]
    clean = tensors["video_latents"]
    # The published code draws none at its last step, which goes to the clean latents.
    drawn = [*tensors["step_noise"], torch.zeros_like(clean), tensors["noise"]]
    strength = scalars["total_noise_levels"] / LEVELS
    enhancer = Enhancer(strength, scalars["guide_rescale"])
    enhancer.clean = of(clean)
    run = opened(case, enhancer, clean.shape[2], lambda window, step: of(drawn[step])(window.span))
    whole = range(clean.shape[2])
    noised = enhancer.start_latents(run, Window(whole, whole))
    return {"latents": sampled(run), "sigmas": enhancer.scheduler(run).sigmas, "noised": noised}


ADAPTERS: dict[str, Callable[[Case, Path], dict[str, Tensor]]] = {
    "blend_step": blend_step,
    "blend_sampler": blend_sampler,
}
