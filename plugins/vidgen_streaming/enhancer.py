"""The released enhancer's own noise schedule, grid and start, for parity with it (StreamingT2V, the 720p stage).

1000 levels of a cosine schedule in the log of the signal-to-noise ratio, shifted for the resolution; steps between the
levels, at which the network is asked for, and its answer read by, the nearest whole one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from vidgen_core.run import Run
from vidgen_streaming.sdedit import Sdedit

LEVELS = 1000
LOG_SNR = 15.0
"""Of the cleanest level, and minus that of the noisiest, before the shift."""
SHIFTS = (2.0, 4.0)
"""How much larger than 64 pixels the least and the most noisy level are made for."""


def noise_levels() -> np.ndarray:
    """sigma of every level (1000,), float64, variance preserving: alpha = sqrt(1 - sigma^2); the last one is 1."""
    u = np.linspace(1, 0, LEVELS)
    near, far = np.arctan(np.exp(LOG_SNR / 2)), np.arctan(np.exp(-LOG_SNR / 2))
    plain = -2 * np.log(np.tan(near + u * (far - near)))
    shifted = u * (plain - 2 * np.log(SHIFTS[0])) + (1 - u) * (plain - 2 * np.log(SHIFTS[1]))
    sigma = np.sqrt(1 / (1 + np.exp(shifted)))
    low, high = sigma.min(), sigma.max()
    stretched: np.ndarray = low + (sigma - low) * (1 - low) / (high - low)
    return stretched


class EnhancerSolver(DPMSolverMultistepScheduler):
    """DPM-Solver++(2M) SDE as it was released: what diffusers' own class computes, on the enhancer's grid."""

    def __init__(self) -> None:
        super().__init__(prediction_type="v_prediction", algorithm_type="sde-dpmsolver++")
        sigma = torch.from_numpy(noise_levels())
        self.alphas_cumprod = 1 - sigma**2
        self.ratios = (sigma / self.alphas_cumprod.sqrt()).clamp(max=1e12)

    def begin(self, times: list[float], device: torch.device | None = None) -> EnhancerSolver:
        """Set the steps at levels that need not be whole."""
        ratios = np.exp(np.interp(times, np.arange(LEVELS), self.ratios.log().numpy()))
        return self.begin_at([float(ratio) for ratio in ratios], device)

    def begin_at(self, ratios: list[float], device: torch.device | None = None) -> EnhancerSolver:
        """Set the steps at ratios of noise to signal, sigma / alpha, falling; the last step goes to 0."""
        times = np.interp(np.log(ratios), self.ratios.log().numpy(), np.arange(LEVELS))
        self.set_timesteps(timesteps=times.round(), device=device)
        self.sigmas = torch.tensor([*ratios, 0.0])
        # The released start is in units of the clean latents, but noised variance preserving: alpha too small.
        self.init_noise_sigma = float(self.sigmas[0] / (1 + self.sigmas[0] ** 2).sqrt())
        return self

    def convert_model_output(self, model_output: Tensor, *args: Any, sample: Tensor) -> Tensor:
        """The clean latents from the velocity, by the whole level that the network was asked for."""
        kept = self.alphas_cumprod[self.timesteps[self.step_index].cpu()]
        return float(kept.sqrt()) * sample - float((1 - kept).sqrt()) * model_output


class Enhancer(Sdedit):
    """SDEdit on the released enhancer's schedule."""

    def scheduler(self, run: Run) -> EnhancerSolver:
        """A fresh solver at its first step. Raises BadRequest for more steps than there are levels."""
        return EnhancerSolver().begin(self.times(LEVELS, run.request.num_inference_steps))
