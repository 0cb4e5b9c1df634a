"""A small module that is learnt beside a frozen model, saved by itself, and brought back by ``tuned=``."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vidgen_core import hookimpl
from vidgen_core.models.backbone import Backbone
from vidgen_core.models.tuned import read_tensors, weights_of
from vidgen_core.run import Run


class Factors(nn.Module):
    """A factor for each channel; 1 at first, so that training begins with the model as it was."""

    def __init__(self, channels: int, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.less_one = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to the same."""
        return x * (1 + self.strength * self.less_one[:, None, None])


class MyMethod:
    def __init__(self, strength: float = 1.0) -> None:
        self.strength = strength

    @hookimpl
    @contextmanager
    def attach(self, run: Run, backbone: Backbone) -> Iterator[None]:
        """Put the module behind the last layer, as it was learnt, and take it away again."""
        factors = Factors(backbone.denoiser.config.out_channels, self.strength)
        file = weights_of(run.config, "my_method")
        if file is not None:
            factors.load_state_dict(read_tensors(file)[0])
        elif "trainer" not in run.config and run.config["model"].get("untrained"):
            nn.init.constant_(factors.less_one, 0.1)  # a tiny model, to try things out on: as if something were learnt
        backbone.methods["my_method"] = factors.to(backbone.device, backbone.dtype)
        hook = backbone.denoiser.conv_out.register_forward_hook(lambda module, given, out: factors(out))
        try:
            yield
        finally:
            hook.remove()
            del backbone.methods["my_method"]

    @hookimpl
    def trainable(self, backbone: Backbone) -> dict[str, Tensor]:
        """What is learnt, by name; everything else is frozen."""
        return {f"my_method.{name}": p for name, p in backbone.methods["my_method"].named_parameters()}
