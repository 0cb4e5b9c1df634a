"""What the tests of TF-T2V share: a tiny model with layers over time that speak, a picture, and runs of the method."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from vidgen_moving_shapes.training.joint import painted
from vidgen_tf_t2v.method import TFT2V

from vidgen_core.data.sample import Batch, Draw
from vidgen_core.models import tiny
from vidgen_core.models.backbone import Backbone
from vidgen_core.request import Request
from vidgen_core.run import Run, Window, opened
from vidgen_core.testing import make_run, request

T = torch.tensor(500)
CLIP = "pkg://vidgen_moving_shapes/weights/clip"
SETTINGS = {"tuned": None, "weights": {}, "model": {"untrained": True, "image_encoder": CLIP}}
KEPT = {"drop": 0.0, "drop_all": 0.0, "drop_to_negative": 0.0}
TINY = ["model=tiny", "num_inference_steps=2", "height=32", "width=32", "num_frames=4"]


def outspoken() -> Backbone:
    """The tiny model, whose layers over time say something, as trained ones do."""
    made = tiny.build()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for name, parameter in made.denoiser.named_parameters():
            if "conv4" in name:
                parameter.normal_(std=0.1)
    return made


def picture_in(folder: Path) -> str:
    """A file of random pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "ref.png")
    return str(folder / "ref.png")


def latents(frames: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 4, frames, 4, 4, generator=torch.Generator().manual_seed(frames))


@contextmanager
def run_of(backbone: Backbone, wanted: Request, **options: Any) -> Iterator[tuple[Run, TFT2V]]:
    method = TFT2V(**options)
    run = make_run(wanted, {"tf_t2v": method}, SETTINGS)
    with opened(run, backbone):
        yield run, method


def whole(run: Run) -> Window:
    return run.conditioned(Window(range(run.request.num_frames), range(run.request.num_frames)))


def predicted(backbone: Backbone, noisy: Tensor, **options: Any) -> Tensor:
    with run_of(backbone, request(num_frames=noisy.shape[2]), **options) as (run, _):
        return backbone.predict(noisy, T, backbone.prepare(whole(run).condition, ("cond",)))


def batch_of(kind: str, samples: int = 2, **more: Any) -> Batch:
    """Painted samples of a kind."""
    mixed = painted(**{"frames": 2, **more}, labelled_videos=None, shares={kind: 1.0}, images_per_video=1)
    return mixed.draw(Draw(tuple(range(samples)), 0, 0, 0, 0.0, 0, samples))
