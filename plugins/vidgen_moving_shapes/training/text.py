"""The text encoder: a small CLIP text tower over the words of the world, trained jointly with what reads it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

WIDTH = 64
WORD_DEVIATION, POSITION_DEVIATION = 1.0, 0.3
"""Words start far apart: with the usual 0.02 all captions look alike to the cross-attention for a long time."""


def text_settings(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """The keys of ``CLIPTextConfig``."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "projection_dim": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": tokenizer.model_max_length,
        "hidden_act": "gelu",
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def build_text_encoder(tokenizer: PreTrainedTokenizerFast) -> CLIPTextModel:
    """A fresh text encoder, 0.1 M parameters."""
    encoder = CLIPTextModel(CLIPTextConfig(**text_settings(tokenizer)))
    spread_words(encoder)
    return encoder


def spread_words(model: nn.Module) -> None:
    """Draw the embeddings of words and of text positions anew, far apart."""
    for name, weight in model.named_parameters():
        if name.endswith("token_embedding.weight"):
            torch.nn.init.normal_(weight, std=WORD_DEVIATION)
        elif name.endswith("position_embedding.weight") and "vision" not in name:
            torch.nn.init.normal_(weight, std=POSITION_DEVIATION)
