"""DDIM inversion: from clean latents to the noise from which sampling leads back to them.

The sampler's equation (arXiv 2010.02502, eq. 12) is walked in the other direction: the network sees latents at the
level they have, with the timestep of the level they go to, as the sampler will see them on its way back, unguided.
B videos, C channels, F frames, h w latent cells.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vidgen_core.conditioning import Branches, Condition, PerFrameText
from vidgen_core.errors import BadRequest

if TYPE_CHECKING:
    from vidgen_core.run import Run


def ddim_changes(config: Mapping[str, Any], inverts: bool) -> dict[str, Any]:
    """What is changed of a checkpoint's scheduler configuration where DDIM walks through its latents.

    Nothing is clipped, and on a grid of leading steps the last one is 1, not 0: files of other schedulers often say
    neither, and DDIM's own defaults are the opposite.

    Args:
        inverts: The way is walked in both directions. Where the schedule ends in pure noise, which holds nothing of a
            clip, the grid then begins a step before it.
    """
    leading = config.get("timestep_spacing", "leading") == "leading"
    changes: dict[str, Any] = {"clip_sample": False}
    if inverts and config.get("rescale_betas_zero_snr") and not leading:
        leading, changes["timestep_spacing"] = True, "leading"
    return changes | ({"steps_offset": config.get("steps_offset") or 1} if leading else {})


def inversion(
    run: Run, condition: Condition, latents: Tensor, steps: int, prompt: str = "", walked: int | None = None
) -> Iterator[Tensor]:
    """Yield the latents (B, C, F, h, w), float32, after each of the steps, the last at the level of noise.

    Args:
        condition: Guides every call, except that its text is ``prompt``.
        latents: Clean, scaled; fewer videos than the request has, where they are made of one clip.
        steps: Of the whole way from clean to noise, at least 1.
        prompt: Of all frames; published methods invert with the empty one.
        walked: How many of the steps are walked, at least 1; None walks them all.

    Raises:
        BadRequest: the scheduler's spacing has no inverse, or so many steps reach beyond those of training.
    """
    scheduler = _inverter(run, steps)
    return _unguided(run, condition, latents, prompt, scheduler, scheduler.timesteps[:walked])


def reached(run: Run, steps: int, walked: int) -> int:
    """The timestep whose level of noise the latents have after ``walked`` of the steps. Raises as ``inversion``."""
    return int(_inverter(run, steps).timesteps[walked - 1])


def reconstruction(
    run: Run, condition: Condition, noise: Tensor, steps: int, prompt: str = "", walked: int | None = None
) -> Tensor:
    """The latents (B, C, F, h, w), float32, to which unguided DDIM sampling leads back: what the inversion lost.

    Arguments are those of ``inversion``; ``noise`` is what it yielded last.
    """
    scheduler = _sampler(run)
    scheduler.set_timesteps(steps, device=run.backbone.device)
    left_out = 0 if walked is None else steps - walked
    return deque(_unguided(run, condition, noise, prompt, scheduler, scheduler.timesteps[left_out:]), maxlen=1).pop()


def _inverter(run: Run, steps: int) -> Any:
    from diffusers import DDIMInverseScheduler

    scheduler = DDIMInverseScheduler.from_config(_sampler(run).config)
    try:
        scheduler.set_timesteps(steps, device=run.backbone.device)
    except ValueError as error:
        raise BadRequest(f"DDIM inversion is not possible: {' '.join(str(error).split())}") from error
    trained = scheduler.config.num_train_timesteps
    if scheduler.timesteps.max() >= trained:
        raise BadRequest(f"DDIM inversion in {steps} steps reaches beyond the {trained} of training. Take fewer steps.")
    return scheduler


def _sampler(run: Run) -> Any:
    # The edit's own, with all its options: noise of another would begin at other levels than the sampling.
    from diffusers import DDIMScheduler

    return DDIMScheduler.from_config(run.make_scheduler().config)


@torch.no_grad()
def _unguided(
    run: Run, condition: Condition, latents: Tensor, prompt: str, scheduler: Any, timesteps: Tensor
) -> Iterator[Tensor]:
    inputs = run.backbone.prepare(_with_text(run, condition, prompt, latents), ("cond",))
    # Single precision throughout: fifty rounded steps add up.
    z = latents.to(run.backbone.device, torch.float32)
    for t in timesteps:
        z = scheduler.step(run.backbone.predict(z, t, inputs).float(), t, z, return_dict=False)[0]
        yield z


def _with_text(run: Run, condition: Condition, prompt: str, latents: Tensor) -> Condition:
    # The videos of a batch edit one clip: it is inverted once, under the conditions of the first of them.
    (row,) = run.texts.rows([prompt])
    assert run.texts.embeds is not None

    def first(value: Any) -> Any:
        if isinstance(value, Branches):
            return Branches(first(value.cond), first(value.uncond))
        return value[: len(latents)] if isinstance(value, Tensor) else value

    index = torch.full((len(latents), latents.shape[2]), row)
    text = PerFrameText(run.texts.embeds, index)
    return Condition({**{name: first(value) for name, value in condition.items()}, "text": text})
