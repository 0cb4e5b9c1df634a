"""What a training shows of itself: the loss on fixed samples at fixed timesteps, and videos of fixed prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vidgen_core.contact_sheet import ContactSheet
from vidgen_core.data.sample import Batch, Draw, Source
from vidgen_core.run import Run, frames, planned
from vidgen_core.training.reading import read_together
from vidgen_core.training.sharding import settle

if TYPE_CHECKING:
    from vidgen_core.request import Request
    from vidgen_core.training.learner import Learner
    from vidgen_core.training.log import TrainingLog

SEED = 1
"""Added to the run's seed: validation draws its own samples and noise, the same every time."""


@contextmanager
def evaluating(learner: Learner, averaged: Any) -> Iterator[None]:
    """The averaged weights in place, dropout off, no gradients, and the random state left as it was."""
    parameters = list(learner.trainables.values())
    cuda = {parameter.device for parameter in parameters if parameter.device.type == "cuda"}
    learner.eval()
    if averaged is not None:
        averaged.store(parameters)
        averaged.copy_to(parameters)
        settle(learner)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=cuda):
            yield
    finally:
        if averaged is not None:
            averaged.restore(parameters)
            settle(learner)
        learner.train()


def validate(
    learner: Learner, source: Source, options: Mapping[str, Any], seed: int, accelerator: Any, log: TrainingLog
) -> Any:
    """Mean of the losses' sum at each of ``trainer.validation_timesteps``: name -> number; ``validation``: their mean.

    The samples are shared among the processes. Raises Unreadable where one of them cannot be read.
    """
    wanted = options["validation_timesteps"]
    timesteps = wanted if isinstance(wanted, list) else [wanted]
    sums = torch.zeros(len(timesteps), dtype=torch.float64, device=accelerator.device)
    for first in range(0, options["validation_samples"], accelerator.num_processes):
        number = first + accelerator.process_index
        draw = Draw((number,), number, 0, 0, 1.0, seed + SEED) if number < options["validation_samples"] else None
        batch = read_together(partial(drawn, source, draw), accelerator, log)
        if batch is None:
            continue
        for place, timestep in enumerate(timesteps):
            batch.timestep = timestep
            with accelerator.autocast():
                sums[place] += sum(learner(batch).values()).double()
    means = (accelerator.reduce(sums, "sum") / options["validation_samples"]).tolist()
    named = {f"validation_t{t}": mean for t, mean in zip(timesteps, means, strict=True)}
    return named | {"validation": sum(means) / len(means)}


def drawn(source: Source, draw: Draw | None) -> Batch | None:
    """The batch of a draw, or None for none."""
    return None if draw is None else source.draw(draw)


def draw_samples(run: Run, requests: list[Request], folder: Path, step: int) -> list[Path]:
    """One contact sheet for each video of the requests, sampled with the weights that are in place."""
    files: list[Path] = []
    for request in requests:
        try:
            sample = Run(request, run.config, run.moments)
            sample.backbone = run.backbone
            sample.groups = planned(sample)
            sample.place(run.backbone, run.placement)
            sheets = [
                ContactSheet(folder / f"step_{step:08d}_{video.name or f'{video.index:03d}'}.png", video.scenes)
                for video in request.videos
            ]
            for block in frames(sample):
                for sheet, pixels in zip(sheets, block.pixels(), strict=True):
                    sheet.write(pixels)
            folder.mkdir(parents=True, exist_ok=True)
            files += [file for sheet in sheets for file in sheet.close()]
        except Exception as error:  # early weights give what is no number, a disk is full; none may end a training
            run.warn(f"no samples at step {step}: {' '.join(str(error).split())[:200]}")
    return files
