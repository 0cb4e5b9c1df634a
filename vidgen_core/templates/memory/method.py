"""Chunks of a video one after the other, each brought to the mean latents of the first."""

from typing import Any

from torch import Tensor

from vidgen_core import hookimpl
from vidgen_core.run import Group, Run, Window
from vidgen_core.sampling import Step


class MyMethod:
    def __init__(self, chunk: int = 16, strength: float = 1.0) -> None:
        self.chunk, self.strength = chunk, strength
        self.tone: Tensor | None = None

    @hookimpl(claims="plan")
    def plan(self, run: Run) -> list[Group]:
        """A group for each chunk, so that each draws its noise afresh; nothing is remembered yet."""
        self.tone = None
        frames = run.request.num_frames
        spans = [range(start, min(start + self.chunk, frames)) for start in range(0, frames, self.chunk)]
        return [Group((Window(span, span, index=i, group=i),)) for i, span in enumerate(spans)]

    @hookimpl
    def remember(self, latents: Tensor) -> None:
        """Keep the mean (B, C, 1, 1, 1) of the first chunk: a longer video needs no more memory."""
        if self.tone is None:
            self.tone = latents.mean((2, 3, 4), keepdim=True)

    @hookimpl
    def recall(self) -> dict[str, Any]:
        """``my_method``: the tone, once there is one."""
        return {} if self.tone is None else {"my_method": self.tone}

    @hookimpl
    def after_step(self, window: Window, step: Step, latents: Tensor) -> Tensor | None:
        """The finished latents (B, C, F, h, w), moved as a whole."""
        if step.index + 1 < step.total or "my_method" not in window.memory:
            return None
        tone = window.memory["my_method"].to(latents)
        return latents + self.strength * (tone - latents.mean((2, 3, 4), keepdim=True))
