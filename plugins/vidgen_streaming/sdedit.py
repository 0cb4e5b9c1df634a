"""SDEdit (arXiv 2108.01073) as StreamingT2V refines by it: a video is noised up to a level and denoised from there.

The solver is DPM-Solver++(2M) SDE (arXiv 2211.01095) of diffusers on the model's own noise schedule, so any model that
predicts noise, velocity or the clean latents can refine. B videos, C channels, F frames, h w latent cells.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vidgen_core import hookimpl
from vidgen_core.errors import BadRequest
from vidgen_core.run import Run, Window
from vidgen_core.sampling import Predict, Step, make_scheduler

GRID = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas", "use_flow_sigmas")
"""Options of a saved scheduler that lay its steps out otherwise; the levels of an edit are its own."""


def levels(top: int, steps: int) -> list[float]:
    """Timesteps of an edit that begins at level ``top - 1``: evenly spaced down from it, the last one above 0.

    As the published enhancer lays them (``trailing``): of ``steps + 1`` levels the lowest is left out, since from the
    last one the solver goes to the clean latents at once.
    """
    return [max(top - 1 - i * top / (steps + 1), 0.0) for i in range(steps)]


class Sdedit:
    """Owns ``start_latents`` and ``guide`` of a run that refines, and makes its schedulers.

    Args:
        strength: The level to which they are noised, as a share of the schedule, 0 < strength <= 1.
        rescale: How far guidance is brought back to the spread of the conditional prediction, over the whole window
            (arXiv 2305.08891, section 3.4), 0 to 1.

    Attributes:
        clean: Absolute frames -> their clean, scaled latents (B, C, F, h, w); set before the first window is sampled.
    """

    clean: Callable[[range], Tensor]

    def __init__(self, strength: float = 0.6, rescale: float = 0.2) -> None:
        self.strength, self.rescale = strength, rescale

    def scheduler(self, run: Run) -> Any:
        """A fresh solver at its first step, in the main memory like what it moves on.

        Raises BadRequest for more steps than there are levels.
        """
        options = {**dict.fromkeys(GRID, False), "final_sigmas_type": "zero", "algorithm_type": "sde-dpmsolver++"}
        solver = make_scheduler(run.backbone.scheduler_config, "DPMSolverMultistepScheduler", **options, solver_order=2)
        times = self.times(solver.config.num_train_timesteps, run.request.num_inference_steps)
        solver.set_timesteps(timesteps=[round(time) for time in times])
        return solver

    def times(self, trained: int, steps: int) -> list[float]:
        """The timesteps of an edit, of so many that the model was trained with; see ``levels``.

        Raises BadRequest for more steps than there are levels.
        """
        top = round(self.strength * trained)
        if steps >= top:
            raise BadRequest(
                f"A strength of {self.strength} leaves {top} of the model's {trained} noise levels, too few for "
                f"{steps} steps. Use a larger strength or fewer steps."
            )
        return levels(top, steps)

    @hookimpl
    def start_latents(self, run: Run, window: Window) -> Tensor:
        """The clean latents of the window's frames with the noise of the first level, keyed by absolute frame."""
        clean, noise = self.clean(window.span), run.noise(window)
        solver = self.scheduler(run)
        noisy: Tensor = solver.add_noise(clean, noise.to(clean), solver.timesteps[:1])
        return noisy

    @hookimpl
    def guide(self, run: Run, step: Step, predict: Predict) -> Tensor:
        """Classifier-free guidance, rescaled."""
        scale = run.request.guidance_scale
        if scale <= 1:
            conditional: Tensor = predict("cond")
            return conditional
        cond, uncond = (branch.float() for branch in predict("cond", "uncond"))
        guided = torch.add(uncond, cond - uncond, alpha=scale)
        ratio = _spread(cond) / (_spread(guided) + 1e-12)
        return guided * (self.rescale * ratio + 1 - self.rescale)


def _spread(prediction: Tensor) -> Tensor:
    """The standard deviation of each video's whole window, (B, 1, 1, 1, 1)."""
    return prediction.flatten(1).std(dim=1).view(-1, 1, 1, 1, 1)
