"""Surgery that makes a video model of an image model: temporal layers put into the stock network, and taken out again.

The network sees videos as folded frames, B videos of F frames as B*F rows, video by video; ``ImageBackbone`` folds
them and tells F of the call in progress. What an image model brings keeps its names, so that its checkpoints load as
they are; what is inserted is an ordinary submodule with a name of its own. C channels, H W cells, N tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vidgen_core.errors import VidgenError
from vidgen_core.models.backbone import Backbone
from vidgen_core.noise import seed_of

Frames = Callable[[], int]
"""F of the call in progress."""


class TemporalLayer(Protocol):
    """An ``nn.Module`` that mixes the frames of what another module has made of each."""

    def __call__(self, x: Tensor, frames: int, time: Tensor | None = None) -> Tensor:
        """
        Args:
            x: (B*F, C, H, W) after a convolution, a residual block or a transformer; (B*F, N, C) after a block of it.
            frames: F.
            time: (B*F, D) the time embedding, after a residual block.

        Returns:
            As x.
        """
        ...


def drawn(make: Callable[[], dict[str, nn.Module]], like: Backbone, *key: int | str) -> dict[str, nn.Module]:
    """Fresh layers as ``make`` initialises them, drawn from the key alone, on a model's device and in its dtype."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed_of(*key))
        made = make()
    return {name: layer.to(like.device, like.dtype) for name, layer in made.items()}


@contextmanager
def inserted(layers: Mapping[str, nn.Module], network: nn.Module, name: str, frames: Frames) -> Iterator[None]:
    """Temporal layers behind modules of the network, as their submodules ``name``, inside the context.

    Args:
        layers: Dotted name of a module -> the layer (``TemporalLayer``) that its output then goes through.

    Raises:
        VidgenError: a module has a submodule of that name already.
    """
    done: list[tuple[nn.Module, Any]] = []
    try:
        for path, layer in layers.items():
            parent = network.get_submodule(path)
            if hasattr(parent, name):
                raise VidgenError(f"'{path}' has a part named '{name}' already.")
            parent.add_module(name, layer)
            done.append((parent, parent.register_forward_hook(_through(layer, frames))))
        yield
    finally:
        for parent, hook in reversed(done):
            hook.remove()
            delattr(parent, name)


def _through(layer: nn.Module, frames: Frames) -> Callable[..., Any]:
    def hook(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
        # Resnets are given (x, time embedding); transformers answer with a tuple.
        time = arguments[1] if len(arguments) > 1 and isinstance(arguments[1], Tensor) else None
        if isinstance(output, tuple):
            return (layer(output[0], frames(), time), *output[1:])
        return layer(output, frames(), time)

    return hook


@contextmanager
def norms_over_frames(norms: Iterable[nn.GroupNorm], frames: Frames) -> Iterator[None]:
    """Group norms take their mean and variance over the frames of a video too, inside the context."""
    with ExitStack() as stack:
        for norm in norms:
            if "forward" in norm.__dict__:  # another has changed it
                stack.callback(norm.__dict__.__setitem__, "forward", norm.forward)
            else:
                stack.callback(norm.__dict__.pop, "forward")
            norm.__dict__["forward"] = _over_frames(norm, frames)
        yield


def _over_frames(norm: nn.GroupNorm, frames: Frames) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        if frames() == 1:
            return nn.GroupNorm.forward(norm, x)
        with torch.autocast(x.device.type, enabled=False):
            groups = x.float().reshape(-1, frames(), norm.num_groups, x[0].numel() // norm.num_groups)
            # The statistics of each frame, put together: no frame is moved.
            variance, mean = torch.var_mean(groups, dim=-1, correction=0)
            spread, mean = torch.var_mean(mean, dim=1, correction=0, keepdim=True)  # (B, 1, groups)
            scale = (variance.mean(dim=1, keepdim=True) + spread + norm.eps).rsqrt()
            width = norm.num_channels // norm.num_groups
            mean, scale = (y.repeat_interleave(width, dim=2)[..., None, None] for y in (mean, scale))
            scale = scale * norm.weight.float()[:, None, None]
            shift = norm.bias.float()[:, None, None] - mean * scale
            out = torch.addcmul(shift, x.float().unflatten(0, (-1, frames())), scale)  # (B, F, C, H, W)
        # As torch's own group norm answers: in single precision under autocast, in the input's dtype without it.
        return out.flatten(0, 1) if torch.is_autocast_enabled(x.device.type) else out.flatten(0, 1).to(x.dtype)

    return forward
