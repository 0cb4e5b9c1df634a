"""Memory and time of randomized blending as the video grows: the wavefront against going step by step over the video.

The network is left out (a chunk is predicted by a copy), so what is measured is all that sampling itself holds and
does: solvers, noise, cuts and latents. ``python benchmarks/blending.py [--frames 100 400] [--steps 10]``
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable

import torch
from torch import Tensor
from vidgen_streaming.blending import RandomizedBlending
from vidgen_streaming.sdedit import Sdedit

from vidgen_core.models import tiny
from vidgen_core.run import Run, Window, lay_out
from vidgen_core.sampling import Step
from vidgen_core.testing import make_run, request

CHUNK, OVERLAP = 24, 8
BACKBONE = tiny.build(trained_frames=CHUNK)


class Live:
    """The most bytes that tensors held at a prediction, less what they held before; every seventh is looked at."""

    def __init__(self) -> None:
        self.calls, self.most, self.before = 0, 0, 0
        self.before = self.now()

    def now(self) -> int:
        tensors = (found for found in gc.get_objects() if type(found) is Tensor or type(found) is torch.nn.Parameter)
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        return sum(storages.values()) - self.before

    def seen(self) -> None:
        self.calls += 1
        if self.calls % 7 == 0:
            self.most = max(self.most, self.now())


def wavefront(run: Run, blending: RandomizedBlending, denoise: Callable[[Window, Step], Tensor]) -> None:
    """Windows leave as they are done."""
    for window in run.moments.sample(run=run, group=run.groups[0], denoise=denoise):
        window.release()


def step_by_step(run: Run, blending: RandomizedBlending, denoise: Callable[[Window, Step], Tensor]) -> None:
    """Every step over the whole video with one solver, as published, with the same noise and cuts."""
    windows, frames = run.groups[0].windows, range(run.request.num_frames)
    whole = Window(frames, frames)
    solver = blending.scheduler(run)
    x = run.moments.start_latents(run=run, window=whole)
    for i, t in enumerate(solver.timesteps):
        prediction = torch.empty_like(x)
        for k, window in enumerate(windows):
            start, stop = window.span.start, window.span.stop
            cut = blending.cut(run, windows, k, i)
            step = Step(i, len(solver.timesteps), t, window, solver, x[:, :, start:stop].contiguous())
            prediction[:, :, cut:stop] = denoise(window, step)[:, :, cut - start :]
        noise = run.noise(whole, i)
        x = solver.step(prediction, t, x, variance_noise=noise, return_dict=False)[0]


WAYS = {"wavefront": wavefront, "step by step": step_by_step}


def one(way: str, frames: int, cells: tuple[int, int], steps: int) -> tuple[float, float]:
    """MiB that tensors held at most, and seconds of CPU time for each step of each chunk."""
    sdedit = Sdedit()
    sdedit.clean = lambda span: torch.zeros(1, 4, len(span), *cells)
    blending = RandomizedBlending(CHUNK, OVERLAP, scheduler=sdedit.scheduler)
    sizes = {"height": 8 * cells[0], "width": 8 * cells[1], "num_inference_steps": steps}
    methods = {"sdedit": sdedit, "blending": blending}

    def ran(seen: Callable[[], None]) -> Run:
        def denoise(window: Window, step: Step) -> Tensor:
            seen()
            return step.model_input.clone()

        run = make_run(request(num_frames=frames, **sizes), methods)
        lay_out(run, BACKBONE)
        WAYS[way](run, blending, denoise)
        return run

    start = time.process_time()
    run = ran(lambda: None)
    seconds = time.process_time() - start
    live = Live()
    ran(live.seen)  # by itself: to look at every tensor takes longer than what is looked at
    return live.most / 2**20, seconds / (steps * len(run.groups[0].windows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, nargs="+", default=[100, 400, 1200])
    parser.add_argument("--cells", type=int, nargs=2, default=[90, 160])
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    frame = 4 * 4 * options.cells[0] * options.cells[1] / 2**20
    print("| way | " + " | ".join(f"{frames} frames" for frames in options.frames) + " |")
    print("| --- |" + " --- |" * len(options.frames))
    with torch.inference_mode():
        for way in WAYS:
            found = [one(way, frames, tuple(options.cells), options.steps) for frames in options.frames]
            cells = [f"{mib:.0f} MiB ({mib / frame:.0f} frames' latents), {1000 * s:.0f} ms" for mib, s in found]
            print(f"| {way} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
