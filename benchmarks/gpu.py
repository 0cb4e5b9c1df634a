"""ModelScope's geometry on a CUDA device: ms a guided step against the arithmetic floor, end to end against diffusers.

16 frames of 256x256 in bf16, random weights. ``python benchmarks/gpu.py [--steps 50] [--repeats 5]``
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from models import make, pipeline, pipeline_job, vidgen_job

FLOOR_MS = 12.4
"""9.77 TFLOP a step at 790 TFLOP/s, an H200's measured bf16 rate."""

WAYS = ("none", "graph", "blocks", "blocks+graph")


def seconds(job: object) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    job()  # type: ignore[operator]
    torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", default="modelscope")
    options = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 16, 32, 32, generator=generator)
    peer = pipeline(make(options.size, torch.bfloat16, device="cuda"))
    ours = make(options.size, torch.bfloat16, device="cuda")

    def vidgen(way: str, steps: int) -> object:
        return vidgen_job(ours, latents, steps, {"device": "cuda", "dtype": "bf16", "compile": way})

    def diffusers(steps: int) -> object:
        return pipeline_job(peer, latents.cuda(), steps)

    jobs = {"diffusers": diffusers, **{f"vidgen {way}": lambda n, way=way: vidgen(way, n) for way in WAYS}}
    # A step is the slope between two lengths, so that capture, compilation and set-up do not count in it.
    short, long = max(options.steps // 5, 2), options.steps
    for job in jobs.values():
        job(2)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    for _ in range(options.repeats):
        for name, job in jobs.items():
            times[name].append((seconds(lambda j=job: j(short)), seconds(lambda j=job: j(long))))
    result: dict[str, dict[str, float]] = {}
    for name, pairs in times.items():
        step = 1000 * statistics.median((b - a) / (long - short) for a, b in pairs)
        whole = statistics.median(b for _, b in pairs)
        result[name] = {"ms_a_step": round(step, 2), "of_floor": round(FLOOR_MS / step, 3), "seconds": round(whole, 3)}
    base = result["diffusers"]
    for row in result.values():
        row["step_speed_up"] = round(base["ms_a_step"] / row["ms_a_step"], 2)
        row["end_to_end_speed_up"] = round(base["seconds"] / row["seconds"], 2)
    reference = diffusers(2).float().cpu()  # type: ignore[attr-defined]
    for way in WAYS:
        error = (vidgen(way, 2).float().cpu() - reference).abs().max() / reference.abs().max()  # type: ignore[attr-defined]
        result[f"vidgen {way}"]["max_error_relative"] = round(float(error), 5)
    print(torch.cuda.get_device_name(), json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
