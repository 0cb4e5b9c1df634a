"""Adapters of the image encoder's cases: preparing a picture, and a vision tower in the layout of the checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from vidgen_core.models.image_encoder import from_open_clip, preprocess

Case = dict[str, Any]

PREFIX = "image_encoder.model."


def clip_preprocess(case: Case, folder: Path) -> dict[str, Tensor]:
    """A picture as the encoder sees it, thinned out, and its statistics."""
    seen = preprocess((0.5 * case["tensors"]["image"]).clamp(-1, 1))
    return {"pixels": seen[:, :, 3::8, 3::8], "mean": seen.mean((2, 3)), "std": seen.std((2, 3))}


def clip_visual(case: Case, folder: Path) -> dict[str, Tensor]:
    """The embedding of a prepared picture."""
    clip = case["config"]["clip"]
    encoder = from_open_clip(
        case["weights"],
        PREFIX,
        head_width=clip["vision_cfg"].get("head_width", 64),
        activation="quick_gelu" if clip.get("quick_gelu") else "gelu",
    )
    return {"image_embedding": encoder.embed(case["tensors"]["image"])}


ADAPTERS: dict[str, Callable[[Case, Path], dict[str, Tensor]]] = {
    "clip_preprocess": clip_preprocess,
    "clip_visual": clip_visual,
}
