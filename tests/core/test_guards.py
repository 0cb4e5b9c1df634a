"""Bounds that no clock decides: work, copies, projections, calls and the largest tensor of a run."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from vidgen_talc.method import build

from vidgen_core import attention, hookimpl
from vidgen_core.models import tiny
from vidgen_core.run import frames, opened
from vidgen_core.testing import latents, make_run, request


@pytest.fixture(scope="module")
def backbone():
    return tiny.build()


def flops(call) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


class Watch(TorchDispatchMode):
    """Counts operations by name and keeps the size of the largest tensor made."""

    def __init__(self):
        super().__init__()
        self.counts: dict[str, int] = {}
        self.largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        self.counts[name] = self.counts.get(name, 0) + 1
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return result


def run_steps(backbone, steps: int, methods=None, prompts=("one", "two"), **changes):
    def call():
        latents(
            request(*prompts, num_inference_steps=steps, **changes), methods or {"talc": build()}, backbone=backbone
        )

    return call


def stock_step(backbone, frames: int):
    """One guided call of the stock network, as diffusers' pipeline makes it."""
    text = torch.zeros(2, 77, 32)

    @torch.no_grad()
    def call():
        backbone.denoiser(torch.zeros(2, 4, frames, 4, 4), torch.tensor(1), encoder_hidden_states=text)

    return call


def test_a_step_does_less_arithmetic_than_the_stock_network(backbone) -> None:
    step = flops(run_steps(backbone, 3)) - flops(run_steps(backbone, 2))
    assert step < flops(stock_step(backbone, 8))


def test_several_scenes_cost_no_more_than_one(backbone) -> None:
    one = flops(run_steps(backbone, 2, prompts=("one",), num_frames=8)) - flops(
        run_steps(backbone, 1, prompts=("one",), num_frames=8)
    )
    four = flops(run_steps(backbone, 2, prompts=("a", "b", "c", "d"), num_frames=8)) - flops(
        run_steps(backbone, 1, prompts=("a", "b", "c", "d"), num_frames=8)
    )
    assert four == one


def copies(call) -> int:
    with Watch() as watch:
        call()
    return sum(watch.counts.get(name, 0) for name in ("clone", "copy_", "_to_copy"))


def test_a_step_copies_less_than_the_stock_network(backbone) -> None:
    step = copies(run_steps(backbone, 3)) - copies(run_steps(backbone, 2))
    assert step <= copies(stock_step(backbone, 8))


def test_text_is_projected_once_per_layer_and_run(backbone) -> None:
    layers = [m for _, m in attention.attentions(backbone.denoiser) if m.is_cross_attention]
    calls = []
    handles = [m.to_k.register_forward_hook(lambda m, args, out: calls.append(args[0].shape)) for m in layers]
    try:
        run_steps(backbone, 4, {"talc": build(mode="separate")})()
    finally:
        for handle in handles:
            handle.remove()
    # two scenes and the empty negative prompt, in one table, for two windows of four steps
    assert calls == [(3, 77, 32)] * len(layers)


def test_texts_are_encoded_in_two_calls_at_most(backbone) -> None:
    calls = []
    handle = backbone.text_encoder.register_forward_pre_hook(lambda m, args: calls.append(1))
    try:
        run_steps(backbone, 2, prompts=("a", "b", "c"))()
    finally:
        handle.remove()
    assert len(calls) <= 2


def test_no_hook_is_called_inside_the_network(backbone, monkeypatch) -> None:
    from vidgen_core.moments import Moments

    inside, depth = [], []
    original = Moments._call

    def call(self, hook, *rest):
        if depth:
            inside.append(hook)
        return original(self, hook, *rest)

    monkeypatch.setattr(Moments, "_call", call)
    handles = [
        backbone.denoiser.register_forward_pre_hook(lambda *_: depth.append(1)),
        backbone.denoiser.register_forward_hook(lambda *_: depth.clear()),
    ]
    try:
        run_steps(backbone, 2)()
    finally:
        for handle in handles:
            handle.remove()
    assert inside == []


def test_the_hooks_add_no_tensor_operation(backbone) -> None:
    run = make_run(request())
    run.place(backbone, None)
    with Watch() as watch:
        run.moments.after_step(run=run, window=None, step=None, latents=None)
        run.moments.on_step(run=run, window=None, step=None, latents=None)
        run.moments.recall(run=run, window=None)
    assert watch.counts == {}


def test_windows_that_have_left_hold_no_tensor(backbone) -> None:
    seen = {}

    class Keeps:
        @hookimpl
        def on_step(self, window):
            seen[window.index] = window

    run = make_run(request("a", "b", "c"), {"talc": build(mode="separate"), "keeps": Keeps()})
    with opened(run, backbone):
        for _ in frames(run):
            pass
    assert len(seen) == 3
    assert all(w.latents is None and not w.inputs and not w.condition and not w.memory for w in seen.values())


def test_the_largest_tensor_does_not_grow_with_the_number_of_windows(backbone) -> None:
    def largest(scenes: int) -> int:
        names = [f"scene {i % 2}" for i in range(scenes)]
        run = make_run(request(*names), {"talc": build(mode="separate", scene_frames=4)})
        with opened(run, backbone), Watch() as watch:
            delivered = sum(len(block.span) for block in frames(run))
        assert delivered == 4 * scenes
        return watch.largest

    largest(2)
    assert largest(8) == largest(2)
