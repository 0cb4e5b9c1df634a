"""Whole models of the real classes with small random weights, made on the spot: text-to-video, and images."""

from __future__ import annotations

import torch

from vidgen_core.models.backbone import Backbone
from vidgen_core.models.unet2d import ImageBackbone

SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def build(*, dtype: torch.dtype = torch.float32, seed: int = 0, trained_frames: int = 16) -> Backbone:
    """UNet3D (1.1 M parameters), AutoencoderKL (factor 8) and CLIP text encoder; equal seeds give equal weights."""
    from diffusers import AutoencoderKL, UNet3DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    generator_state = torch.random.get_rng_state()
    try:
        torch.manual_seed(seed)
        unet = UNet3DConditionModel(
            sample_size=8,
            block_out_channels=(32, 64),
            down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
            layers_per_block=1,
            cross_attention_dim=32,
            attention_head_dim=8,
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8, 8, 16, 16),
            latent_channels=4,
            norm_num_groups=4,
        )
        text_config = CLIPTextConfig(
            vocab_size=260,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=77,
            bos_token_id=257,
            eos_token_id=258,
            pad_token_id=258,
        )
        text_encoder = CLIPTextModel(text_config)
    finally:
        torch.random.set_rng_state(generator_state)
    return Backbone(
        _cast(unet, dtype),
        _cast(vae, dtype),
        _cast(text_encoder, dtype),
        byte_tokenizer(),
        scheduler_config=SCHEDULER,
        trained_frames=trained_frames,
    )


def build_image(
    *, dtype: torch.dtype = torch.float32, seed: int = 0, in_channels: int = 4, trained_frames: int = 0
) -> ImageBackbone:
    """UNet2D (0.9 M parameters) with the other parts of ``build``; 5 ``in_channels`` are latents and depth."""
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=in_channels,
            out_channels=4,
            block_out_channels=(32, 64),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=32,
            attention_head_dim=4,
        )
    others = build(dtype=dtype, seed=seed)
    return ImageBackbone(
        _cast(unet, dtype),
        others.vae,
        others.text_encoder,
        others.tokenizer,
        scheduler_config=SCHEDULER,
        trained_frames=trained_frames,
    )


def _cast(model: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    # nn.Module's own `to`: diffusers' overriding one warns even where nothing is cast.
    return torch.nn.Module.to(model, dtype).eval()


def byte_tokenizer(max_length: int = 77):  # type: ignore[no-untyped-def]
    """A tokenizer over UTF-8 bytes: knows every text, needs no file. Returns a PreTrainedTokenizerFast."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocabulary |= {"<unk>": 256, "<start>": 257, "<end>": 258}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 257), ("<end>", 258)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<start>",
        eos_token="<end>",
        pad_token="<end>",
        unk_token="<unk>",
        model_max_length=max_length,
    )
