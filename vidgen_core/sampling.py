"""Schedulers, guidance, and the default sampling loop: the only hot loop of a run.

B videos, C channels, F frames, h w latent cells.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vidgen_core.errors import BadRequest, nearest
from vidgen_core.instantiate import named
from vidgen_core.models.backbone import ModelInput

if TYPE_CHECKING:
    from vidgen_core.run import Group, Run, Window

SCHEDULERS = (
    "DDIMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerDiscreteScheduler",
    "UniPCMultistepScheduler",
)


def make_scheduler(checkpoint: Mapping[str, Any], name: str | None = None, /, **options: Any) -> Any:
    """A diffusers scheduler made from a checkpoint's own configuration.

    Built as the published pipelines build it: the checkpoint's class first, then the wanted class ``from_config`` of
    that. So a key that the checkpoint's file does not have takes the *wanted* class's default, and one that it has is
    kept: a DDIM file without ``timestep_spacing`` gives DPM-Solver++ its own ``linspace`` grid, one that was saved
    again gives it ``leading``. ``options`` given by the user win over both.

    Args:
        name: One of SCHEDULERS, or ``module.Class`` of a plugin; None keeps the checkpoint's.
        options: Keys of that class, such as ``timestep_spacing`` or ``final_sigmas_type``; None values are ignored.

    Raises:
        BadRequest: for an unknown scheduler or option.
    """
    import diffusers

    own = checkpoint.get("_class_name", "DDIMScheduler")
    kind = getattr(diffusers, str(own), None)
    if not (inspect.isclass(kind) and issubclass(kind, diffusers.SchedulerMixin)):
        raise BadRequest(
            f"The checkpoint names a scheduler '{own}' that diffusers does not have.{nearest(own, SCHEDULERS)}"
        )
    scheduler = getattr(diffusers, own).from_config(dict(checkpoint))
    wanted = getattr(diffusers, own) if name is None else _scheduler_class(name)
    given = {key: value for key, value in options.items() if value is not None}
    known = [key for key in inspect.signature(wanted.__init__).parameters if key not in ("self", "kwargs")]
    for key in given:
        if key not in known:
            raise BadRequest(f"{wanted.__name__} has no option '{key}'.{nearest(key, known)}")
    try:
        return wanted.from_config(scheduler.config, **given)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise BadRequest(f"{wanted.__name__} cannot be made with {given}: {error}") from error


def _scheduler_class(name: str) -> Any:
    import diffusers

    if name in SCHEDULERS:
        return getattr(diffusers, name)
    if "." not in name:
        raise BadRequest(f"scheduler.name={name} is not known.{nearest(name, SCHEDULERS)}")
    found = named(name, "scheduler.name")
    if not (inspect.isclass(found) and issubclass(found, diffusers.SchedulerMixin)):
        raise BadRequest(f"scheduler.name={name} is no scheduler: a subclass of diffusers' SchedulerMixin.")
    return found


@dataclass
class Step:
    """One step of one window: where it stands and what is known."""

    index: int
    total: int
    t: Tensor  # the timestep, a scalar tensor, so that nothing recompiles
    window: Window
    scheduler: Any
    model_input: Tensor  # B C F h w, the latents scaled for the network
    prediction: Tensor | None = None  # B C F h w, after guidance

    def x0(self) -> Tensor:
        """The present estimate of the clean latents (B, C, F, h, w), from the guided prediction."""
        assert self.prediction is not None
        # model_input is variance-preserving for every scheduler here (Euler's scale_model_input divides by
        # sqrt(sigma^2 + 1)), so one formula serves all; schedulers with sigmas = sigma / alpha may interpolate them.
        sigmas = getattr(self.scheduler, "sigmas", None)
        if sigmas is None:
            abar = self.scheduler.alphas_cumprod[self.t.long().cpu()].to(self.prediction)
            alpha, sigma = abar.sqrt(), (1 - abar).sqrt()
        else:
            ratio = sigmas[self.index].to(self.prediction)
            alpha = (1 + ratio**2).rsqrt()
            sigma = ratio * alpha
        kind = self.scheduler.config.prediction_type
        if kind == "v_prediction":
            return alpha * self.model_input - sigma * self.prediction
        if kind == "sample":
            return self.prediction
        # Pure noise (zero terminal SNR) says nothing of x0 where epsilon is predicted: large, but never infinite.
        return (self.model_input - sigma * self.prediction) / alpha.clamp(min=1e-4)


class Predict:
    """``predict("cond")`` -> (B, C, F, h, w); ``predict("cond", "uncond")`` -> one such tensor per branch.

    Several branches run as one batch, or one after the other where memory is short (placement) or where their texts
    have different lengths. Inputs are prepared once per window.
    """

    def __init__(self, run: Run, window: Window, t: Tensor, latents: Tensor) -> None:
        self.run = run
        self.window = window
        self.t = t
        self.latents = latents

    def __call__(self, *branches: str) -> Any:
        if len(branches) == 1:
            return self._predict(branches, self.latents)
        # unconditional first, as the published pipelines stack it
        order = tuple(sorted(branches, reverse=True))
        if self.run.placement.guidance == "two_pass" or not self._stackable(order):
            return tuple(self._predict((branch,), self.latents) for branch in branches)
        stacked = self._predict(order, torch.cat([self.latents] * len(order)))
        parts = dict(zip(order, stacked.chunk(len(order)), strict=True))
        return tuple(parts[branch] for branch in branches)

    def _stackable(self, branches: tuple[str, ...]) -> bool:
        if branches in self.window.inputs:  # as in an earlier step
            return True
        texts = [self.window.condition.branch(branch)["text"] for branch in branches]
        # Of text and of every source of image tokens: those of one are not read in the place of another's.
        lengths = [{"": text.embeds.shape[1]} | {s: t.shape[1] for s, t in text.tokens.items()} for text in texts]
        return all(one == lengths[0] for one in lengths)

    def _predict(self, branches: tuple[str, ...], latents: Tensor) -> Tensor:
        inputs: ModelInput | None = self.window.inputs.get(branches)
        if inputs is None:
            inputs = self.window.inputs[branches] = self.run.backbone.prepare(self.window.condition, branches)
        return self.run.backbone.predict(latents, self.t, inputs)


Denoise = Callable[["Window", Step], Tensor]
"""(window, step) -> the guided prediction (B, C, F, h, w), float32."""


def denoiser(run: Run) -> Denoise:
    """The guided network as one function, for the default loop and for methods that own ``sample``."""

    def denoise(window: Window, step: Step) -> Tensor:
        predict = Predict(run, window, step.t, step.model_input)
        prediction: Tensor = run.moments.guide(run=run, step=step, predict=predict)
        step.prediction = prediction.float()
        return step.prediction

    return denoise


def classifier_free_guidance(run: Run, step: Step, predict: Predict) -> Tensor:
    """u + g (c - u) (Ho and Salimans 2022, eq. 6); the conditional prediction alone for g <= 1."""
    g = run.request.guidance_scale
    if g <= 1:
        return predict("cond")
    cond, uncond = predict("cond", "uncond")
    # In float32: the factor g would amplify the rounding of half precision.
    cond, uncond = cond.float(), uncond.float()
    return torch.add(uncond, cond - uncond, alpha=g)


def one_window(run: Run) -> Sequence[Group]:
    """The default plan: all frames in one window."""
    from vidgen_core.run import Group, Window

    span = range(run.request.num_frames)
    return [Group((Window(span, span),))]


def keyed_start(run: Run, window: Window) -> Tensor:
    """The default start: unit normal noise keyed by seed, video, stage, group and absolute frame."""
    return run.noise(window)


def fresh_noise(run: Run, window: Window, step: Step) -> dict[str, Any]:
    """What a scheduler that adds noise at every step is handed: noise keyed by step and absolute frame."""
    eta = float((run.config.get("scheduler") or {}).get("eta") or 0)
    if eta:
        return {"eta": eta, "variance_noise": run.noise(window, step.index).to(step.model_input)}
    if str(step.scheduler.config.get("algorithm_type")).startswith("sde"):
        return {"variance_noise": run.noise(window, step.index).to(step.model_input)}
    return {}


@torch.no_grad()
def scheduler_loop(run: Run, group: Group, denoise: Denoise) -> Iterator[Window]:
    """The default sampler: every window of the group by itself, through all steps of the scheduler."""
    for window in group.windows:
        run.prepare(window)
        scheduler = run.make_scheduler()
        timesteps = run.timesteps(scheduler)
        assert window.latents is not None
        latents = window.latents.to(run.backbone.device)
        first = window.first_step
        latents = latents * scheduler.init_noise_sigma if first == 0 else latents
        if first and hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        for index, t in enumerate(timesteps[first:], first):
            step = Step(index, len(timesteps), t, window, scheduler, scheduler.scale_model_input(latents, t))
            noise = fresh_noise(run, window, step)
            latents = scheduler.step(denoise(window, step), t, latents, return_dict=False, **noise)[0]
            latents = run.moments.after_step(run=run, window=window, step=step, latents=latents)
            run.moments.on_step(run=run, window=window, step=step, latents=latents)
        window.latents = latents
        yield window
