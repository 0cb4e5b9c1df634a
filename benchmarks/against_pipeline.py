"""Time of a guided denoising against diffusers' TextToVideoSDPipeline: same weights, noise, steps and scheduler.

One process, alternating runs, medians. ``python benchmarks/against_pipeline.py [--size 130m] [--dtype fp32]``
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from models import make, pipeline, pipeline_job, vidgen_job

from vidgen_core.placement import DTYPES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="130m")
    parser.add_argument("--dtype", default="fp32", choices=DTYPES, help="vidgen's; the pipeline always runs in fp32")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--cells", type=int, default=16, help="height and width of the latents")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    peer = pipeline(make(options.size))
    ours = make(options.size, DTYPES[options.dtype])
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, options.frames, options.cells, options.cells, generator=generator)
    jobs = {
        "pipeline": lambda: pipeline_job(peer, latents, options.steps),
        "vidgen": lambda: vidgen_job(ours, latents, options.steps, {"dtype": options.dtype}),
    }
    results = {name: job().float() for name, job in jobs.items()}  # the first run of each is a warm-up
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    wall: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(options.repeats):
        for name, job in jobs.items():
            start, start_wall = time.process_time(), time.perf_counter()
            job()
            seconds[name].append(time.process_time() - start)
            wall[name].append(time.perf_counter() - start_wall)
    scale = results["pipeline"].abs().max()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    walls = {name: statistics.median(values) for name, values in wall.items()}
    pairs = [v / p for v, p in zip(seconds["vidgen"], seconds["pipeline"], strict=True)]
    print(
        json.dumps(
            {
                **vars(options),
                "cpu_seconds": {name: round(value, 3) for name, value in medians.items()},
                "wall_seconds": {name: round(value, 3) for name, value in walls.items()},
                "cpu_ratio": round(medians["vidgen"] / medians["pipeline"], 4),
                "wall_ratio": round(walls["vidgen"] / walls["pipeline"], 4),
                "cpu_ratio_of_pairs": [round(pair, 4) for pair in pairs],
                "max_error_relative": float((results["vidgen"] - results["pipeline"]).abs().max() / scale),
            }
        )
    )


if __name__ == "__main__":
    main()
