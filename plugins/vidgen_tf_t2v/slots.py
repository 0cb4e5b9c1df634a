"""The two slots of cross-attention, text and image, and what stands in one that says nothing.

The tokens of both are read by the same keys and values, one after the other. What fills a slot matters: tokens of
zeros still take their share of the attention, tokens that are left out take none, and what the image layers make of a
zero embedding is learnt. U distinct texts, L text tokens, K image tokens, D features.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vidgen_core.conditioning import Branches, PerFrameText
from vidgen_core.errors import BadRequest, nearest
from vidgen_tf_t2v.networks import ImageTokens

TEXTS = ("prompt", "negative", "zero_tokens")
"""What the guided text slot holds: the frame's own text, that of the unguided branch, or zeros."""

NO_TEXTS = ("negative", "zero_tokens")
"""The same where no prompt was given, or a sample of a training has no text."""

IMAGES = ("omit", "zero_embedding", "zero_tokens")
"""What an image slot without an image holds: no tokens, those of an embedding of zeros, or tokens of zeros."""

UNGUIDED = ("same", *IMAGES)
"""The same of the unguided branch where there is an image; ``same`` guides by the text alone."""


def check_slots(text: str, no_text: str, no_image: str, unguided_image: str) -> None:
    """Raise BadRequest for a filling that its slot does not have."""
    slots = (
        ("text", text, TEXTS),
        ("no_text", no_text, NO_TEXTS),
        ("no_image", no_image, IMAGES),
        ("unguided_image", unguided_image, UNGUIDED),
    )
    for slot, fill, fills in slots:
        if fill not in fills:
            raise BadRequest(f"tf_t2v.{slot}={fill} is no filling.{nearest(fill, fills)}")


def guided_text(text: Branches, fill: str) -> PerFrameText:
    """What the guided branch reads in the text slot."""
    if fill == "negative":
        unguided: PerFrameText = text.uncond
        return unguided
    guided: PerFrameText = text.cond
    if fill == "prompt":
        return guided
    return without_text(guided, torch.zeros(len(guided.index), dtype=torch.bool))


def with_negative(text: Branches, guided: PerFrameText, chosen: Tensor) -> PerFrameText:
    """The guided text, but for the videos that are chosen (B,), which read that of the unguided branch."""
    if not chosen.any():
        return guided
    unguided: PerFrameText = text.uncond
    if unguided.embeds is guided.embeds:
        return PerFrameText(guided.embeds, torch.where(chosen[:, None], unguided.index, guided.index), guided.tokens)
    embeds = torch.cat([guided.embeds, unguided.embeds])
    index = torch.where(chosen[:, None], unguided.index + len(guided.embeds), guided.index)
    tokens = {s: torch.cat([t, unguided.tokens[s]]) for s, t in guided.tokens.items()}
    return PerFrameText(embeds, index, tokens)


def without_text(text: PerFrameText, kept: Tensor) -> PerFrameText:
    """The same with tokens of zeros as the text of those videos that do not keep theirs, ``kept`` (B,)."""
    if kept.all():
        return text
    embeds = torch.cat([text.embeds, torch.zeros_like(text.embeds[:1])])
    index = torch.where(kept[:, None], text.index, len(text.embeds))
    # Image tokens of other methods go with a text; they are those of the first for want of a text.
    return PerFrameText(embeds, index, {s: torch.cat([t, t[:1]]) for s, t in text.tokens.items()})


def empty_image(image: ImageTokens, fill: str) -> Tensor | None:
    """(1, K, D): what an image slot without an image holds; None where it is left out."""
    if fill == "omit":
        return None
    weight = next(image.parameters())
    if fill == "zero_tokens":
        return weight.new_zeros(1, image.tokens, image.text_width)
    made: Tensor = image(weight.new_zeros(1, image.width))
    return made


Beside = Callable[[PerFrameText, str, Tensor, Tensor], PerFrameText]


def with_image(
    text: PerFrameText, tokens: Tensor | None, source: str, beside: Beside = PerFrameText.beside
) -> PerFrameText:
    """The text with the image slot beside it.

    Args:
        tokens: (B, K, D), those of every video, or (1, K, D) for all; None leaves the slot out.
        source: Names the tokens.
        beside: ``TokenTables.beside`` for tokens that stay as they are.
    """
    if tokens is None:
        return text
    videos, frames = text.index.shape
    which = torch.arange(videos) % len(tokens)
    return beside(text, source, tokens, which[:, None].expand(-1, frames))


def with_frames(text: PerFrameText, tokens: Tensor, source: str) -> PerFrameText:
    """The text with a token (B, F, D) of its own for every frame beside it."""
    index = torch.arange(text.index.numel()).view_as(text.index)
    return text.beside(source, tokens.flatten(0, 1)[:, None], index)
