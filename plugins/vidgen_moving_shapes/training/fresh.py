"""Fresh weights that depend on the seed of the run alone, and the diffusion process that all models share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vidgen_core.noise import seed_of

SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "set_alpha_to_one": True,
    "clip_sample": False,
}
"""v-prediction with zero terminal signal: the last timestep is pure noise, in training as in sampling."""


@contextmanager
def fresh_weights(seed: int, part: str) -> Iterator[None]:
    """Modules built inside the context draw the same weights in every process and on every resume.

    Args:
        part: What is built; another name draws other weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "weights", part))
        yield
