"""The objective of the image encoder: a small CLIP whose pictures and captions meet (arXiv 2103.00020, figure 3).

Captions that say the same of the picture are no negatives of each other: the target is shared among them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig, PreTrainedTokenizerFast

from vidgen_core import hookimpl
from vidgen_core.data.pixels import to_model_range
from vidgen_core.data.sample import Batch, stack
from vidgen_core.models.backbone import Backbone
from vidgen_core.models.saving import save_tokenizer
from vidgen_core.run import Run
from vidgen_moving_shapes.shapes import CANVAS
from vidgen_moving_shapes.tokenizer import build_tokenizer
from vidgen_moving_shapes.training.fresh import fresh_weights
from vidgen_moving_shapes.training.text import spread_words, text_settings

PATCH, VISION_WIDTH, VISION_LAYERS = 8, 128, 4
PROJECTION = 64
LARGEST_SCALE = math.log(100)

PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": CANVAS},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": CANVAS, "width": CANVAS},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
"""What ``to_model_range`` does, in the words of transformers' image processor."""


class ClipBackbone(Backbone):
    """A CLIP to be trained: no denoiser, and a folder of transformers' layout."""

    def __init__(self, clip: CLIPModel, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__(None, tokenizer=tokenizer)
        self.clip: Any = clip

    def save(self, folder: Path, dtype: torch.dtype) -> None:
        """``CLIPModel.from_pretrained(folder)`` with its tokenizer and image processor."""
        before = next(self.clip.parameters()).dtype
        nn.Module.to(self.clip, dtype).save_pretrained(folder)
        nn.Module.to(self.clip, before)
        save_tokenizer(self.tokenizer, folder)
        (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2) + "\n")


@dataclass
class Embedded:
    """Unit vectors (B, PROJECTION) float32 of pictures and captions, and what the pictures show (B,)."""

    images: Tensor
    texts: Tensor
    content: Tensor
    scale: Tensor  # scalar, the logarithm of the inverse temperature


class ImageEncoder:
    """A contrastive loss over the pictures and captions of a batch; both towers are fresh."""

    @hookimpl
    def build_backbone(self, run: Run) -> Backbone:
        """A fresh CLIP over the words of the world."""
        # Its end token has the highest number: with the number 2 transformers takes another word for the end.
        tokenizer = build_tokenizer(end_last=True)
        with fresh_weights(run.request.seed, "image_encoder"):
            clip = build_clip(tokenizer)
        return ClipBackbone(clip, tokenizer)

    @hookimpl
    def trainable(self, backbone: Backbone) -> dict[str, Tensor]:
        """Everything."""
        return dict(backbone.named_parameters())

    @hookimpl
    def training_step(self, run: Run, batch: Batch) -> Embedded:
        """Embed pictures (B, 3, H, W) and captions; only the first frame of a sample is looked at."""
        clip, device = clip_of(run), run.backbone.device
        frames = torch.stack([sample.frames[0] for sample in batch.samples if sample.frames is not None])
        captions = [sample.captions[0] for sample in batch.samples]
        tokens = run.backbone.tokenizer(captions, padding=True, return_tensors="pt")
        out = clip(input_ids=tokens.input_ids.to(device), pixel_values=to_model_range(frames.to(device)))
        content = stack(batch.samples, "content").to(device)
        return Embedded(out.image_embeds.float(), out.text_embeds.float(), content, clip.logit_scale)

    @hookimpl
    def losses(self, prediction: Any) -> dict[str, Tensor]:
        """``contrastive``: the mean of both directions."""
        return {"contrastive": contrastive_loss(prediction)}


def clip_of(run: Run) -> Any:
    """The CLIP that a run trains."""
    assert isinstance(run.backbone, ClipBackbone)
    return run.backbone.clip


def contrastive_loss(found: Embedded) -> Tensor:
    """Cross-entropy of every picture over all captions, and of every caption over all pictures."""
    # Rounded to half precision, neighbours at this temperature could not be told apart.
    with torch.autocast(found.images.device.type, enabled=False):
        logits = found.scale.float().clamp(max=LARGEST_SCALE).exp() * found.images @ found.texts.T
        same = (found.content[:, None] == found.content[None]).float()
        target = same / same.sum(1, keepdim=True)
        return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def build_clip(tokenizer: PreTrainedTokenizerFast) -> CLIPModel:
    """0.9 M parameters: a vision transformer over patches of 8 pixels, and the text tower of the other models."""
    vision = CLIPVisionConfig(
        image_size=CANVAS,
        patch_size=PATCH,
        hidden_size=VISION_WIDTH,
        intermediate_size=4 * VISION_WIDTH,
        num_hidden_layers=VISION_LAYERS,
        num_attention_heads=4,
        projection_dim=PROJECTION,
        hidden_act="gelu",
    )
    text = CLIPTextConfig(**text_settings(tokenizer))
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=PROJECTION)
    clip = CLIPModel(config)
    spread_words(clip)
    return clip
