"""Is the motion word read? How much worse the model predicts when the caption names the wrong motion."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from vidgen_moving_shapes.captions import clip_caption
from vidgen_moving_shapes.combinations import TRAINING_COMBINATIONS
from vidgen_moving_shapes.motions import REVERSED
from vidgen_moving_shapes.training.video_model import VideoModel
from vidgen_moving_shapes.world import draw_scene

TIMESTEPS = (999, 960, 900, 800)
"""Where direction is decided; at lower noise the frames themselves show it."""


class MotionProbe:
    """Fixed clips of training combinations, fixed noise, right and reversed motion words."""

    def __init__(self, model: VideoModel, clips: int = 12, seed: int = 7) -> None:
        rng = np.random.default_rng(seed)
        directed = [combination for combination in TRAINING_COMBINATIONS if combination[1] in REVERSED]
        chosen = [directed[i] for i in rng.choice(len(directed), clips, replace=False)]
        self._right = [(clip_caption(*combination),) for combination in chosen]
        self._wrong = [(clip_caption(entity, REVERSED[m], ground),) for entity, m, ground in chosen]
        self._latents = model.encode([draw_scene(rng, *combination).frames() for combination in chosen])
        self._noise = torch.randn(self._latents.shape, generator=torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def gaps(self, model: VideoModel) -> dict[int, float]:
        """By timestep, how much the wrong motion raises the error, as a share of the error with the right one."""
        return {t: self._error(model, t, self._wrong) / self._error(model, t, self._right) - 1 for t in TIMESTEPS}

    def _error(self, model: VideoModel, timestep: int, captions: Sequence[Sequence[str]]) -> float:
        timesteps = torch.full((len(self._latents),), timestep)
        noisy = model.scheduler.add_noise(self._latents, self._noise, timesteps)
        velocity = model.scheduler.get_velocity(self._latents, self._noise, timesteps)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = model.predict(noisy, timesteps, captions)
        return functional.mse_loss(predicted, velocity).item()
