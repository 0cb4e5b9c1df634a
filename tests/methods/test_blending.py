"""Randomized blending: what the chunks are, who decides a frame, and that the order of the work changes nothing."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor
from vidgen_streaming import wavefront
from vidgen_streaming.blending import RandomizedBlending, scheduled

from vidgen_core import hookimpl
from vidgen_core.errors import BadRequest
from vidgen_core.models import tiny
from vidgen_core.models.backbone import Backbone
from vidgen_core.run import Run, Window, opened
from vidgen_core.sampling import Step, denoiser
from vidgen_core.testing import make_run, request, video

SDE = {"scheduler": {"name": "DPMSolverMultistepScheduler", "options": {"algorithm_type": "sde-dpmsolver++"}}}
EULER = {"scheduler": {"name": "EulerDiscreteScheduler"}}


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny.build()


def run_of(frames: int, blending: RandomizedBlending, config: Any = None, steps: int = 3, **changes: Any) -> Run:
    wanted = request(num_frames=frames, num_inference_steps=steps, guidance_scale=1.0, **changes)
    return make_run(wanted, {"blending": blending}, config)


def blended(run: Run, backbone: Backbone) -> Tensor:
    """The whole video's latents, from the frames that its windows keep."""
    with opened(run, backbone):
        (group,) = run.groups
        windows = run.moments.sample(run=run, group=group, denoise=denoiser(run))
        return torch.cat([window.latents[:, :, window.kept] for window in windows], dim=2)


def step_by_step(run: Run, backbone: Backbone, blending: RandomizedBlending) -> Tensor:
    """As it was published: every step over the whole video, chunk after chunk, then one step of one solver."""
    with opened(run, backbone):
        denoise, (group,) = denoiser(run), run.groups
        x = torch.zeros(len(run.request.videos), 4, run.request.num_frames, 4, 4)
        for window in group.windows:
            x[:, :, window.span.start : window.span.stop] = run.prepare(window).latents
        solver, whole = scheduled(run), range(run.request.num_frames)
        x = x * solver.init_noise_sigma
        for i, t in enumerate(solver.timesteps):
            prediction, scaled = torch.empty_like(x), solver.scale_model_input(x, t)
            for k, window in enumerate(group.windows):
                start, stop = window.span.start, window.span.stop
                chunk = scaled[:, :, start:stop].contiguous()
                cut = blending.cut(run, group.windows, k, i)
                step = Step(i, len(solver.timesteps), t, window, solver, chunk)
                prediction[:, :, cut:stop] = denoise(window, step)[:, :, cut - start :]
            sde = {}
            if str(solver.config.get("algorithm_type")).startswith("sde"):
                sde = {"variance_noise": run.noise(Window(whole, whole), i)}
            x = solver.step(prediction, t, x, return_dict=False, **sde)[0]
        return x


@pytest.mark.parametrize(
    ("frames", "chunk", "overlap", "scheduler"),
    [(10, 4, 2, SDE), (9, 4, 1, SDE), (11, 4, 0, SDE), (9, 5, 4, SDE), (3, 5, 2, SDE), (9, 4, 1, EULER), (9, 4, 1, {})],
)
def test_the_result_is_that_of_going_step_by_step(frames, chunk, overlap, scheduler, backbone) -> None:
    blending = RandomizedBlending(chunk, overlap)
    expected = step_by_step(run_of(frames, blending, scheduler), backbone, blending)
    assert torch.equal(blended(run_of(frames, blending, scheduler), backbone), expected)


def test_the_order_in_which_chunks_are_denoised_changes_nothing(backbone, monkeypatch) -> None:
    blending = RandomizedBlending(4, 2)
    expected = blended(run_of(13, blending, SDE), backbone)
    generator, orders = random.Random(0), []

    def any_window(front: wavefront.Wavefront) -> int:
        orders.append(generator.choice([k for k in range(len(front.windows)) if front.can_go_on(k)]))
        return orders[-1]

    monkeypatch.setattr(wavefront.Wavefront, "next_window", any_window)
    assert torch.equal(blended(run_of(13, blending, SDE), backbone), expected)
    assert orders != sorted(orders)


