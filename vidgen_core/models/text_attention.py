"""The text that a network's cross-attentions read: each distinct text projected once, gathered for every window.

B videos, F frames, U distinct texts, L text tokens, T image tokens, D features, h heads, d head width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vidgen_core.attention import TextCrossAttention, attentions
from vidgen_core.conditioning import PerFrameText
from vidgen_core.kept import Kept

Projected = list[tuple[Tensor, Tensor]]
"""Keys and values (G, h, L, d) of every cross-attention, in the order of the network's modules."""


class TextAttention:
    """The cross-attentions of one network whose ``TextCrossAttention`` processors are in place; none without one."""

    def __init__(self, network: nn.Module | None = None) -> None:
        every = () if network is None else attentions(network)
        named = [(name, m) for name, m in every if isinstance(m.processor, TextCrossAttention)]
        self.names = [name for name, _ in named]
        self.layers: list[tuple[Any, TextCrossAttention]] = [(module, module.processor) for _, module in named]
        self._projected: Kept[Projected] = Kept()

    def gathered(self, texts: Sequence[PerFrameText], device: torch.device, dtype: torch.dtype) -> Projected:
        """Keys and values for the frames of these texts, stacked in their order.

        One row serves the longest run of frames that all read the same text: no copy per frame.
        """
        stacked = stack_texts(texts)
        rows = stacked.index.flatten()[:: _fold(stacked.index)].to(device)
        return [(key[rows], value[rows]) for key, value in self._project(texts, stacked, device, dtype)]

    def use(self, projected: Projected) -> None:
        """Read these keys and values in the coming calls of the network."""
        for (_, processor), (key, value) in zip(self.layers, projected, strict=True):
            processor.set_text(key, value)

    def forget(self) -> None:
        """Project anew, because the layers that project have other values now."""
        self._projected.forget()

    def _project(
        self, texts: Sequence[PerFrameText], stacked: PerFrameText, device: torch.device, dtype: torch.dtype
    ) -> Projected:
        def projected() -> Projected:
            embeds = stacked.embeds.to(device, dtype)
            tokens = {source: rows.to(device, dtype) for source, rows in stacked.tokens.items()}
            return [processor.project(module, embeds, tokens) for module, processor in self.layers]

        if torch.is_grad_enabled():  # weights may change
            self.forget()
            return projected()
        # Windows share the tables of texts as objects: what is stacked of them is projected once for a run.
        return self._projected.of(
            [table for text in texts for table in (text.embeds, *text.tokens.values())], projected
        )


def stack_texts(texts: Sequence[PerFrameText]) -> PerFrameText:
    """Several texts as one, their videos one after the other; tables that are the same object stay that object.

    All must have image tokens of the same sources.
    """
    first = texts[0]
    index = torch.cat([text.index for text in texts])
    if all(text.embeds is first.embeds and _same_tokens(text, first) for text in texts):
        return PerFrameText(first.embeds, index, first.tokens)
    offsets = [0]
    for text in texts:
        offsets.append(offsets[-1] + len(text.embeds))
    index = torch.cat([text.index + offset for text, offset in zip(texts, offsets, strict=False)])
    tokens = {source: torch.cat([text.tokens[source] for text in texts]) for source in first.tokens}
    return PerFrameText(torch.cat([text.embeds for text in texts]), index, tokens)


def _same_tokens(one: PerFrameText, other: PerFrameText) -> bool:
    return one.tokens.keys() == other.tokens.keys() and all(one.tokens[s] is other.tokens[s] for s in one.tokens)


def _fold(index: Tensor) -> int:
    """How many neighbouring frames can share one row everywhere: the greatest common divisor of all runs."""
    frames = index.shape[1]
    borders = (torch.nonzero((index[:, 1:] != index[:, :-1]).any(0)).flatten() + 1).tolist()
    return math.gcd(frames, *borders)
