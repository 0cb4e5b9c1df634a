"""The objective of the image encoder: a small CLIP whose pictures and captions meet (arXiv 2103.00020, figure 3).

Captions that say the same of the picture are no negatives of each other: the target is shared among them. Colour and
ground are learnt from that within a hundred steps, shape is not: a training-only task, to tell from every patch where
the objects are, gives the outlines that shape is read from.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import pairwise
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
from vidgen_moving_shapes.world import BACK_NEARNESS, FRONT_NEARNESS, GROUND_NEARNESS

PATCH, VISION_WIDTH, VISION_LAYERS = 8, 128, 4
PROJECTION = 64
LARGEST_SCALE = math.log(100)
PATCH_DEVIATION, PLACE_DEVIATION = 0.1, 0.3
"""Patches and their places start at like size: with the usual 0.02 for both, places are too small to be read."""
LEVELS = tuple((low + high) / 2 for low, high in pairwise((GROUND_NEARNESS, BACK_NEARNESS, FRONT_NEARNESS)))
"""Nearness above which a pixel belongs to any object, and to the one in front."""

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
    patches: Tensor | None = None  # (B, patches, VISION_WIDTH)


class ImageEncoder:
    """A contrastive loss over the pictures and captions of a batch; both towers are fresh.

    Args:
        mask_weight: Of the error in telling where the objects are; 0 leaves it out. The data must have ``nearness``.
    """

    def __init__(self, mask_weight: float = 2.0) -> None:
        self.mask_weight = mask_weight
        self.heads: MaskHeads | None = None

    @hookimpl
    def build_backbone(self, run: Run) -> Backbone:
        """A fresh CLIP over the words of the world."""
        # Its end token has the highest number: with the number 2 transformers takes another word for the end.
        tokenizer = build_tokenizer(end_last=True)
        with fresh_weights(run.request.seed, "image_encoder"):
            clip = build_clip(tokenizer)
        return ClipBackbone(clip, tokenizer)

    @hookimpl(claims=("clip", "mask_heads"))
    def trainable(self, backbone: Backbone) -> dict[str, Tensor]:
        """Everything, and the heads."""
        parameters: dict[str, Tensor] = dict(backbone.named_parameters())
        if self.mask_weight:
            self.heads = MaskHeads().to(backbone.device)
            parameters |= {f"mask_heads.{name}": p for name, p in self.heads.named_parameters()}
        return parameters

    @hookimpl
    def training_step(self, run: Run, batch: Batch) -> Embedded:
        """Embed pictures (B, 3, H, W) and captions; only the first frame of a sample is looked at."""
        clip, device = clip_of(run), run.backbone.device
        frames = torch.stack([sample.frames[0] for sample in batch.samples if sample.frames is not None])
        captions = [sample.captions[0] for sample in batch.samples]
        tokens = run.backbone.tokenizer(captions, padding=True, return_tensors="pt")
        seen = clip.vision_model(pixel_values=to_model_range(frames.to(device)))
        read = clip.text_model(input_ids=tokens.input_ids.to(device))
        return Embedded(
            functional.normalize(clip.visual_projection(seen.pooler_output).float(), dim=-1),
            functional.normalize(clip.text_projection(read.pooler_output).float(), dim=-1),
            stack(batch.samples, "content").to(device),
            clip.logit_scale,
            seen.last_hidden_state[:, 1:],  # the first is the whole picture's
        )

    @hookimpl
    def losses(self, batch: Batch, prediction: Any) -> dict[str, Tensor]:
        """``contrastive``: the mean of both directions; ``masks``: what the heads misread."""
        terms = {"contrastive": contrastive_loss(prediction)}
        if self.heads is not None:
            nearness = stack(batch.samples, "nearness").to(prediction.patches.device)
            terms["masks"] = self.mask_weight * self.heads.loss(prediction.patches, nearness[:, :1])
        return terms


class MaskHeads(nn.Module):
    """From the features of every patch: which of its pixels are of an object, and which of the one in front."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(VISION_WIDTH, elementwise_affine=False)
        self.head = nn.Linear(VISION_WIDTH, len(LEVELS) * PATCH**2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def loss(self, patches: Tensor, nearness: Tensor) -> Tensor:
        """Binary cross-entropy for patches (B, patches, VISION_WIDTH) against nearness (B, 1, CANVAS, CANVAS)."""
        masks = torch.cat([(nearness > level).float() for level in LEVELS], dim=1)
        wanted = functional.unfold(masks, PATCH, stride=PATCH).transpose(1, 2)
        with torch.autocast(patches.device.type, enabled=False):
            return functional.binary_cross_entropy_with_logits(self.head(self.norm(patches.float())), wanted)


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
    embeddings = clip.vision_model.embeddings
    nn.init.normal_(embeddings.patch_embedding.weight, std=PATCH_DEVIATION)
    nn.init.normal_(embeddings.position_embedding.weight, std=PLACE_DEVIATION)
    return clip