def test_a_video_is_the_same_in_a_batch(backbone) -> None:
    blending = RandomizedBlending(4, 2)
    alone = blended(run_of(7, blending, SDE), backbone)
    together = blended(run_of(7, blending, SDE, videos=2), backbone)
    assert torch.allclose(together[:1], alone, atol=1e-5)
    assert not torch.allclose(together[1:], alone, atol=1e-2)


@pytest.mark.parametrize("frames", [20, 40])
def test_memory_depends_on_the_steps_and_not_on_the_length(frames: int, backbone) -> None:
    blending, steps = RandomizedBlending(4, 2), 3
    begun, most = [], 0
    run = run_of(frames, blending, steps=steps)
    with opened(run, backbone):
        start = run.moments.start_latents
        run.moments.start_latents = lambda run, window: begun.append(window.index) or start(run=run, window=window)
        (group,) = run.groups
        for window in run.moments.sample(run=run, group=group, denoise=denoiser(run)):
            most = max(most, len(begun) - window.index)
            window.release()
        assert begun == list(range(len(group.windows)))
    assert most == steps + 1  # and one, which shares frames with the window that is yielded


def test_start_latents_of_a_later_step_are_taken_as_they_are(backbone) -> None:
    class Starts:
        @hookimpl
        def start_latents(self, run: Run, window: Window) -> Tensor:
            window.first_step = 2
            return run.noise(window)

    steps = []

    class Sees:
        @hookimpl
        def on_step(self, step: Step) -> None:
            steps.append(step.index)

    wanted = request(num_frames=6, num_inference_steps=4)
    run = make_run(wanted, {"blending": RandomizedBlending(4, 2), "starts": Starts(), "sees": Sees()}, SDE)
    assert torch.isfinite(blended(run, backbone)).all()
    assert sorted(steps) == [2, 2, 3, 3]


def test_chunks_cover_the_tail_and_a_short_video_is_one_chunk() -> None:
    def spans(frames: int) -> list[tuple[int, int]]:
        return [(span.start, span.stop) for span in RandomizedBlending(24, 8).spans(frames)]

    assert spans(56) == [(0, 24), (16, 40), (32, 56)]
    assert spans(58) == [(0, 24), (16, 40), (32, 56), (34, 58)]
    assert spans(24) == [(0, 24)]
    assert spans(10) == [(0, 10)]


def cuts(overlap: int, whole_overlap: bool = False) -> list[int]:
    """Where chunks are cut, counted from their first frames, step by step and chunk by chunk."""
    blending, run = RandomizedBlending(8, overlap, whole_overlap), make_run(request(num_frames=600))
    (group,) = blending.plan(run)
    windows = group.windows
    return [blending.cut(run, windows, k, step) - windows[k].span.start for step in range(5) for k in range(1, 75)]


def test_cuts_are_uniform_and_drawn_anew_for_each_step_and_chunk() -> None:
    published = cuts(overlap=3)
    assert {cut: published.count(cut) / len(published) for cut in range(3)} == pytest.approx(
        dict.fromkeys(range(3), 1 / 3), abs=0.08
    )
    assert set(published) == {0, 1, 2}
    assert published[:74] != published[74:148]
    assert set(cuts(overlap=3, whole_overlap=True)) == {0, 1, 2, 3}
    assert set(cuts(overlap=0)) == set(cuts(overlap=0, whole_overlap=True)) == {0}


@pytest.mark.parametrize(("chunk", "overlap"), [(4, 4), (4, -1), (0, 0)])
def test_a_chunk_that_brings_no_frame_of_its_own_is_refused(chunk: int, overlap: int) -> None:
    with pytest.raises(BadRequest, match="overlap from 0 to"):
        RandomizedBlending(chunk, overlap)


def test_a_method_that_corrects_windows_after_a_step_is_refused(backbone) -> None:
    class Corrects:
        @hookimpl
        def after_step(self, latents: Tensor) -> Tensor:
            return latents

    with pytest.raises(BadRequest, match="'corrects' corrects windows"):
        video(request(), {"blending": RandomizedBlending(4, 2), "corrects": Corrects()}, backbone=backbone)
