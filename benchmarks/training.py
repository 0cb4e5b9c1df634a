"""A training step against the same step written plainly with diffusers' classes, and its memory with checkpointing.

Same weights, latents, texts, noise schedule, optimiser and clipping; one process, alternating steps, medians of CPU
time. ``python benchmarks/training.py [--size 2m] [--frames 16]``; ``--memory`` measures peak memory, a process each.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from models import SCHEDULER, TOKENS, WIDTH, make
from torch import Tensor

from vidgen_core.data.sample import Batch, Draw, Sample
from vidgen_core.models.backbone import Backbone
from vidgen_core.moments import Moments
from vidgen_core.placement import Placement
from vidgen_core.request import Request
from vidgen_core.run import Run
from vidgen_core.train import TRAINING_HOOKS, optimise
from vidgen_core.training.denoising import Denoising
from vidgen_core.training.gradient_checkpointing import gradient_checkpointing
from vidgen_core.training.learner import Learner, choose_trainables

RATE = 1e-5
OPTIONS = {"accumulation": 1, "max_grad_norm": 1.0, "trainable": "all"}


class OnLatents(Denoising):
    """Trains on given latents: no VAE on either side."""

    def __init__(self, latents: Tensor) -> None:
        super().__init__()
        self.given = latents

    def latents(self, run: Run, batch: Batch) -> Tensor:
        return self.given


class Silent:
    """A log that keeps nothing."""

    def leave_out(self, step: int, samples: Any) -> None:
        """Nothing is ever left out here."""


def plain_step(backbone: Backbone, latents: Tensor) -> Callable[[], None]:
    """What a script of diffusers' classes does in one step."""
    from diffusers import DDPMScheduler

    unet = backbone.denoiser.train()
    text = torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))
    scheduler = DDPMScheduler.from_config({**SCHEDULER, "_class_name": "DDPMScheduler"})
    optimiser = torch.optim.AdamW(unet.parameters(), lr=RATE, weight_decay=0.0)

    def step() -> None:
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, 1000, (len(latents),))
        noisy = scheduler.add_noise(latents, noise, timesteps)
        prediction = unet(noisy, timesteps, encoder_hidden_states=text).sample
        torch.nn.functional.mse_loss(prediction.float(), noise.float()).backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def vidgen_step(backbone: Backbone, latents: Tensor, folder: Path, stack: ExitStack) -> Callable[[], None]:
    """One step of the loop with its hooks, accelerate, keyed noise and captions."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, project_dir=str(folder))
    frames, height, width = latents.shape[2:]
    text = torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))
    backbone.encode_text = lambda texts: text.expand(len(texts), -1, -1)  # type: ignore[method-assign]
    moments = Moments({"objective": OnLatents(latents)}, defaults=TRAINING_HOOKS)
    request = Request((), frames, height * 8, width * 8, 8, 0, 1.0, 1)
    run = Run(request, {"trainer": OPTIONS, "seed": 0, "placement": {}}, moments)
    run.place(backbone, Placement(torch.device("cpu"), torch.float32))
    stack.enter_context(backbone.attention_installed("sdpa"))
    learner = Learner(run, choose_trainables(run)).train()
    optimiser = torch.optim.AdamW(list(learner.trainables.values()), lr=RATE, weight_decay=0.0)
    wrapped, prepared = accelerator.prepare(learner, optimiser)
    count = iter(range(10**6))

    def step() -> None:
        number = next(count)
        sample = Sample(("a",), (frames,), number=number)
        batches = iter([Batch([sample], Draw((number,), number, 0, 0, 0.0, 0))])
        optimise(wrapped, batches, prepared, accelerator, number, run.config, Silent())  # type: ignore[arg-type]

    return step


def hooks_share(seconds: float) -> float:
    """The share of a step that calling its hooks takes: the calls of a step, with nothing in them."""
    moments = Moments({"objective": Denoising()}, defaults=TRAINING_HOOKS)
    request = Request((), 1, 8, 8, 8, 0, 1.0, 1)
    start = time.process_time()
    for _ in range(1000):
        moments.prepare_request(request=request)
        moments.recall(run=None, window=None)
        moments.refine_condition(run=None, window=None, condition={})
        moments.condition(run=None, window=None)
    return (time.process_time() - start) / 1000 / seconds


def memory(side: str, size: str, frames: int, cells: int) -> None:
    """Print the growth of one side's process over two steps, in MiB, and its seconds of CPU time."""
    latents = torch.randn(1, 4, frames, cells, cells, generator=torch.Generator().manual_seed(0))
    with TemporaryDirectory() as folder, ExitStack() as stack:
        backbone = make(size)
        if side == "vidgen, checkpointing":
            stack.enter_context(gradient_checkpointing(backbone.denoiser))
        step = plain_step(backbone, latents) if side == "plain" else vidgen_step(backbone, latents, Path(folder), stack)
        idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.process_time()
        step()
        step()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"mib": (peak - idle) / 1024, "cpu_seconds": (time.process_time() - start) / 2}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="2m")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--cells", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--memory", nargs="?", const="all", help="measure memory; or only this side, in this process")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory and options.memory != "all":
        memory(options.memory, options.size, options.frames, options.cells)
        return
    if options.memory:
        for side in ("plain", "vidgen", "vidgen, checkpointing"):
            command = [sys.executable, __file__, "--memory", side, "--size", options.size]
            command += ["--frames", str(options.frames), "--cells", str(options.cells)]
            print(side, subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
        return
    latents = torch.randn(1, 4, options.frames, options.cells, options.cells)
    with TemporaryDirectory() as folder, ExitStack() as stack:
        steps = {
            "plain": plain_step(make(options.size), latents),
            "vidgen": vidgen_step(make(options.size), latents, Path(folder), stack),
        }
        for step in steps.values():
            step()
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(options.repeats):
            for name, step in steps.items():
                start = time.process_time()
                step()
                seconds[name].append(time.process_time() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    pairs = sorted(p / v for p, v in zip(seconds["plain"], seconds["vidgen"], strict=True))
    print(
        json.dumps(
            {
                **vars(options),
                "cpu_seconds": {name: round(value, 4) for name, value in medians.items()},
                "throughput_ratio": round(medians["plain"] / medians["vidgen"], 4),
                "median_of_pairs": round(statistics.median(pairs), 4),
                "hooks_share": f"{hooks_share(medians['vidgen']):.2e}",
            }
        )
    )


if __name__ == "__main__":
    main()
