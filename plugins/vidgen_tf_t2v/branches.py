"""How the one network serves images and videos, and reads more than latents and text: hooks on the stock U-Net.

Content branch: images, through the spatial layers only. Motion branch: videos, through all (arXiv 2312.15770,
section 3.2). N videos times guidance branches, F frames, h w latent cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

LAST_MIDDLE = "mid_block.temp_convs.1"
"""The layer over time that the release also runs for images, unlike all others."""


@dataclass(frozen=True)
class Prepared:
    """What one call of the network is told beside latents, time and text.

    Attributes:
        content: Only the spatial layers are run.
        stem: (N * F, channels, h, w), what spatial conditions add to the first convolution, or None.
        time: (1, channels), what the frames per second add to the time embedding, or None.
    """

    content: bool = False
    stem: Tensor | None = None
    time: Tensor | None = None


@contextmanager
def installed(unet: Any, told: Callable[[], Prepared], keep_last: bool = False) -> Iterator[None]:
    """A ``UNet3DConditionModel`` reads what it is told at every call, inside the context.

    Args:
        keep_last: Runs the one layer over time that the release forgets to switch off for images.
    """

    def added(part: str) -> Callable[..., Tensor]:
        def add(module: Any, arguments: Any, out: Tensor) -> Tensor:
            more = getattr(told(), part)
            return out if more is None else out + more

        return add

    with ExitStack() as stack:
        stack.callback(unet.conv_in.register_forward_hook(added("stem")).remove)
        stack.callback(unet.time_embedding.register_forward_hook(added("time")).remove)
        for name, layer in over_time(unet):
            if not (keep_last and name == LAST_MIDDLE):
                stack.enter_context(_skipped(layer, lambda: told().content))
        yield


def over_time(unet: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every layer that mixes frames, with its name."""
    from diffusers.models.resnet import TemporalConvLayer
    from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel

    kinds = (TemporalConvLayer, TransformerTemporalModel)
    return ((name, module) for name, module in unet.named_modules() if isinstance(module, kinds))


@contextmanager
def _skipped(layer: nn.Module, when: Callable[[], bool]) -> Iterator[None]:
    """The layer hands on what it is given, at no cost, in calls where that is wanted."""
    whole, before = layer.forward, layer.__dict__.get("forward")

    def forward(hidden_states: Tensor, *arguments: Any, **named: Any) -> Any:
        if not when():
            return whole(hidden_states, *arguments, **named)
        # Transformers are asked for a tuple.
        return (hidden_states,) if "return_dict" in named else hidden_states

    layer.__dict__["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del layer.__dict__["forward"]
        else:
            layer.__dict__["forward"] = before
