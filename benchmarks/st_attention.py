"""Sparse spatio-temporal attention three ways: all scores made, keys gathered and concatenated, and as vidgen does it.

The inflated U-Net of channels (32, 64, 64), 4 heads, latents of 32 x 32 cells and 77 text tokens; CPU time of a forward
and of a tuning step (gradients of queries and temporal attention), alternating in one process, medians.
``python benchmarks/st_attention.py [--frames 24]``; ``--memory`` measures peak memory, a process each; ``--alone`` the
attention by itself, 64 wide, on 1024 tokens.
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
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from vidgen_tune_a_video import st_attention as ours
from vidgen_tune_a_video.inflated import st_attention
from vidgen_tune_a_video.method import TRAINED

from vidgen_core.attention import BACKENDS
from vidgen_core.conditioning import Condition, PerFrameText
from vidgen_core.models.unet2d import ImageBackbone

SIDES = ("materialised", "gathered", "vidgen")
TOKENS, WIDTH = 77, 64


def gathered(attend: Any, q: Tensor, k: Tensor, v: Tensor, *more: Any) -> Tensor:
    """The published gather and concatenation, with a fused kernel in the place of the scores."""
    before = torch.arange(q.shape[1]).sub(1).clamp(min=0)
    k, v = (torch.cat([x[:, :1].expand_as(x), x[:, before]], dim=3) for x in (k, v))
    return attend(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)).view_as(q)


def network(side: str, stack: ExitStack) -> ImageBackbone:
    """The inflated network with one side's attention, for as long as the stack is open."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(32, 64, 64),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
    )
    backbone = ImageBackbone(unet)
    stack.enter_context(backbone.attention_installed("math" if side == "materialised" else "sdpa"))
    stack.enter_context(st_attention(backbone, seed=0))
    backbone.requires_grad_(False)
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(any(part in name for part in TRAINED))
    return backbone


def work(side: str, frames: int, train: bool, alone: bool, stack: ExitStack) -> Callable[[], Any]:
    """One side's forward, or its forward and backward."""

    def chosen() -> Any:
        return patch.object(ours, "_merged", gathered) if side == "gathered" else ExitStack()

    if alone:
        shape = (1, frames, 4, 1024, 16)
        q, k, v = (torch.randn(shape, requires_grad=train) for _ in range(3))
        way = {"materialised": ours._materialised, "gathered": gathered, "vidgen": ours._merged}[side]
        attend = BACKENDS["math" if side == "materialised" else "sdpa"]

        def call() -> Any:
            out = way(attend, q, k, v)
            return torch.autograd.grad(out.sum(), (q, k, v)) if train else out

        return call
    backbone = network(side, stack)
    latents = torch.randn(1, 4, frames, 32, 32)
    text = PerFrameText(torch.randn(1, TOKENS, WIDTH), torch.zeros(1, frames, dtype=torch.long))

    def step() -> Any:
        with chosen(), torch.set_grad_enabled(train):
            inputs = backbone.prepare(Condition(text=text), ("cond",))
            loss = backbone.predict(latents, torch.tensor(500), inputs).square().mean()
            if train:
                loss.backward()
                backbone.zero_grad()

    return step


def measure(options: argparse.Namespace) -> None:
    """Print each side's median CPU time and its ratio to vidgen's."""
    for train in (False, True):
        with ExitStack() as stack:
            steps = {side: work(side, options.frames, train, options.alone, stack) for side in SIDES}
            seconds: dict[str, list[float]] = {side: [] for side in SIDES}
            for repeat in range(options.repeats + 1):
                for side, step in steps.items():
                    start = time.process_time()
                    step()
                    if repeat:  # the first is a warm-up
                        seconds[side].append(time.process_time() - start)
        medians = {side: statistics.median(values) for side, values in seconds.items()}
        ratios = {side: round(medians["vidgen"] / medians[side], 3) for side in SIDES[:2]}
        print(json.dumps({"train": train, "frames": options.frames, "cpu_seconds": medians, "vidgen_to": ratios}))


def memory(options: argparse.Namespace, train: bool) -> None:
    """Print how much one side's process grows, in MiB."""
    with ExitStack() as stack:
        step = work(options.memory, options.frames, train, options.alone, stack)
        with ExitStack() as small:
            work(options.memory, 3, train, options.alone, small)()  # what the libraries themselves take
        idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        step()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"side": options.memory, "train": train, "frames": options.frames, "mib": (peak - idle) // 1024}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--train", action="store_true", help="with --memory and one side")
    parser.add_argument("--memory", nargs="?", const="all", help="measure memory; or only this side, in this process")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory in SIDES:
        memory(options, options.train)
    elif options.memory:
        for train in ([], ["--train"]):
            for side in SIDES:
                command = [sys.executable, __file__, "--memory", side, "--frames", str(options.frames), *train]
                command += ["--alone"] if options.alone else []
                print(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    else:
        measure(options)


if __name__ == "__main__":
    main()
