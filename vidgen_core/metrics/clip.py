"""A CLIP model, and two scores by it: are neighbouring frames alike, and does each scene fit its caption?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from vidgen_core.errors import BadRequest
from vidgen_core.metrics.footage import Footage

if TYPE_CHECKING:
    from pathlib import Path

AT_ONCE = 32
"""Frames that go through the model together."""


def load(path: str | None, device: str = "auto") -> Clip:
    """A CLIP model from a folder, ``pkg://package/folder`` or a hub id. Raises BadRequest with the reason."""
    import transformers

    from vidgen_core.models.loading import found, located, picture_processor, quiet
    from vidgen_core.placement import device_and_dtype

    if not path:
        raise BadRequest(
            "The CLIP metrics need a model: clip.path=<folder or hub id>, such as openai/clip-vit-base-patch32."
        )
    source = found(path)
    if source is None:
        raise BadRequest(f"clip.path={path}: there is no folder '{located(path)}'. Give a CLIP model of transformers.")
    where, _ = device_and_dtype({"device": device})
    try:
        with quiet():
            model = transformers.CLIPModel.from_pretrained(source)
            tokenizer = transformers.AutoTokenizer.from_pretrained(source)
            processor = picture_processor("CLIPImageProcessor").from_pretrained(source)
    except Exception as error:  # OSError, ValueError, KeyError: transformers raises many kinds
        reason = " ".join(str(error).split())[:300]
        raise BadRequest(f"clip.path={path} is no CLIP model ({type(error).__name__}: {reason}).") from error
    return Clip(path, model.to(where).float().eval(), tokenizer, processor)


class Clip:
    """Unit features of frames and texts; those of the last video are kept, for the next metric."""

    def __init__(self, name: str, model: Any, tokenizer: Any, processor: Any) -> None:
        self.name = name
        self._model, self._tokenizer, self._processor = model, tokenizer, processor
        self._last: tuple[tuple[Path, int], Tensor] | None = None
        self._warned = False

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        device: torch.device = self._model.device
        return device

    @property
    def scale(self) -> float:
        """What the checkpoint multiplies cosines by for its logits: 100 in the published ones."""
        return float(self._model.logit_scale.detach().exp())

    @torch.inference_mode()
    def frames(self, footage: Footage, side: int = 0) -> Tensor:
        """(F, D) of unit length, on the CPU.

        Args:
            side: Frames become squares of this many pixels before the model's own processor sees them; 0 leaves them.
        """
        self._warn_of_strange(footage.captions)
        if self._last is None or self._last[0] != (footage.path, side):
            blocks = footage.blocks(AT_ONCE)
            features = [self._pictures([_square(frame, side) for frame in block]) for block in blocks]
            self._last = (footage.path, side), torch.cat(features)
        return self._last[1]

    def _pictures(self, frames: Sequence[np.ndarray]) -> Tensor:
        return self.projected(self.pooled(frames))

    @torch.inference_mode()
    def pooled(self, frames: Sequence[np.ndarray] | np.ndarray) -> Tensor:
        """What the image encoder makes of frames (H, W, 3) before the projection, (len(frames), W), on the CPU."""
        seen: Tensor = self._seen(frames).pooler_output
        return seen.cpu()

    @torch.inference_mode()
    def patches(self, frames: Sequence[np.ndarray] | np.ndarray) -> Tensor:
        """What it makes of every patch of the frames, (len(frames), patches, W), on the CPU."""
        seen = self._seen(frames).last_hidden_state[:, 1:]  # the first token is that of the whole picture
        normed: Tensor = self._model.vision_model.post_layernorm(seen)
        return normed.cpu()

    def _seen(self, frames: Sequence[np.ndarray] | np.ndarray) -> Any:
        pixels = self._processor(images=list(frames), return_tensors="pt", input_data_format="channels_last")
        return self._model.vision_model(pixel_values=pixels["pixel_values"].to(self.device))

    @torch.inference_mode()
    def projected(self, pooled: Tensor) -> Tensor:
        """Pooled features of frames as those that are compared with texts: (F, D) of unit length, on the CPU."""
        return normalize(self._model.visual_projection(pooled.to(self.device)).cpu(), dim=-1)

    @torch.inference_mode()
    def texts(self, captions: Sequence[str]) -> Tensor:
        """(len(captions), D) of unit length, on the CPU; what is too long for the model is cut."""
        self._warn_of_strange(captions)
        most = self._model.config.text_config.max_position_embeddings
        tokens = self._tokenizer(list(captions), padding=True, truncation=True, max_length=most, return_tensors="pt")
        named = {name: tokens[name].to(self.device) for name in ("input_ids", "attention_mask")}
        read = self._model.text_model(**named).pooler_output
        return normalize(self._model.text_projection(read).cpu(), dim=-1)

    def _warn_of_strange(self, captions: Sequence[str]) -> None:
        # Once: a model that has not the words of a video was made for other videos, and its numbers look like any.
        if self._warned:
            return
        unknown = self._tokenizer.unk_token_id
        words = dict.fromkeys(word.strip(".,;:!?\"'()") for caption in captions for word in caption.split())
        strange = [w for w in words if w and unknown in self._tokenizer(w, add_special_tokens=False).input_ids]
        if strange:
            self._warned = True
            shown = ", ".join(f"'{word}'" for word in strange[:5]) + (" and others" if len(strange) > 5 else "")
            print(
                f"warning: the CLIP model of clip.path={self.name} does not know {shown}: its scores say little of "
                "videos of such captions. Name one that does, such as clip.path=openai/clip-vit-base-patch32.",
                file=sys.stderr,
                flush=True,
            )


def _square(frame: np.ndarray, side: int) -> np.ndarray:
    if not side:
        return frame
    from PIL import Image

    # Bicubic is what Pillow takes when no filter is named, as in the published scripts.
    return np.asarray(Image.fromarray(frame).resize((side, side), Image.Resampling.BICUBIC))


class Consistency:
    """The mean cosine of neighbouring frames' features, over cuts as well; 1 for a still picture."""

    columns = ("clip_consistency",)

    def __init__(self, clip: Clip) -> None:
        self._clip = clip

    def score(self, footage: Footage) -> dict[str, float | None]:
        """None for a video of one frame."""
        features = self._clip.frames(footage)
        return {"clip_consistency": float((features[1:] * features[:-1]).sum(-1).mean()) if len(features) > 1 else None}


class TextScore:
    """The mean over scenes of the cosine of caption and frames."""

    columns = ("clip_text",)

    def __init__(self, clip: Clip) -> None:
        self._clip = clip

    def score(self, footage: Footage) -> dict[str, float | None]:
        """Every scene counts alike, however long it is."""
        features, texts = self._clip.frames(footage), self._clip.texts(footage.captions)
        fits = [
            (features[span.start : span.stop] @ text).mean() for span, text in zip(footage.spans, texts, strict=True)
        ]
        return {"clip_text": float(torch.stack(fits).mean())}


class ClipSim:
    """CLIPSIM: the mean over frames of the cosine of frame and caption; every frame counts alike."""

    columns = ("clipsim",)

    def __init__(self, clip: Clip) -> None:
        self._clip = clip

    def score(self, footage: Footage) -> dict[str, float | None]:
        """Of a video of one scene, the same as ``TextScore``."""
        features, texts = self._clip.frames(footage), self._clip.texts(footage.captions)
        fits = [features[span.start : span.stop] @ text for span, text in zip(footage.spans, texts, strict=True)]
        return {"clipsim": float(torch.cat(fits).mean())}
