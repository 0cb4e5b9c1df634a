"""A CLIP of two narrow towers with random weights, as a folder of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def picture_processor() -> Any:
    """CLIP's image processor without torchvision, whatever the installed transformers calls it."""
    import transformers

    pil = "CLIPImageProcessorPil"
    return getattr(transformers, pil if hasattr(transformers, pil) else "CLIPImageProcessor")


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory, picture_processor: Any) -> Path:
    import torch
    from transformers import CLIPConfig, CLIPModel
    from vidgen_moving_shapes.tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("clip")
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokenizer = build_tokenizer()
    text = {**size, "vocab_size": len(tokenizer), "max_position_embeddings": 77, "eos_token_id": 2}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config={**size, "image_size": 32, "patch_size": 8}, projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    picture_processor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder
