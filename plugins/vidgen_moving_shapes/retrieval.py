"""Zero-shot retrieval: which caption does the image encoder choose for a picture?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from vidgen_core.data.pixels import to_model_range
from vidgen_core.errors import BadRequest
from vidgen_core.models.loading import located, quiet
from vidgen_moving_shapes.captions import image_caption
from vidgen_moving_shapes.combinations import IMAGES
from vidgen_moving_shapes.subjects import SETS, Frames, Subject, pictures_of_two

CLIP = "pkg://vidgen_moving_shapes/weights/clip"


def retrieval(path: str, count: int, seed: int) -> dict[str, dict[str, float]]:
    """Set -> share of pictures whose chosen caption has the right shape, colour, ground, and all.

    One object: among the captions of all combinations. Two objects: ``order``, whether the caption is preferred to the
    one with the objects exchanged, and ``colours``, to the one with their colours exchanged; chance is a half.
    """
    clip = Clip(path)
    rows = {}
    captions = [image_caption(*image) for image in IMAGES]
    attributes = np.array([(entity.shape, entity.colour, ground) for entity, ground in IMAGES])
    embedded = clip.texts(captions)
    for place, (name, draw) in enumerate(SETS["text_to_image"]):
        subjects = draw(np.random.default_rng([seed, place]), count)
        chosen = (clip.images([s.scene.frames() for s in subjects]) @ embedded.T).argmax(1).numpy()
        wanted = [captions.index(subject.caption) for subject in subjects]
        right = attributes[chosen] == attributes[wanted]
        shares = dict(zip(("shape", "colour", "ground"), right.mean(0).tolist(), strict=True))
        rows[name] = {"n": float(count), **shares, "all": float(right.all(1).mean())}
    pairs = pictures_of_two(np.random.default_rng([seed, len(rows)]), count)
    rows["two objects"] = {
        "n": float(count),
        "order": preferred(clip, pairs, exchanged_objects),
        "colours": preferred(clip, pairs, exchanged_colours),
    }
    return rows


def preferred(clip: Clip, subjects: Sequence[Subject], exchange: Any) -> float:
    """The share of pictures that are nearer to their caption than to the changed one."""
    images = clip.images([subject.scene.frames() for subject in subjects])
    right = clip.texts([subject.caption for subject in subjects])
    wrong = clip.texts([exchange(subject.caption) for subject in subjects])
    return float(((images * right).sum(1) > (images * wrong).sum(1)).float().mean())


def exchanged_objects(caption: str) -> str:
    """ "a C1 S1 in front of a C2 S2 on a B background" with the objects exchanged."""
    words = caption.split()
    words[1:3], words[7:9] = words[7:9], words[1:3]
    return " ".join(words)


def exchanged_colours(caption: str) -> str:
    """ "a C1 S1 in front of a C2 S2 on a B background" with the colours exchanged."""
    words = caption.split()
    words[1], words[7] = words[7], words[1]
    return " ".join(words)


class Clip:
    """Unit features of pictures and texts by a ``CLIPModel`` of a folder. Raises BadRequest where there is none."""

    def __init__(self, path: str) -> None:
        from transformers import AutoTokenizer, CLIPModel

        folder = located(path)
        try:
            with quiet():
                self._model = CLIPModel.from_pretrained(folder).float().eval()
                self._tokenizer = AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise BadRequest(f"'{folder}' holds no CLIP model: {error}") from error

    @torch.no_grad()
    def images(self, clips: Sequence[Frames]) -> Tensor:
        """(n, D) of the first frame of every clip."""
        frames = torch.from_numpy(np.stack([clip[0] for clip in clips])).permute(0, 3, 1, 2)
        seen = self._model.vision_model(pixel_values=to_model_range(frames)).pooler_output
        return normalize(self._model.visual_projection(seen), dim=-1)

    @torch.no_grad()
    def texts(self, captions: Sequence[str]) -> Tensor:
        """(n, D)."""
        tokens = self._tokenizer(list(captions), padding=True, return_tensors="pt")
        read = self._model.text_model(input_ids=tokens.input_ids).pooler_output
        return normalize(self._model.text_projection(read), dim=-1)
