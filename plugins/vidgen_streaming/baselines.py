"""A baseline beside independent chunks: every chunk begins with the last frame of the one before.

The plain model's frame is replaced by the known one at every step, noised to the step's level (Ho et al., Video
Diffusion Models, arXiv 2204.03458, section 3.1, the replacement method).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vidgen_core import hookimpl
from vidgen_core.run import Group, Run, Window
from vidgen_core.sampling import Step
from vidgen_streaming.chunks import Chunked


class LastFrame(Chunked):
    """Every chunk begins with the latents of the frame before it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(overlap=1, **options)
        self.last: Tensor | None = None  # (B, C, 1, h, w)

    @hookimpl(claims="plan")
    def plan(self, run: Run) -> list[Group]:
        """As always; nothing is known yet."""
        self.last = None
        return super().plan(run)

    @hookimpl
    def remember(self, window: Window, latents: Tensor) -> None:
        """Keep the latents of the last frame."""
        at = window.kept.stop
        self.last = latents[:, :, at - 1 : at].clone()

    @hookimpl
    def after_step(self, run: Run, window: Window, step: Step, latents: Tensor) -> Tensor | None:
        """The known frame in the place of the first, at the noise level of the next step."""
        if self.last is None:
            return None
        known = self.last.to(latents)
        if step.index + 1 < step.total:
            noise = run.noise(window)[:, :, :1].to(latents)
            known = step.scheduler.add_noise(known, noise, step.scheduler.timesteps[step.index + 1][None])
        return torch.cat([known, latents[:, :, 1:]], dim=2)
