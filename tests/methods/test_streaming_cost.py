"""What a chunk costs that continues a video, and that nothing grows with the number of chunks; no clock decides."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from vidgen_streaming.cam import Merger
from vidgen_streaming.method import build

from vidgen_core import hookimpl
from vidgen_core.models import tiny
from vidgen_core.run import frames, opened
from vidgen_core.testing import LiveTensors, make_run, request

DRAWN = {
    "tuned": None,
    "weights": {},
    "model": {"untrained": True, "image_encoder": "pkg://vidgen_moving_shapes/weights/clip"},
}


@pytest.fixture(scope="module")
def backbone():
    return tiny.build()


def flops(call) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def watched(backbone, observer, **wanted: int) -> None:
    """A long video in chunks of 4 frames, 2 of them known, before the eyes of an observer."""
    methods = {"streaming": build(chunk=4, overlap=2), "observer": observer}
    run = make_run(request(**wanted), methods, DRAWN)
    with opened(run, backbone):
        for _ in frames(run):
            pass


def test_every_step_that_continues_costs_the_same_and_little_more_than_the_stock_network(backbone) -> None:
    class Work:
        """Operations of the second step of every chunk: what comes once a chunk is in the first."""

        def __init__(self) -> None:
            self.before, self.steps = 0, []

        @hookimpl
        def on_step(self, step) -> None:
            so_far = counter.get_total_flops()
            if step.index == 1:
                self.steps.append(so_far - self.before)
            self.before = so_far

    work = Work()
    with FlopCounterMode(display=False) as counter:
        watched(backbone, work, num_frames=8)
    plain, *continuing = work.steps
    assert len(set(continuing)) == 1
    text = torch.zeros(2, 77, 32)
    with torch.no_grad():
        stock = flops(lambda: backbone.denoiser(torch.zeros(2, 4, 4, 4, 4), torch.tensor(1), text))
    assert plain < stock < continuing[0] < 1.2 * stock


def test_tensors_of_a_chunk_take_no_more_memory_the_longer_the_video(backbone) -> None:
    class Peaks:
        """The most bytes that were alive in every chunk."""

        def __init__(self) -> None:
            self.chunks: list[int] = []

        @hookimpl
        def remember(self) -> None:
            self.chunks.append(live.most)
            live.most = live.now

    peaks = Peaks()
    with LiveTensors() as live:
        watched(backbone, peaks, num_frames=18)
    assert len(peaks.chunks) == 8
    assert max(peaks.chunks[4:]) == max(peaks.chunks[1:4])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_layers_of_a_merger_change_only_rounding(dtype) -> None:
    torch.manual_seed(0)
    merger = Merger(64).to(dtype)
    skip, known = torch.randn(16, 64, 4, 4, dtype=dtype), torch.randn(8, 64, 4, 4, dtype=dtype)

    def read() -> torch.Tensor:
        return merger(skip, known, 2, torch.nn.functional.scaled_dot_product_attention) - skip

    with torch.inference_mode():
        apart, work = read(), flops(read)
        merger.fuse()
        fused, less = read(), flops(read)
    assert (fused - apart).abs().max() < 8 * torch.finfo(dtype).eps * apart.abs().max()
    assert less < 0.7 * work
