"""The model, the data, the metric and the scheduler."""

import torch
from diffusers import DDIMScheduler

from vidgen_core.data.epochs import ItemSource
from vidgen_core.data.sample import Sample
from vidgen_core.models import tiny


def model(*, dtype=torch.float32, seed=1):
    """The tiny model with other weights."""
    return tiny.build(dtype=dtype, seed=seed)


class Clips(ItemSource):
    """Clips of four grey frames, 32 x 32 pixels, each of one brightness."""

    def __len__(self):
        return 3

    def name(self, item):
        return f"clip {item}"

    def load(self, item, scenes, rng):
        return Sample((f"grey {item}",), (4,), frames=torch.full((4, 3, 32, 32), 60 * item, dtype=torch.uint8))


class Brightness:
    """Mean of all values, 0 to 1."""

    columns = ("brightness",)
    needs_captions = False

    def score(self, footage):
        return {"brightness": float(footage.frames.mean() / 255)}


class Still(DDIMScheduler):
    """DDIM that says it was here."""

    steps = 0

    def step(self, *arguments, **options):
        Still.steps += 1
        return super().step(*arguments, **options)
