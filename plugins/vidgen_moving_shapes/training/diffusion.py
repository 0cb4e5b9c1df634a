"""The diffusion process that all models share: v-prediction with zero terminal signal."""

import torch
from diffusers import DDIMScheduler
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

STEPS = 1000


def build_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        num_train_timesteps=STEPS,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        set_alpha_to_one=True,
        clip_sample=False,
    )


def stratified_timesteps(count: int, low: int = 0, high: int = STEPS) -> Tensor:
    """(count,) integers in [low, high), one from every equal part of the range, shuffled."""
    positions = (torch.randperm(count) + torch.rand(count)) / count
    return (low + positions * (high - low)).long()


def noised(scheduler: DDIMScheduler, latents: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """Noisy latents and the velocity to predict, both shaped as `latents` (N, ...); timesteps (N,)."""
    noise = torch.randn_like(latents)
    steps = timesteps.to(torch.int64)
    return scheduler.add_noise(latents, noise, steps), scheduler.get_velocity(latents, noise, steps)


def use_materialised_attention(model: nn.Module) -> None:
    """Plain attention: at these short sequences it trains a third faster on a CPU than the fused kernel."""
    model.set_attn_processor(AttnProcessor())  # type: ignore[operator]
