"""Temporal attention, wrapped: its output is drawn to its mean over the frames."""

from contextlib import AbstractContextManager
from typing import Any

from diffusers.models.attention_processor import Attention
from torch import Tensor

from vidgen_core import hookimpl
from vidgen_core.attention import Processor, install
from vidgen_core.models.backbone import Backbone


class Calmed:
    """A processor around the one in place."""

    def __init__(self, inner: Processor, strength: float) -> None:
        self.inner, self.strength = inner, strength
        self.backend = inner.backend

    def __call__(self, attn: Attention, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        out = self.inner(attn, hidden_states, *args, **kwargs)  # (B*h*w, F, C)
        return out.lerp(out.mean(1, keepdim=True), self.strength)


class MyMethod:
    def __init__(self, strength: float = 0.5) -> None:
        self.strength = strength

    @hookimpl
    def attach(self, backbone: Backbone) -> AbstractContextManager[Any]:
        """Wrap every temporal attention; the very processors are back when the context ends."""
        return install(
            backbone.denoiser,
            lambda name, module: "temp_attentions" in name,
            lambda name, module, current: Calmed(current, self.strength),
            owner="my_method",
        )
