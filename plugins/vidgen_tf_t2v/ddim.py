"""How the published models diffuse, and their inversion, which differs from that of diffusers.

Where the number of steps divides that of the training, the release samples as diffusers' DDIM does. Elsewhere it takes
more steps than it was asked for, and of the whole range some that are no numbers: those are not offered.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vidgen_core.sampling import Step, make_scheduler

if TYPE_CHECKING:
    from vidgen_core.run import Run, Window

COMMON = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
LINEAR = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
ZERO_SNR_V = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}

DIFFUSIONS: dict[str, dict[str, Any]] = {
    "v_zero_snr": {**COMMON, **LINEAR, **ZERO_SNR_V},
    "cosine_v": {**COMMON, "beta_schedule": "squaredcos_cap_v2", **ZERO_SNR_V},
    "eps": {**COMMON, **LINEAR, "prediction_type": "epsilon"},
}
"""The schedulers of TF-T2V, of VGen's own text-to-video and of ModelScope's original; no checkpoint tells its own."""


def inverted(
    run: Run, window: Window, latents: Tensor, top: int | None = None, branch: str = "cond"
) -> Iterator[Tensor]:
    """Yield the latents (B, C, F, h, w), float32, after each step of the published inversion, the last at ``top``.

    Unguided, under one branch of the window's condition. The network sees every level with its own timestep, where
    DDIM's inverse in diffusers gives it the next one.

    Args:
        latents: Clean, scaled.
        top: The level that the run's number of steps leads to, or a little beyond; None is pure noise.
        branch: ``cond`` or ``uncond``.
    """
    # DDIM's own inversion, whatever scheduler the run samples with: others put their steps at other levels.
    scheduler = make_scheduler(run.backbone.scheduler_config, "DDIMScheduler")
    trained = scheduler.config.num_train_timesteps
    top = top or trained
    starts = range(0, top, top // run.request.num_inference_steps)
    levels = torch.cat([scheduler.alphas_cumprod, torch.zeros(1)]).to(run.backbone.device)
    inputs = run.backbone.prepare(window.condition, (branch,))
    z = latents.to(run.backbone.device, torch.float32)
    for index, start in enumerate(starts):
        t = torch.tensor(start)
        step = Step(index, len(starts), t, window, scheduler, z, run.backbone.predict(z, t, inputs).float())
        here, after = levels[start], levels[min(start + starts.step, trained)]
        x0 = step.x0()
        noise = (z - here.sqrt() * x0) / (1 - here).sqrt()
        z = after.sqrt() * x0 + (1 - after).sqrt() * noise
        yield z
