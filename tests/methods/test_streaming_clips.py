"""What a training clip of StreamingT2V is cut into: what is told of its past, and a target under its own captions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from vidgen_streaming.method import Streaming, build
from vidgen_streaming.training import Continuation
from vidgen_talc.method import build as talc

from vidgen_core.data.sample import Batch, Sample, draw_of
from vidgen_core.models import tiny
from vidgen_core.run import Run, opened
from vidgen_core.testing import make_run, request
from vidgen_core.training.denoising import Prediction

SETTINGS = {
    "trainer": {},
    "methods": {"streaming": {"chunk": 16, "overlap": 8}},
    "model": {"image_encoder": "pkg://vidgen_moving_shapes/weights/clip"},
}


def clips(count: int = 1, side: int = 32, timestep: int | None = None) -> Batch:
    """Clips of 32 frames that show their own number, of two scenes: 20 frames and 12."""
    frames = (8 * torch.arange(32, dtype=torch.uint8))[:, None, None, None].expand(-1, 3, side, side)
    extra = {"number": torch.arange(32)}
    samples = [Sample(("a", "b"), (20, 12), frames, extra=extra, number=i) for i in range(count)]
    draw = draw_of(0, 0, 0, accumulation=1, processes=1, batch_size=count, steps=1, seed=0)
    return Batch(samples, draw, timestep=timestep)


def shown(frames: Tensor) -> list[int]:
    """The numbers that frames (F, 3, H, W) in [-1, 1] show."""
    return [round(float(frame.mean() + 1) * 127.5 / 8) for frame in frames]


@pytest.fixture(scope="module")
def method() -> Streaming:
    made = build(stage="apm", hidden=8, embedding_widths=[8, 8, 8, 8])
    assert isinstance(made, Streaming)
    return made


@pytest.fixture(scope="module")
def run(method: Streaming) -> Iterator[Run]:
    """A training of the tiny model with both memories."""
    started = make_run(request(), {"talc": talc(), "streaming": method}, SETTINGS)
    with opened(started, tiny.build()):
        yield started


def step(run: Run, batch: Batch, **options: Any) -> Prediction:
    run.batch = batch
    with torch.no_grad():
        return Continuation(posterior="mean", **options).training_step(run, batch)


def test_cam_is_told_the_clean_first_frames_of_the_target_and_the_anchor_is_of_the_past() -> None:
    batch = clips(100, side=1)
    recalled = Continuation().recalled(batch, past=16, overlap=8)
    assert all(shown(frames) == list(range(16, 24)) for frames in recalled.frames)
    assert set(shown(recalled.anchor)) == set(range(16))  # each of them, in a hundred draws


def test_the_target_is_the_last_chunk_under_its_own_captions(run: Run) -> None:
    batch = clips()
    pixels = batch.samples[0].frames
    assert pixels is not None
    prediction = step(run, batch)
    target = run.backbone.to_latents(pixels[None, 16:] / 255)
    assert torch.allclose(prediction.latents, target, atol=1e-5)
    assert shown(batch.memory["streaming"].frames[0]) == list(range(16, 24))
    assert prediction.window.span == range(16, 32)
    text = prediction.window.condition["text"].cond
    read = run.texts.rows(["a"] * 4 + ["b"] * 12)
    assert run.texts.embeds is not None
    assert torch.equal(text.embeds[text.index[0]], run.texts.embeds[read])


def test_labels_and_scenes_are_cut_with_the_frames() -> None:
    from vidgen_streaming.training import cut

    (sample,) = cut(clips(side=1), past=16).samples
    assert (sample.captions, sample.scene_frames) == (("a", "b"), (4, 12))
    assert sample.extra["number"].tolist() == list(range(16, 32))
    (sample,) = cut(clips(side=1), past=20).samples
    assert (sample.captions, sample.scene_frames) == (("b",), (12,))


def test_a_clip_may_stand_still_until_its_new_frames_begin_as_after_an_image(run: Run) -> None:
    batch = clips()
    step(run, batch, still=1.0)
    recalled = batch.memory["streaming"]
    assert shown(recalled.frames[0]) == [23] * 8
    assert shown(recalled.anchor) == [23]
    (whole,) = batch.samples
    assert whole.extra["number"].tolist() == [23] * 24 + list(range(24, 32))


def test_where_the_anchor_is_dropped_the_tokens_are_those_of_a_grey_image(run: Run, method: Streaming) -> None:
    def tokens(dropout: float, timestep: int | None = None) -> Tensor:
        window = step(run, clips(timestep=timestep), anchor_dropout=dropout).window
        found: Tensor = window.condition["text"].cond.tokens["streaming"]
        return found[0]

    resampler = method.networks.resampler
    assert resampler is not None
    with torch.no_grad():
        grey = resampler(method.encode(torch.zeros(1, 3, 32, 32)))[0]
    assert torch.allclose(tokens(1.0), grey, atol=1e-6)
    assert not torch.allclose(tokens(0.0), grey, atol=1e-3)
    assert torch.equal(tokens(1.0, timestep=500), tokens(0.0))  # validation is told everything
