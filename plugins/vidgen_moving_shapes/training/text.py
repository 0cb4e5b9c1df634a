"""The text encoder: a small CLIP text tower over the words of the world, trained jointly with the denoiser."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

WIDTH = 64
WORD_DEVIATION, POSITION_DEVIATION = 1.0, 0.3
"""Words start far apart: with the usual 0.02 all captions look alike to the cross-attention for a long time."""


def build_text_encoder(tokenizer: PreTrainedTokenizerFast) -> CLIPTextModel:
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            hidden_act="gelu",
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    for name, weight in encoder.named_parameters():
        if name.endswith("token_embedding.weight"):
            torch.nn.init.normal_(weight, std=WORD_DEVIATION)
        elif name.endswith("position_embedding.weight"):
            torch.nn.init.normal_(weight, std=POSITION_DEVIATION)
    return encoder


def encode_captions(tokenizer: PreTrainedTokenizerFast, encoder: CLIPTextModel, captions: Sequence[str]) -> Tensor:
    """Last hidden states (N, model_max_length, WIDTH), padded to full length and without a mask, as in sampling."""
    tokens = tokenizer(
        list(captions),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    return encoder(tokens.input_ids).last_hidden_state
