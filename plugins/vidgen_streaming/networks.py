"""What StreamingT2V learns beside the U-Net: CAM's encoder and mergers, APM's resampler and mixes; made and loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vidgen_core.models.loading import check_layout
from vidgen_streaming.apm import Mix, Resampler
from vidgen_streaming.cam import WIDTHS, FeatureEncoder, Mergers, empty_encoder, fresh_encoder

HIDDEN, TOKENS = 1280, 16
"""Width of the resampler's hidden layer, and how many tokens it makes, as published."""


class Networks(nn.Module):
    """The learned modules of one model. Either half may be missing: CAM is trained before APM.

    Attributes:
        cam: The copy of the encoder, or None.
        mergers: With ``cam``.
        resampler: From image embeddings to tokens, or None.
        mixes: With ``resampler``: one for each text cross-attention, in the U-Net's order.
    """

    def __init__(
        self,
        cam: FeatureEncoder | None = None,
        mergers: Mergers | None = None,
        resampler: Resampler | None = None,
        mixes: Sequence[Mix] = (),
    ) -> None:
        super().__init__()
        self.cam = cam
        self.mergers = mergers
        self.resampler = resampler
        self.mixes = nn.ModuleList(mixes)

    def add_cam(self, unet: Any, widths: Sequence[int] | None = None, gain: float = 0.0) -> None:
        """CAM as its training begins: the U-Net's own encoder, and mergers that add nothing.

        Args:
            widths: Of the frame embedding.
            gain: Of mergers that add something at random, for models that never trained.
        """
        self.cam = fresh_encoder(unet, widths or WIDTHS)
        self.mergers = Mergers(unet)
        self.mergers.reset(gain)

    def add_apm(
        self, layers: int, text_tokens: int, text_width: int, image_width: int, hidden: int = HIDDEN, gain: float = 0.0
    ) -> None:
        """APM as its training begins: mixes that count nothing, or as much as ``gain``."""
        self.resampler = Resampler(image_width, hidden, TOKENS, text_width)
        self.mixes = nn.ModuleList(Mix(text_tokens, TOKENS, text_width) for _ in range(layers))
        for mix in self.mixes:
            nn.init.constant_(mix.alpha, gain)  # type: ignore[arg-type]

    def own(self) -> dict[str, Tensor]:
        """Every parameter by name."""
        return dict(self.named_parameters())


def loaded(tensors: Mapping[str, Tensor], unet: Any, source: str) -> Networks:
    """The modules whose tensors are there, with those tensors, not copied; shapes tell the geometry.

    Raises BadRequest where names or shapes are missing, unknown or do not fit the U-Net; all are named.
    """
    networks = Networks()
    parts = {name.partition(".")[0] for name in tensors}
    with torch.device("meta"):
        if "cam" in parts:
            networks.cam = empty_encoder(unet, _widths(tensors))
        if "mergers" in parts:
            networks.mergers = Mergers(unet)
        if "mixes" in parts:
            networks.mixes = _mixes(tensors)
        if "resampler" in parts:
            networks.resampler = _resampler(tensors, unet.config.cross_attention_dim)
    check_layout(networks, {name: list(tensor.shape) for name, tensor in tensors.items()}, source)
    networks.load_state_dict(dict(tensors), assign=True)
    return networks.eval()


def _widths(tensors: Mapping[str, Tensor]) -> list[int]:
    prefix = "cam.controlnet_cond_embedding."
    first = tensors.get(f"{prefix}conv_in.weight")
    widths = list(WIDTHS[:1]) if first is None else [len(first)]
    while (halving := tensors.get(f"{prefix}blocks.{2 * len(widths) - 1}.weight")) is not None:
        widths.append(len(halving))
    return widths


def _mixes(tensors: Mapping[str, Tensor]) -> nn.ModuleList:
    layers = len({name.split(".")[1] for name in tensors if name.startswith("mixes.")})
    conv, norm = tensors.get("mixes.0.conv.weight"), tensors.get("mixes.0.conv_ln.weight")
    if conv is None or norm is None:
        return nn.ModuleList()  # the check that follows names what is there without them
    text_tokens, all_tokens = conv.shape[:2]
    return nn.ModuleList(Mix(text_tokens, all_tokens - text_tokens, len(norm)) for _ in range(layers))


def _resampler(tensors: Mapping[str, Tensor], text_width: int) -> Resampler | None:
    first, last = tensors.get("resampler.0.weight"), tensors.get("resampler.2.weight")
    if first is None or last is None:
        return None
    return Resampler(first.shape[1], first.shape[0], last.shape[0] // text_width, text_width)
