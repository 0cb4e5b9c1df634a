"""Activations recomputed in the backward pass, for UNets whose stock class refuses to, such as UNet3D.

Every resnet, temporal convolution, spatial and temporal transformer is recomputed on its own. The published forks did
the same, and the numbers do not change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def gradient_checkpointing(*networks: nn.Module) -> Iterator[None]:
    """Recompute the networks' blocks in the backward pass, inside the context."""
    from diffusers.models.resnet import ResnetBlock2D, TemporalConvLayer
    from diffusers.models.transformers.transformer_2d import Transformer2DModel
    from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel

    kinds = ResnetBlock2D | TemporalConvLayer | Transformer2DModel | TransformerTemporalModel
    blocks = [module for network in networks for module in network.modules() if isinstance(module, kinds)]
    before = [block.__dict__.get("forward") for block in blocks]
    for block in blocks:
        block.forward = _recomputed(block.forward)
    try:
        yield
    finally:
        for block, forward in zip(blocks, before, strict=True):
            if forward is None:
                del block.forward
            else:
                block.forward = forward


def _recomputed(forward: Any) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        # Not reentrant: blocks whose inputs need no gradient still train.
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run
