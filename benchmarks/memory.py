"""Peak memory of a whole run, decode included, against diffusers' pipeline, as frames grow.

Each run has its own process. ``python benchmarks/memory.py [--size 130m] [--frames 16 32 64]``.
Memory is peak resident size less that of the loaded, idle process.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys

LOW = {"guidance": "two_pass", "feed_forward_chunks": 8, "vae_slice": 1}


def one(side: str, size: str, frames: int, cells: int, steps: int) -> None:
    """Run one side once and print its growth in MiB and its seconds of CPU time."""
    import time

    import torch
    from models import make, pipeline, pipeline_job, vidgen_job

    torch.set_num_threads(1)
    backbone = make(size, vae=True)
    latents = torch.randn(1, 4, frames, cells, cells, generator=torch.Generator().manual_seed(0))
    pipe = pipeline(backbone) if side == "pipeline" else None
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    if pipe is not None:
        pipeline_job(pipe, latents, steps, decode=True)
    else:
        vidgen_job(backbone, latents, steps, LOW if side == "vidgen low memory" else {}, decode=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"mib": (peak - idle) / 1024, "cpu_seconds": time.process_time() - start}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="130m")
    parser.add_argument("--frames", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--cells", type=int, default=16)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--side", help="run only this side, in this process")
    options = parser.parse_args()
    if options.side:
        one(options.side, options.size, options.frames[0], options.cells, options.steps)
        return
    table: dict[str, dict[int, dict[str, float]]] = {}
    for side in ("pipeline", "vidgen", "vidgen low memory"):
        for frames in options.frames:
            command = [sys.executable, __file__, "--side", side, "--size", options.size, "--frames", str(frames)]
            command += ["--cells", str(options.cells), "--steps", str(options.steps)]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            table.setdefault(side, {})[frames] = json.loads(out.splitlines()[-1])
    low, high = min(options.frames), max(options.frames)
    print("| side | " + " | ".join(f"{f} frames" for f in options.frames) + " | MiB a frame | s a frame |")
    print("| --- |" + " --- |" * (len(options.frames) + 2))
    for side, rows in table.items():
        cells = [f"{rows[f]['mib']:.0f} MiB, {rows[f]['cpu_seconds']:.1f} s" for f in options.frames]
        per = [(rows[high][key] - rows[low][key]) / max(high - low, 1) for key in ("mib", "cpu_seconds")]
        print(f"| {side} | " + " | ".join(cells) + f" | {per[0]:.1f} | {per[1]:.3f} |")


if __name__ == "__main__":
    main()
