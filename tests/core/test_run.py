"""The loop: what a plan must be, what is told when a method goes wrong, and who sees what when."""

from __future__ import annotations

import pytest
import torch

from vidgen_core import hookimpl
from vidgen_core.errors import VidgenError
from vidgen_core.models import tiny
from vidgen_core.run import FrameBlock, Group, Window, frames, opened
from vidgen_core.testing import make_run, request, video


@pytest.fixture(scope="module")
def backbone():
    return tiny.build()


class Plans:
    def __init__(self, *windows: Window) -> None:
        self.windows = windows

    @hookimpl
    def plan(self):
        return [Group((window,)) for window in self.windows]


def window(start: int, stop: int, keep: tuple[int, int] | None = None, index: int = 0) -> Window:
    return Window(range(start, stop), range(*(keep or (start, stop))), index, group=index)


def test_overlapping_windows_deliver_every_frame_once(backbone) -> None:
    plans = Plans(window(0, 4), window(2, 6, (4, 6), 1))
    run = make_run(request(num_frames=6), {"plans": plans})
    with opened(run, backbone):
        spans = [block.span for block in frames(run)]
    assert [frame for span in spans for frame in span] == list(range(6))


def test_frames_outside_keep_are_not_decoded(backbone) -> None:
    calls = []
    handle = backbone.vae.decoder.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    try:
        video(request(num_frames=6), {"plans": Plans(window(0, 4), window(2, 6, (4, 6), 1))}, backbone=backbone)
    finally:
        handle.remove()
    assert sum(calls) == 6


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ([window(0, 2), window(4, 6, index=1)], "wrong at its window 1"),
        ([window(0, 4)], "delivers 4 frames of 6"),
        ([window(0, 3), window(3, 6)], "wrong at its window 1: index 0"),
        ([window(0, 4, (0, 6))], "wrong at its window 0"),
        ([], "delivers 0 frames of 6"),
    ],
)
def test_a_plan_that_does_not_deliver_every_frame_once_is_refused(windows, message, backbone) -> None:
    with pytest.raises(VidgenError, match=f"'plans'.*{message}"):
        video(request(num_frames=6), {"plans": Plans(*windows)}, backbone=backbone)


def test_methods_remember_a_window_before_its_frames_leave(backbone) -> None:
    log = []

    class Remembers:
        @hookimpl
        def remember(self, window, latents, frames):
            log.append(("remember", window.index, tuple(latents.shape), tuple(frames.shape)))

        @hookimpl
        def deliver(self, block):
            log.append(("deliver", *block.span))

    plans = Plans(window(0, 4), window(2, 6, (4, 6), 1))
    video(request(num_frames=6), {"plans": plans, "remembers": Remembers()}, backbone=backbone)
    assert log[0] == ("remember", 0, (1, 4, 4, 4, 4), (1, 4, 3, 32, 32))
    assert log[1:6] == [*(("deliver", i) for i in range(4)), ("remember", 1, (1, 4, 4, 4, 4), (1, 2, 3, 32, 32))]


def test_frames_can_be_finished_into_other_frames_and_windows_are_still_noted(backbone) -> None:
    class Doubles:
        @hookimpl
        def finish_frames(self, blocks):
            for block in blocks:
                yield FrameBlock(block.span, block.frames.repeat_interleave(2, dim=1))

    noted = []
    run = make_run(request(num_frames=4), {"doubles": Doubles()})
    with opened(run, backbone):
        delivered = sum(block.frames.shape[1] for block in frames(run, done=lambda window, again: noted.append(window)))
    assert (delivered, len(noted)) == (8, 1)


def test_a_method_that_fails_is_named_with_its_hook(backbone) -> None:
    class Fails:
        @hookimpl
        def after_step(self):
            raise ZeroDivisionError("boom")

    run = make_run(request(), {"fails": Fails()})
    message = "'fails' failed in its hook 'after_step': ZeroDivisionError: boom"
    with pytest.raises(VidgenError, match=message), opened(run, backbone):
        list(frames(run))
    assert run.moments.failed_in == "after_step of fails"


def test_a_condition_that_nobody_reads_is_refused(backbone) -> None:
    class Depth:
        @hookimpl
        def condition(self):
            return {"depth": 3}

    with pytest.raises(VidgenError, match="'depth' was supplied but nothing in the network reads it"):
        video(request(), {"depth": Depth()}, backbone=backbone)


@pytest.mark.parametrize(
    ("change", "message"), [(lambda x: x[:, :, :1], "in the shape"), (lambda x: x / 0, "NaN or infinite")]
)
def test_latents_that_are_wrong_are_refused(change, message, backbone) -> None:
    class Changes:
        @hookimpl
        def after_step(self, latents, step):
            return change(latents) if step.index + 1 == step.total else None

    with pytest.raises(VidgenError, match=message):
        video(request(), {"changes": Changes()}, backbone=backbone)


def test_weights_are_ordinary_tensors_after_a_run(backbone) -> None:
    model = tiny.build()
    video(request(), config={"placement": {"channels_last": True}}, backbone=model)
    assert not any(parameter.is_inference() for parameter in model.parameters())
    text = torch.zeros(1, 77, 32)
    model.denoiser(torch.zeros(1, 4, 2, 4, 4), torch.tensor(1), encoder_hidden_states=text).sample.sum().backward()


def test_compiled_graphs_and_network_surgery_are_refused_together() -> None:
    from contextlib import nullcontext

    class Surgeon:
        @hookimpl
        def attach(self):
            return nullcontext()

    # no backbone is given, and none is built: it is found before weights load
    run = make_run(request(), {"surgeon": Surgeon()}, {"placement": {"compile": "graph"}})
    with pytest.raises(VidgenError, match="'surgeon' changes it from window to window"), opened(run):
        pass


@pytest.mark.parametrize(("key", "size", "mend"), [("height", 36, "Use 32 or 40"), ("width", 5, "Use 8.")])
def test_a_size_that_does_not_divide_by_8_is_refused_before_weights_load(key, size, mend, monkeypatch, capsys) -> None:
    from vidgen_core import cli

    monkeypatch.setattr(tiny, "build", lambda **_: pytest.fail("weights were loaded"))
    assert cli.main(["model=tiny", "prompt=a dog", f"{key}={size}"]) == 2
    error = capsys.readouterr().err
    assert f"{key}={size} is not divisible by 8" in error and mend in error
