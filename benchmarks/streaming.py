"""StreamingT2V: that neither memory nor the time of a chunk grows with the video, and what a continuing chunk costs.

``memory``: real runs, each in processes of its own: live tensors, resident memory, time of a chunk, first frames.
``work``: floating-point operations of a step at ModelScope's size, on the meta device.
``time``: measured steps of smaller networks, alternating with the plain model's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from models import TOKENS, make
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from vidgen_streaming.cam import WIDTHS, FeatureEncoder, Mergers
from vidgen_streaming.method import Streaming
from vidgen_streaming.networks import Networks

from vidgen_core import hookimpl, placement
from vidgen_core.models.backbone import Backbone
from vidgen_core.run import Run, Window, opened
from vidgen_core.sampling import Step, denoiser
from vidgen_core.testing import LiveTensors, make_run, request

# ----------------------------------------------------------------------------------------------------- memory


class Chunks:
    """Notes, as every chunk is remembered, where the process stands."""

    def __init__(self, video: Path, live: LiveTensors | None) -> None:
        self.video, self.live = video, live
        self.rows: list[tuple[int, float, float, float]] = []  # frames, CPU seconds, resident MiB, peak of tensors MiB
        self.on_disk = 0  # frames in the file when the second chunk begins

    @hookimpl
    def on_step(self, window: Window, step: Step) -> None:
        if window.index == 1 and step.index == 0:
            from vidgen_core.video import VideoReader

            self.on_disk = len(VideoReader(self.video, "pyav"))

    @hookimpl
    def remember(self, window: Window) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        most = self.live.most if self.live else 0
        self.rows.append((window.keep.stop, time.process_time(), pages * 4096 / 2**20, most / 2**20))
        if self.live:
            self.live.most = self.live.now


def one(arguments: list[str], watched: bool) -> None:
    """Make one video and print what was noted."""
    from vidgen_core.config import compose
    from vidgen_core.run import generate

    torch.set_num_threads(1)
    live = LiveTensors() if watched else None
    with TemporaryDirectory() as folder, ExitStack() as stack:
        chunks = Chunks(Path(folder) / "out/video.mp4", live)
        if live is not None:
            stack.enter_context(live)
        generate(compose(["method=streaming", f"output.dir={folder}/out", *arguments]), {"chunks": chunks})
        end = time.process_time() - chunks.rows[-1][1]
    print(json.dumps({"rows": chunks.rows, "on_disk": chunks.on_disk, "after": end}))


def memory(options: argparse.Namespace) -> None:
    """Print a table of each length: one run for the process, another one for the tensors."""
    shared = [f"model={options.model}", f"num_inference_steps={options.steps}"]
    shared += [f"height={options.side}", f"width={options.side}"]
    for frames in options.frames:
        found = []
        for watch in ([], ["--watch"]):
            command = [sys.executable, __file__, "memory", *watch, "--only", *shared, f"num_frames={frames}"]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found.append(json.loads(out.splitlines()[-1]))
        process, tensors = (run["rows"] for run in found)
        print(f"\n{frames} frames; {found[0]['on_disk']} on disk as the second chunk begins; ", end="")
        print(f"{found[0]['after']:.1f} s of CPU time after the last chunk\n")
        print("| frames | CPU ms a chunk, median | resident MiB | most MiB of tensors |\n" + "| --- " * 4 + "|")
        start = 1
        for stop in range(1, len(process)):
            last = stop + 1 == len(process)
            if not last and process[stop][0] // options.every == process[stop + 1][0] // options.every:
                continue
            median = statistics.median(process[i][1] - process[i - 1][1] for i in range(start, stop + 1))
            most = max(row[3] for row in tensors[start : stop + 1])
            print(f"| {process[stop][0]} | {1000 * median:.0f} | {process[stop][2]:.1f} | {most:.3f} |", flush=True)
            start = stop + 1


# ------------------------------------------------------------------------------------------------------- cost

SHAPES = {
    "golden": (8, 8, (8, 16, 24, 32)),
    "moving_shapes": (16, 16, (16, 32, 64)),
    "130m": (16, 16, WIDTHS),
    "modelscope": (32, 16, WIDTHS),
}
"""Network -> cells along a side of its latents, frames of a chunk, widths of the embedding of known frames."""

GOLDEN = {"block_out_channels": (64, 64), "attention_head_dim": 16, "cross_attention_dim": 32}
"""The U-Net of the golden case of one chunk."""


class Drawn(Streaming):
    """The method with random weights, made on the model's device, and an embedding of the anchor that is given."""

    def made(self, run: Run, backbone: Backbone, parts: Any, source: str) -> Networks:
        unet, networks = backbone.denoiser, Networks()
        with torch.device(backbone.device):
            networks.cam = FeatureEncoder(type(unet).from_config(unet.config), self.embedding_widths or WIDTHS)
            networks.mergers = Mergers(unet)
            networks.add_apm(len(backbone.text_attention.layers), TOKENS, unet.config.cross_attention_dim, 1024)
        return networks

    def anchor_encoder(self, run: Run, backbone: Backbone, parts: Any) -> Callable[[Tensor], Tensor]:
        return lambda images: torch.zeros(len(images), 1024, device=images.device)


