"""A training step of TF-T2V on images and on videos, against the released way and against plain diffusers.

Images: the layers over time left out, against computed and multiplied by zero. Videos: the loop with the method,
against the same step written plainly for the same ``UNet3DConditionModel``, which reads 81 tokens. Neither side has
spatial conditions. Same optimiser, clipping and losses; no VAE and no image encoder on any side. One process,
alternating steps, medians of CPU time.
``python benchmarks/tf_t2v_training.py [--size 2m]``; ``--memory`` measures peak memory, a process each.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from models import SCHEDULER, TOKENS, WIDTH, make
from torch import Tensor, nn
from training import OPTIONS, RATE, OnLatents, Silent
from vidgen_tf_t2v.branches import over_time
from vidgen_tf_t2v.coherence import temporal_coherence
from vidgen_tf_t2v.method import TFT2V
from vidgen_tf_t2v.networks import ImageTokens

from vidgen_core.data.sample import Batch, Draw, Sample
from vidgen_core.models.backbone import Backbone
from vidgen_core.moments import Moments
from vidgen_core.placement import Placement
from vidgen_core.request import Request
from vidgen_core.run import Run
from vidgen_core.train import TRAINING_HOOKS, optimise
from vidgen_core.training.gradient_checkpointing import gradient_checkpointing
from vidgen_core.training.learner import Learner, choose_trainables

FEATURES, IMAGE_TOKENS, COHERENCE = 64, 4, 0.1
CONFIG = {"trainer": OPTIONS, "seed": 0, "tuned": None, "weights": {}, "model": {}, "placement": {}}


class Given:
    """An image encoder that has looked already."""

    features = FEATURES

    def encode(self, pixels: Tensor) -> Tensor:
        return torch.ones(len(pixels), FEATURES)


def latents_of(samples: int, frames: int, cells: int) -> Tensor:
    return torch.randn(samples, 4, frames, cells, cells, generator=torch.Generator().manual_seed(0))


def plain_step(backbone: Backbone, latents: Tensor) -> Callable[[], None]:
    """What a script of diffusers' classes does in one step on videos."""
    from diffusers import DDPMScheduler, UNet3DConditionModel

    unet = UNet3DConditionModel.from_config(backbone.denoiser.config).train()
    tokens = ImageTokens(FEATURES, IMAGE_TOKENS, WIDTH)
    text = torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1)).expand(len(latents), -1, -1)
    scheduler = DDPMScheduler.from_config({**SCHEDULER, "_class_name": "DDPMScheduler"})
    parameters = [*unet.parameters(), *tokens.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)

    def step() -> None:
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, 1000, (len(latents),))
        noisy = scheduler.add_noise(latents, noise, timesteps)
        context = torch.cat([text, tokens(torch.ones(len(latents), FEATURES))], dim=1)
        prediction = unet(noisy, timesteps, encoder_hidden_states=context).sample.float()
        loss = nn.functional.mse_loss(prediction, noise) + COHERENCE * temporal_coherence(prediction, noise).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def vidgen_step(
    backbone: Backbone, latents: Tensor, folder: Path, stack: ExitStack, told: tuple[str, ...], **options: Any
) -> Callable[[], None]:
    """One step of the loop with the method, accelerate, keyed noise and captions."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, project_dir=str(folder))
    frames, height, width = latents.shape[2:]
    text = torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))
    backbone.encode_text = lambda texts: text.expand(len(texts), -1, -1)  # type: ignore[method-assign]
    method = TFT2V(drop=0.0, drop_all=0.0, drop_to_negative=0.0, coherence_weight=COHERENCE, **options)
    method.encoder = Given()  # type: ignore[assignment]
    moments = Moments({"tf_t2v": method, "objective": OnLatents(latents)}, defaults=TRAINING_HOOKS)
    run = Run(Request((), frames, height * 8, width * 8, 8, 0, 1.0, 1), CONFIG, moments)
    run.place(backbone, Placement(torch.device("cpu"), torch.float32))
    stack.enter_context(backbone.attention_installed("sdpa"))
    stack.enter_context(moments.attach(run=run, backbone=backbone))
    learner = Learner(run, choose_trainables(run)).train()
    optimiser = torch.optim.AdamW(list(learner.trainables.values()), lr=RATE, weight_decay=0.0)
    wrapped, prepared = accelerator.prepare(learner, optimiser)
    count = iter(range(10**6))
    pixels = torch.zeros(frames, 3, 8, 8, dtype=torch.uint8)

    def step() -> None:
        number = next(count)
        numbers = tuple(number * len(latents) + i for i in range(len(latents)))
        samples = [Sample(("a",), (frames,), frames=pixels, number=n) for n in numbers]
        batch = Batch(samples, Draw(numbers, number, 0, 0, 0.0, 0), told=told)
        optimise(wrapped, iter([batch]), prepared, accelerator, number, CONFIG, Silent())  # type: ignore[arg-type]

    return step


@contextmanager
def multiplied_by_zero(backbone: Backbone) -> Iterator[None]:
    """Every layer over time is computed and counts nothing, as released."""

    def nothing(module: nn.Module, arguments: Any, out: Any) -> Any:
        y = out[0] if isinstance(out, tuple) else out
        x = arguments[0] + 0.0 * (y - arguments[0])
        return (x,) if isinstance(out, tuple) else x

    with ExitStack() as stack:
        for _, layer in over_time(backbone.denoiser):
            stack.callback(layer.register_forward_hook(nothing).remove)
        yield


def step_of(side: str, options: argparse.Namespace, folder: Path, stack: ExitStack) -> Callable[[], None]:
    """The step of one side by its name."""
    images = latents_of(options.images, 1, options.cells)
    videos = latents_of(options.videos, options.frames, options.cells)
    backbone = make(options.size)
    if side == "images, multiplied by zero":
        step = vidgen_step(backbone, images, folder, stack, ("text",), branch="motion")
        stack.enter_context(multiplied_by_zero(backbone))
        return step
    if side == "images, spatial only":
        return vidgen_step(backbone, images, folder, stack, ("text",))
    if side == "videos, plain diffusers":
        return plain_step(backbone, videos)
    if side == "videos, checkpointing":
        stack.enter_context(gradient_checkpointing(backbone.denoiser))
    return vidgen_step(backbone, videos, folder, stack, ("text", "image"))


TIMED = ("images, multiplied by zero", "images, spatial only", "videos, plain diffusers", "videos")
MEASURED = (*TIMED, "videos, checkpointing")


def memory(side: str, options: argparse.Namespace) -> None:
    """Print the growth of one side's process over two steps, in MiB, and its seconds of CPU time."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        step = step_of(side, options, Path(folder), stack)
        idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.process_time()
        step()
        step()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = (time.process_time() - start) / 2
    print(json.dumps({"mib": round((peak - idle) / 1024, 1), "cpu_seconds": round(seconds, 3)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="2m")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--videos", type=int, default=1, help="videos of a step")
    parser.add_argument("--images", type=int, default=16, help="images of a step")
    parser.add_argument("--cells", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--memory", nargs="?", const="all", help="measure memory; or only this side, in this process")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory and options.memory != "all":
        memory(options.memory, options)
        return
    if options.memory:
        for side in MEASURED:
            command = [
                sys.executable,
                __file__,
                "--memory",
                side,
                "--size",
                options.size,
                "--cells",
                str(options.cells),
            ]
            command += ["--frames", str(options.frames), "--videos", str(options.videos)]
            command += ["--images", str(options.images)]
            print(side, subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
        return
    seconds: dict[str, list[float]] = {side: [] for side in TIMED}
    with TemporaryDirectory() as folder, ExitStack() as stack:
        steps = {side: step_of(side, options, Path(folder), stack) for side in TIMED}
        for step in steps.values():
            step()
        for _ in range(options.repeats):
            for side, step in steps.items():
                start = time.process_time()
                step()
                seconds[side].append(time.process_time() - start)
    print(json.dumps(vars(options)))
    for kind, (slow, fast) in (("images", TIMED[:2]), ("videos", TIMED[2:])):
        pairs = [a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)]
        medians = {side: round(statistics.median(seconds[side]), 4) for side in (slow, fast)}
        print(json.dumps({kind: medians, "samples_per_second_ratio": round(statistics.median(pairs), 3)}))


if __name__ == "__main__":
    main()
