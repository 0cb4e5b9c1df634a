"""The surgery: a stock image U-Net with sparse spatio-temporal attention, temporal attention, and norms over frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from vidgen_core.attention import install
from vidgen_core.errors import BadRequest
from vidgen_core.models.inflation import drawn, inserted, norms_over_frames
from vidgen_core.models.unet2d import ImageBackbone
from vidgen_tune_a_video.published import TEMPORAL
from vidgen_tune_a_video.st_attention import SparseCausalAttention
from vidgen_tune_a_video.temporal_attention import TemporalAttention


@contextmanager
def st_attention(backbone: ImageBackbone, seed: int, owner: str = "tune_a_video") -> Iterator[None]:
    """The image model sees whole clips inside the context (section 3 of the paper).

    The norms of residual blocks take their statistics over all frames, those of transformers over each: both as
    published, and neither may be tidied.

    Args:
        seed: Of the fresh temporal layers.
        owner: The method whose attention it is.
    """
    network = backbone.denoiser

    def frames() -> int:
        return backbone.frames

    with ExitStack() as stack:
        stack.enter_context(
            install(
                network,
                lambda name, module: name.endswith("attn1"),
                lambda name, module, current: SparseCausalAttention(backbone.attention, backbone.attend, frames),
                owner=owner,
                replaces=True,
            )
        )
        layers = drawn(lambda: temporal_attentions(backbone), backbone, seed, "temporal attention")
        stack.enter_context(inserted(layers, network, TEMPORAL, frames))
        stack.enter_context(norms_over_frames(resnet_norms(network), frames))
        yield


def temporal_attentions(backbone: ImageBackbone) -> dict[str, nn.Module]:
    """A fresh temporal attention for each transformer block, by the block's name."""
    layers: dict[str, nn.Module] = {}
    for name, block in backbone.denoiser.named_modules():
        if isinstance(block, BasicTransformerBlock):
            if block.only_cross_attention or block.attn1.is_cross_attention:
                raise BadRequest(
                    f"The block '{name}' of this model has no self-attention (only_cross_attention), so frames "
                    "cannot attend to each other in it. Choose a Stable Diffusion 1.x or 2.x model."
                )
            layers[name] = TemporalAttention(block, backbone.attention, backbone.attend)
    return layers


def resnet_norms(network: nn.Module) -> Iterator[Any]:
    """The group norms of residual blocks, and the last one of the network."""
    for module in network.modules():
        if isinstance(module, ResnetBlock2D):
            yield from (module.get_submodule("norm1"), module.get_submodule("norm2"))
    yield network.conv_norm_out
