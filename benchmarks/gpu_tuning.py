"""One-shot tuning in Stable Diffusion 1.5's geometry on a CUDA device: seconds and peak memory, and those of an edit.

24 frames of 512x512, random weights, bf16: 500 steps of tuning on cached latents, inversion and 50 guided steps. The
published figures, on an A100, are about ten minutes and one minute. ``python benchmarks/gpu_tuning.py``;
``--size small --device cpu --frames 4 --side 64 --steps 4 --sampling 2`` tries the script out anywhere.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

import vidgen_core as vg
from vidgen_core.api import train
from vidgen_core.models import tiny
from vidgen_core.models.unet2d import ImageBackbone
from vidgen_core.video_writer import VideoWriter

UNET = {"cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64}
VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
}
TEXT = {"vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
TEXT |= {"num_attention_heads": 12, "max_position_embeddings": 77, "eos_token_id": 258, "pad_token_id": 258}
"""Stable Diffusion 1.5: the U-Net's other values are diffusers' defaults; the tokens are those of bytes."""


def model(size: str, folder: Path) -> None:
    """Write random weights of this size in the published layout."""
    if size == "small":
        tiny.build_image().save(folder, torch.float32)
        return
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    parts = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE), CLIPTextModel(CLIPTextConfig(**TEXT))
    ImageBackbone(*parts, tiny.byte_tokenizer(), scheduler_config=tiny.SCHEDULER).save(folder, torch.float16)


def clip(file: Path, frames: int, side: int) -> None:
    """A video of smooth random colours."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((1, 3, frames, 8, 8), dtype=np.float32))
    smooth = torch.nn.functional.interpolate(coarse, (frames, side, side), mode="trilinear")[0]
    writer = VideoWriter(file, fps=8)
    writer.write((smooth.permute(1, 2, 3, 0) * 255).byte().numpy())
    writer.close()


def timed(call: Callable[[], Any], cuda: bool) -> tuple[float, float]:
    """Seconds of a call, and GiB at the peak."""
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start, torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="sd15", choices=("sd15", "small"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--steps", type=int, default=500, help="of tuning")
    parser.add_argument("--sampling", type=int, default=50, help="steps of the inversion and of the edit")
    options = parser.parse_args()
    cuda = options.device == "cuda"
    with TemporaryDirectory() as place:
        folder = Path(place)
        model(options.size, folder / "model")
        clip(folder / "clip.mp4", options.frames, options.side)
        shape = {"num_frames": options.frames, "height": options.side, "width": options.side}
        base = {"method": "tune_a_video", "model": "sd15", "model.path": str(folder / "model"), **shape}
        base |= {"placement.device": options.device}

        def tune(steps: int) -> tuple[float, float]:
            keys = {"video": str(folder / "clip.mp4"), "prompt": "colours", "output.dir": str(folder / f"{steps}")}
            keys |= {"trainer.max_steps": steps, "trainer.mixed_precision": "bf16", "trainer.workers": 0}
            return timed(lambda: train(**base, **keys), cuda)

        def edit(steps: int, name: str) -> tuple[float, float]:
            keys = {"prompt": "lights", "num_inference_steps": steps, "placement.dtype": "bf16"}
            keys |= {"tuned": str(folder / str(options.steps)), "output.dir": str(folder / name)}
            return timed(lambda: vg.generate(**base, **keys), cuda)

        # A step is the slope between two lengths, so that loading and the first kernels do not count in it.
        short = max(options.steps // 10, 1)
        tune(short)
        (begun, _), (whole, peak) = tune(short + 1), tune(options.steps)
        found = {"tuning": {"seconds": whole, "a_step": (whole - begun) / (options.steps - short - 1), "gib": peak}}
        edit(2, "warm")
        whole, peak = edit(options.sampling, "edit")
        found["edit with inversion"] = {"seconds": whole, "gib": peak}
        whole, peak = edit(options.sampling, "again")
        found["edit of an inverted clip"] = {"seconds": whole, "gib": peak}
    name = torch.cuda.get_device_name() if cuda else "CPU"
    print(name, json.dumps({row: {k: round(v, 4) for k, v in values.items()} for row, values in found.items()}))


if __name__ == "__main__":
    main()
