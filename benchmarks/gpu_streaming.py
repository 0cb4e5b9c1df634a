"""StreamingT2V in ModelScope's geometry on a CUDA device: seconds and peak memory as the video grows.

256x256, 50 steps, guidance 7.5, bf16, random weights; frames are decoded and dropped. Beside it the published seconds
of an A100, in float32. ``python benchmarks/gpu_streaming.py [--frames 24 80 240 600]``
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from models import make, texts
from streaming import Drawn
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from vidgen_core.models.backbone import Backbone
from vidgen_core.models.image_encoder import ImageEncoder
from vidgen_core.run import Run, frames, opened
from vidgen_core.testing import make_run, request

PUBLISHED = {24: 40, 56: 75, 80: 110, 240: 340, 600: 860, 1200: 1710}
"""Frames -> seconds on an A100 with 80 GB, both stages in 256x256."""

VIT_H = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
VIT_H |= {"patch_size": 14, "image_size": 224, "projection_dim": 1024, "hidden_act": "gelu"}


class Whole(Drawn):
    """With an image encoder of the published size for the anchor."""

    def anchor_encoder(self, run: Run, backbone: Backbone, parts: Any) -> Callable[[Tensor], Tensor]:
        with torch.device(backbone.device):
            tower = CLIPVisionModelWithProjection(CLIPVisionConfig(**VIT_H))
        return ImageEncoder(torch.nn.Module.to(tower, backbone.dtype)).encode


def video(backbone: Backbone, count: int, options: argparse.Namespace) -> tuple[float, float]:
    """Seconds of a video, once everything is loaded, and GiB at the peak."""
    sizes = {"num_frames": count, "height": options.side, "width": options.side}
    wanted = request("a", guidance_scale=7.5, num_inference_steps=options.steps, **sizes)
    placement = {"device": options.device, "dtype": "bf16"}
    config = {"tuned": None, "weights": {}, "model": {}, "scheduler": {"eta": 1.0}, "placement": placement}
    run = make_run(wanted, {"streaming": Whole(chunk=16, overlap=8)}, config)
    cuda = options.device == "cuda"
    with opened(run, backbone):
        run.texts.put(["a", ""], torch.cat(texts(options.device)))
        if cuda:
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        start = time.perf_counter()
        delivered = sum(len(block.span) for block in frames(run))
        seconds = time.perf_counter() - start
    assert delivered == count
    return seconds, torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[24, 80, 240, 600])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--size", default="modelscope")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    backbone = make(options.size, torch.bfloat16, vae=True, device=options.device)
    video(backbone, 24, argparse.Namespace(**{**vars(options), "steps": 2}))  # kernels are chosen
    print("| frames | seconds | a frame | published | peak GiB |\n| --- | --- | --- | --- | --- |")
    for count in options.frames:
        seconds, peak = video(backbone, count, options)
        published = PUBLISHED.get(count, "")
        print(f"| {count} | {seconds:.1f} | {seconds / count:.3f} | {published} | {peak:.2f} |", flush=True)


if __name__ == "__main__":
    main()
