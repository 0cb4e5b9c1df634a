"""How CAM and APM are trained: to continue a clip whose past they are told (spec of the clip: section 5 of the paper).

A training clip has a past and a target of one chunk. CAM is told the clean frames that the target begins with, as at
inference; the anchor is a frame of the past, drawn at random.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from vidgen_core import hookimpl
from vidgen_core.data.pixels import to_model_range
from vidgen_core.data.sample import Batch, Sample, Source
from vidgen_core.errors import BadRequest
from vidgen_core.run import Run, Window
from vidgen_core.training.denoising import Denoising, Prediction, request_of
from vidgen_core.training.latents import check_pixels
from vidgen_streaming.memory import Recalled


class Continuation(Denoising):
    """Mean squared error over the last chunk of every clip, one timestep for each.

    Args:
        anchor_dropout: Share of samples that are told nothing of the anchor; needed for guidance by it.
        still: Share of samples whose clip stands still until the new frames begin, as after ``image=``.
        **options: As for the objective ``denoising``.
    """

    def __init__(self, anchor_dropout: float = 0.0, still: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.anchor_dropout, self.still = anchor_dropout, still

    @hookimpl
    def check_data(self, run: Run, source: Source) -> None:
        """Refuse the latent cache: CAM and the anchor's encoder look at frames."""
        check_pixels(run, "streaming")

    @hookimpl
    def training_step(self, run: Run, batch: Batch) -> Prediction:
        """Tell the method the past of every clip, and predict the target under it."""
        settings = run.config["methods"]["streaming"]
        chunk, overlap = settings["chunk"], settings["overlap"]
        past = batch.num_frames - chunk
        if past < 1:
            raise BadRequest(
                f"The clips have {batch.num_frames} frames, but continuing takes a past and a target of {chunk}. Give "
                f"clips of {2 * chunk} frames, as published."
            )
        batch.samples = [self.stopped(batch, sample, past + overlap) for sample in batch.samples]
        batch.memory["streaming"] = self.recalled(batch, past, overlap)
        return super().training_step(run, cut(batch, past))

    def stopped(self, batch: Batch, sample: Sample, known: int) -> Sample:
        """The sample, or for a share of them one that stands still in its ``known`` frames."""
        if sample.frames is None:
            raise BadRequest(
                "method=streaming looks at pixels, which the latent cache does not keep. Use trainer.cache=none."
            )
        if not self.still or batch.draw.rng(sample.number, "still").random() >= self.still:
            return sample
        standing = torch.arange(batch.num_frames).clamp(min=known - 1)
        extra = {name: value[standing] for name, value in sample.extra.items()}
        return dataclasses.replace(sample, frames=sample.frames[standing], extra=extra, cache_keys=())

    def recalled(self, batch: Batch, past: int, overlap: int) -> Recalled:
        """The clean frames that the targets begin with, and an anchor from each past."""
        clips = [to_model_range(sample.frames) for sample in batch.samples if sample.frames is not None]
        frames = torch.stack([clip[past : past + overlap] for clip in clips])
        places = [int(batch.draw.rng(s.number, "anchor").integers(past)) for s in batch.samples]
        anchors = [clip[at] for clip, at in zip(clips, places, strict=True)]
        draws = [batch.draw.rng(s.number, "anchor dropout").random() for s in batch.samples]
        blank = torch.tensor(draws) < (self.anchor_dropout if batch.timestep is None else 0.0)
        return Recalled(frames, torch.stack(anchors), blank)

    def conditioned(self, run: Run, batch: Batch) -> Window:
        """The window of the target's frames; captions lie on the whole clip."""
        whole = batch.memory["whole"]
        dropped = [self.drops(batch.draw, sample) and batch.timestep is None for sample in whole.samples]
        run.request = request_of(run, whole, dropped)
        span = range(whole.num_frames - batch.num_frames, whole.num_frames)
        return run.conditioned(Window(span, span))


def cut(batch: Batch, past: int) -> Batch:
    """The batch without the past of its clips; the whole one stays in its memory, for the captions."""
    samples = []
    for sample in batch.samples:
        scenes, start = [], 0
        for frames in sample.scene_frames:
            left = max(start + frames - max(start, past), 0)
            scenes += [left] if left else []
            start += frames
        assert sample.frames is not None
        samples.append(
            dataclasses.replace(
                sample,
                captions=sample.captions[-len(scenes) :],
                scene_frames=tuple(scenes),
                frames=sample.frames[past:],
                moments=None,
                cache_keys=(),
                extra={name: value[past:] for name, value in sample.extra.items()},  # a row for each frame
            )
        )
    batch.memory["whole"] = batch
    return dataclasses.replace(batch, samples=samples)
