"""Zero-shot retrieval: which caption does the image encoder choose for a picture?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from vidgen_core.metrics.clip import Clip, load
from vidgen_moving_shapes.captions import image_caption
from vidgen_moving_shapes.combinations import IMAGES
from vidgen_moving_shapes.subjects import SETS, Subject, pictures_of_two

CLIP = "pkg://vidgen_moving_shapes/weights/clip"


def retrieval(path: str, count: int, seed: int) -> dict[str, dict[str, float]]:
    """Set -> share of pictures whose chosen caption has the right shape, colour, ground, and all.

    One object: among the captions of all combinations. Two objects: ``order``, whether the caption is preferred to the
    one with the objects exchanged, and ``colours``, to the one with their colours exchanged; chance is a half.
    """
    clip = load(path)
    rows = {}
    captions = [image_caption(*image) for image in IMAGES]
    attributes = np.array([(entity.shape, entity.colour, ground) for entity, ground in IMAGES])
    embedded = clip.texts(captions)
    for place, (name, draw) in enumerate(SETS["text_to_image"]):
        subjects = draw(np.random.default_rng([seed, place]), count)
        chosen = (of_pictures(clip, subjects) @ embedded.T).argmax(1).numpy()
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
    images = of_pictures(clip, subjects)
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


def of_pictures(clip: Clip, subjects: Sequence[Subject]) -> Tensor:
    """(n, D) of unit length, of the first frame of every subject's scene."""
    return clip.projected(clip.pooled([subject.scene.frames()[0] for subject in subjects]))
