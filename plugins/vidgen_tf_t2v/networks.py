"""What TF-T2V learns beside the U-Net, made and loaded: image tokens, and how spatial conditions enter.

N videos, E features of an image embedding, K image tokens, D features of a token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vidgen_core.models.loading import check_layout
from vidgen_tf_t2v.map_encoder import CHANNELS, HEADS, LAYERS, MapEncoder

TOKENS, STEM = 4, 8
"""Image tokens, and channels of the spatial conditions, as published."""

Shape = Callable[[str], Sequence[int] | None]
"""Name of a tensor -> its shape, or None where there is none."""


class ImageTokens(nn.Sequential):
    """Image embeddings (N, E) as tokens (N, K, D) beside those of the text.

    Args:
        width: E.
        tokens: K.
        text_width: D.
    """

    def __init__(self, width: int, tokens: int, text_width: int) -> None:
        super().__init__(nn.Linear(width, text_width), nn.SiLU(), nn.Linear(text_width, tokens * text_width))
        self.width, self.tokens, self.text_width = width, tokens, text_width

    def forward(self, embedding: Tensor) -> Tensor:
        tokens: Tensor = super().forward(embedding)
        return tokens.unflatten(-1, (self.tokens, self.text_width))


def two_layers(width: int, hidden: int, out: int) -> nn.Sequential:
    """(..., out) from (..., width)."""
    return nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, out))


class Networks(nn.Module):
    """The learned modules of one model. Any may be missing.

    Attributes:
        image: From image embeddings to tokens, or None.
        stem: The spatial conditions' share of the first convolution, or None.
        encoders: With ``stem``: condition -> its encoder.
        histogram: From a frame's histogram of colours to a token of its own, or None.
        fps: From embedded frames per second to a part of the time embedding, or None.
    """

    def __init__(
        self,
        image: ImageTokens | None = None,
        stem: nn.Conv2d | None = None,
        encoders: Mapping[str, MapEncoder] | None = None,
        histogram: nn.Module | None = None,
        fps: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.image = image
        self.stem = stem
        self.encoders = nn.ModuleDict(encoders)
        self.histogram = histogram
        self.fps = fps


def fresh(
    unet: Any,
    image_width: int,
    tokens: int = TOKENS,
    conditions: Sequence[str] = (),
    gain: float = 0.0,
    silent: bool = False,
) -> Networks:
    """The modules as a training on a ``UNet3DConditionModel`` begins: what spatial conditions say counts nothing yet.

    Args:
        image_width: E.
        tokens: K.
        conditions: Names of ``CHANNELS`` that get an encoder.
        gain: Of spatial conditions that count something at random, for models that never trained.
        silent: Image tokens begin as zeros, whatever the image; else they are drawn as torch draws layers.
    """
    image = ImageTokens(image_width, tokens, unet.config.cross_attention_dim)
    for weight in image[-1].parameters() if silent else ():
        nn.init.zeros_(weight)
    networks = Networks(image)
    add_encoders(networks, unet, conditions, gain)
    return networks


def add_encoders(networks: Networks, unet: Any, conditions: Sequence[str], gain: float = 0.0) -> None:
    """Encoders, drawn from torch's generator, for the conditions that have none yet; arguments as of ``fresh``.

    Without a gain their layers over time begin as the identity: what images alone teach holds in every frame. Channels
    that no condition has entered by yet were never trained, whatever a checkpoint has there, and begin anew.
    """
    missing = [name for name in conditions if name not in networks.encoders]
    if not missing:
        return
    if networks.stem is None or not networks.encoders:
        channels = STEM if networks.stem is None else networks.stem.in_channels
        networks.stem = _stem(unet.config.block_out_channels[0], channels)
        nn.init.normal_(networks.stem.weight, std=gain)
    for name in missing:
        encoder = networks.encoders[name] = MapEncoder(CHANNELS[name], networks.stem.in_channels)
        for part, weight in encoder.over_time.named_parameters() if gain == 0 else ():
            if "to_out" in part or "linear_out" in part:
                nn.init.zeros_(weight)


def _stem(width: int, channels: int) -> nn.Conv2d:
    # The bias of the sum of two convolutions is the U-Net's.
    return nn.Conv2d(channels, width, 3, padding=1, bias=False)


def empty(shape: Shape) -> Networks:
    """The modules whose tensors are there, without weights, on the meta device; shapes tell the geometry."""

    def halves(part: str) -> nn.Module | None:
        first, last = shape(f"{part}.0.weight"), shape(f"{part}.2.weight")
        return None if first is None or last is None else two_layers(first[1], first[0], last[0])

    with torch.device("meta"):
        first, last, stem = shape("image.0.weight"), shape("image.2.weight"), shape("stem.weight")
        image = None if first is None or last is None else ImageTokens(first[1], last[0] // first[0], first[0])
        encoders = {name: _encoder(f"encoders.{name}.", shape) for name in CHANNELS}
        return Networks(
            image,
            None if stem is None else _stem(stem[0], stem[1]),
            {name: encoder for name, encoder in encoders.items() if encoder is not None},
            halves("histogram"),
            halves("fps"),
        )


def _encoder(prefix: str, shape: Shape) -> MapEncoder | None:
    first, last = shape(f"{prefix}conv_in.weight"), shape(f"{prefix}conv_out.weight")
    if first is None or last is None:
        return None
    layers = 0
    while shape(f"{prefix}over_time.{layers}.norm.weight") is not None:
        layers += 1
    attention = shape(f"{prefix}over_time.0.to_qkv.weight")
    heads = HEADS if attention is None else attention[0] // (3 * last[0])
    return MapEncoder(first[1], last[0], layers or LAYERS, heads)


def loaded(tensors: Mapping[str, Tensor], source: str) -> Networks:
    """The modules whose tensors are there, with those tensors, not copied.

    Raises BadRequest where names or shapes are missing, unknown or do not fit; all are named.
    """
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    networks = empty(shapes.get)
    check_layout(networks, shapes, source)
    networks.load_state_dict(dict(tensors), assign=True)
    return networks.eval()
