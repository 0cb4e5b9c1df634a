"""Latents after each of the first steps, where a video's layout is decided, drawn to their mean over time."""

from torch import Tensor

from vidgen_core import hookimpl
from vidgen_core.sampling import Step


class MyMethod:
    def __init__(self, strength: float = 0.1) -> None:
        self.strength = strength

    @hookimpl
    def after_step(self, step: Step, latents: Tensor) -> Tensor | None:
        """The latents (B, C, F, h, w) corrected; None leaves them as they are."""
        if step.index >= step.total // 2:
            return None
        return latents.lerp(latents.mean(2, keepdim=True), self.strength)