class Stream:
    """The first chunks of a video, whose steps can be taken one by one, in any order and again."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.denoise = denoiser(run)
        self.windows = [window for group in run.groups for window in group.windows]

    def begin(self, index: int) -> None:
        """Prepare a chunk; the frames before it are random."""
        if index:
            shape = (1, len(self.windows[index - 1].keep), 3, self.run.request.height, self.run.request.width)
            self.run.moments.remember(run=self.run, window=None, latents=None, frames=torch.rand(shape))
        self.run.prepare(self.windows[index])

    def step(self, index: int) -> None:
        """One prediction of a chunk."""
        window = self.windows[index]
        assert window.latents is not None
        self.denoise(window, Step(0, 1, torch.tensor(500), window, None, window.latents))


@contextmanager
def stream(backbone: Backbone, size: str, guidance: float) -> Iterator[Stream]:
    """Chunks, half of whose frames are known, inside the context; with guidance of 1 a step is one sample."""
    cells, frames, widths = SHAPES[size]
    method = Drawn(chunk=frames, overlap=frames // 2, embedding_widths=widths)
    side = cells * backbone.scale_factor
    wanted = request("a", num_frames=2 * frames, height=side, width=side, guidance_scale=guidance)
    run = make_run(wanted, {"streaming": method}, {"tuned": None, "weights": {}, "model": {}})
    with ExitStack() as stack:
        texts = torch.randn(2, TOKENS, backbone.denoiser.config.cross_attention_dim)
        stack.enter_context(patch.object(backbone, "encode_text", lambda wanted: texts[: len(wanted)]))
        if backbone.device.type == "meta":
            stack.enter_context(patch.object(placement, "placed", lambda *_: nullcontext()))
        stack.enter_context(opened(run, backbone))
        yield Stream(run)


def network(size: str, device: str = "cpu") -> Backbone:
    """A backbone of random weights, or that of Moving Shapes."""
    if size == "moving_shapes":
        from vidgen_core.models.unet3d import load

        return load("pkg://vidgen_moving_shapes/weights/text_to_video")
    if size == "golden":
        from diffusers import UNet3DConditionModel

        kinds = {"down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D")}
        kinds |= {"up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D")}
        return Backbone(UNet3DConditionModel(**kinds, **GOLDEN))
    return make(size, device=device)


def flops(call: Callable[[], Any]) -> float:
    """Floating-point operations in units of 10^9; a multiplication with an addition counts as two."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


def work(options: argparse.Namespace) -> None:
    """Count the operations of one sample of a step, and what comes once a chunk and once a video."""
    device = "meta" if options.size == "modelscope" else "cpu"
    backbone, (cells, frames, _) = network(options.size, device), SHAPES[options.size]
    unet = backbone.denoiser
    noisy = torch.empty(1, 4, frames, cells, cells, device=device)
    text = torch.empty(1, TOKENS, unet.config.cross_attention_dim, device=device)
    found = {"stock U-Net": flops(lambda: unet(noisy, torch.tensor(500), text))}
    with stream(backbone, options.size, guidance=1) as chunks:
        chunks.begin(0)
        chunks.step(0)
        found["plain chunk"] = flops(lambda: chunks.step(0))
        first = flops(lambda: chunks.begin(1)) + flops(lambda: chunks.step(1))
        found["continuing chunk"] = step = flops(lambda: chunks.step(1))
        found["once a chunk"] = flops(lambda: chunks.begin(2)) + flops(lambda: chunks.step(2)) - step
        found["once a video"] = first - step - found["once a chunk"]
    print(options.size, json.dumps({name: round(value, 2) for name, value in found.items()}))
    for peer in ("stock U-Net", "plain chunk"):
        whole = step + found["once a chunk"] / 2 / options.steps
        print(f"to the {peer}: {step / found[peer]:.4f} a step; {whole / found[peer]:.4f} with ", end="")
        print(f"what comes once in {options.steps} guided steps")


def clock(options: argparse.Namespace) -> None:
    """Alternate guided steps of a plain and of a continuing chunk; the first pair is a warm-up."""
    torch.set_num_threads(1)
    with stream(network(options.size), options.size, guidance=7.5) as chunks:
        seconds: list[tuple[float, float]] = []
        for index in (0, 1):
            chunks.begin(index)
            chunks.step(index)
        for _ in range(options.repeats):
            times = [time.process_time()]
            for index in (0, 1):
                chunks.step(index)
                times.append(time.process_time())
            seconds.append((times[1] - times[0], times[2] - times[1]))
    plain, continuing = (statistics.median(side) for side in zip(*seconds, strict=True))
    pairs = statistics.median(c / p for p, c in seconds)
    print(
        f"{options.size}: plain {plain:.4f} s, continuing {continuing:.4f} s of CPU time a guided step, medians of ",
        end="",
    )
    print(f"{options.repeats}; ratio {continuing / plain:.3f}, median of pairs {pairs:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sections = parser.add_subparsers(dest="section", required=True)
    section = sections.add_parser("memory")
    section.add_argument("--frames", type=int, nargs="+", default=[64, 600, 1200])
    section.add_argument("--every", type=int, default=200, help="frames between the lines of a table")
    section.add_argument("--model", default="tiny")
    section.add_argument("--steps", type=int, default=2)
    section.add_argument("--side", type=int, default=64, help="height and width in pixels")
    section.add_argument("--only", nargs="+", help="arguments of vidgen for one run in this process")
    section.add_argument("--watch", action="store_true", help="with --only: its tensors")
    for name in ("work", "time"):
        section = sections.add_parser(name)
        section.add_argument("--size", default="modelscope" if name == "work" else "moving_shapes", choices=SHAPES)
        section.add_argument("--steps", type=int, default=50, help="of a chunk")
        section.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    if options.section == "memory":
        one(options.only, options.watch) if options.only else memory(options)
    else:
        {"work": work, "time": clock}[options.section](options)


if __name__ == "__main__":
    main()
