"""Schedulers as the published pipelines build them, guidance, steps, and noise that depends on nothing but its key."""

from __future__ import annotations

import pytest
import torch

from vidgen_core import hookimpl
from vidgen_core.errors import BadRequest
from vidgen_core.models import tiny
from vidgen_core.models.tiny import SCHEDULER
from vidgen_core.noise import keyed_noise
from vidgen_core.sampling import make_scheduler
from vidgen_core.testing import latents, make_run, request, video

DPM = "DPMSolverMultistepScheduler"


@pytest.fixture(scope="module")
def backbone():
    return tiny.build()


def grid(checkpoint, name=None, **options):
    scheduler = make_scheduler(checkpoint, name, **options)
    scheduler.set_timesteps(5)
    return scheduler.timesteps.tolist()


def test_a_checkpoint_without_a_spacing_gives_each_scheduler_its_own_grid() -> None:
    assert grid(SCHEDULER) == [801, 601, 401, 201, 1]
    assert grid(SCHEDULER, DPM) == [999, 799, 599, 400, 200]


def test_a_checkpoint_that_was_saved_again_keeps_its_written_spacing() -> None:
    assert grid({**SCHEDULER, "timestep_spacing": "leading"}, DPM) == [831, 665, 499, 333, 167]


def test_the_user_sets_the_spacing() -> None:
    assert grid(SCHEDULER, DPM, timestep_spacing="trailing")[0] == 999
    assert grid(SCHEDULER, DPM, timestep_spacing=None) == grid(SCHEDULER, DPM)


def test_the_last_sigma_is_an_option() -> None:
    published = make_scheduler(SCHEDULER, DPM, final_sigmas_type="sigma_min")
    published.set_timesteps(5)
    assert published.sigmas[-1] == pytest.approx(0.0292, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("DPMSolver", {}, "Did you mean 'DPMSolverMultistepScheduler'"),
        (
            None,
            {"timestep_space": "x"},
            "DDIMScheduler has no option 'timestep_space'. Did you mean 'timestep_spacing'",
        ),
    ],
)
def test_unknown_schedulers_and_options_are_refused_with_the_nearest(name, options, message) -> None:
    with pytest.raises(BadRequest, match=message):
        make_scheduler(SCHEDULER, name, **options)


def test_more_steps_than_a_scheduler_has_are_refused(backbone) -> None:
    with pytest.raises(BadRequest, match="num_inference_steps=2000 does not suit DDIMScheduler"):
        latents(request(num_inference_steps=2000), backbone=backbone)


def test_an_option_that_a_scheduler_refuses_is_named() -> None:
    with pytest.raises(BadRequest, match="cannot be made with {'algorithm_type': 'magic'}"):
        make_scheduler(SCHEDULER, DPM, algorithm_type="magic")


@pytest.mark.parametrize("name", [None, DPM, "EulerDiscreteScheduler", "UniPCMultistepScheduler"])
def test_every_scheduler_samples(backbone, name) -> None:
    (window,) = latents(request(num_inference_steps=4), config={"scheduler": {"name": name}}, backbone=backbone)
    assert window.latents.isfinite().all()


class Watches:
    def __init__(self):
        self.steps, self.estimates = [], []

    @hookimpl
    def on_step(self, step, latents):
        self.steps.append((step.index, step.total))
        self.estimates.append(step.x0())


@pytest.mark.parametrize("name", [None, "EulerDiscreteScheduler"])
def test_a_callback_sees_every_step_and_an_estimate_that_ends_at_the_result(backbone, name) -> None:
    watches = Watches()
    (window,) = latents(
        request(num_inference_steps=5), {"watches": watches}, {"scheduler": {"name": name}}, backbone=backbone
    )
    assert watches.steps == [(i, 5) for i in range(5)]
    last = watches.estimates[-1]
    assert (last - window.latents).abs().mean() < 0.1 * window.latents.abs().mean()


class CountsCalls:
    """Wraps the network and counts its calls and their batch sizes."""

    def __init__(self, backbone):
        self.backbone, self.batches = backbone, []

    def __enter__(self):
        self.handle = self.backbone.denoiser.register_forward_pre_hook(
            lambda m, args: self.batches.append(len(args[0]))
        )
        return self

    def __exit__(self, *_):
        self.handle.remove()


@pytest.mark.parametrize(
    ("guidance", "scale", "batches"),
    [("batched", 3.0, [2, 2]), ("two_pass", 3.0, [1, 1, 1, 1]), ("batched", 1.0, [1, 1])],
)
def test_guidance_calls_the_network_as_often_as_it_must(backbone, guidance, scale, batches) -> None:
    with CountsCalls(backbone) as calls:
        video(request(guidance_scale=scale), config={"placement": {"guidance": guidance}}, backbone=backbone)
    assert calls.batches == batches


def test_a_method_can_own_guidance(backbone) -> None:
    class Unguided:
        @hookimpl
        def guide(self, predict):
            return predict("cond")

    own = latents(request(guidance_scale=9.0), {"own": Unguided()}, backbone=backbone)[0].latents
    assert torch.equal(own, latents(request(guidance_scale=1.0), backbone=backbone)[0].latents)


def test_texts_of_different_lengths_are_guided_in_two_passes_not_padded(backbone) -> None:
    class Shorter:
        @hookimpl
        def refine_condition(self, condition):
            from dataclasses import replace

            text = condition["text"]
            short = replace(text.uncond, embeds=text.uncond.embeds[:, :9])
            condition["text"] = replace(text, uncond=short)
            return condition

    with CountsCalls(backbone) as calls:
        video(request(), {"shorter": Shorter()}, backbone=backbone)
    assert calls.batches == [1, 1, 1, 1]


SHAPE = (4, 3, 3)


def test_noise_does_not_depend_on_the_batch_or_the_window() -> None:
    whole = keyed_noise(7, [0, 1, 2], range(8), SHAPE)
    assert torch.equal(whole[1:2], keyed_noise(7, [1], range(8), SHAPE))
    assert torch.equal(whole[:, :, 3:6], keyed_noise(7, [0, 1, 2], range(3, 6), SHAPE))


@pytest.mark.parametrize("change", [{"group": 1}, {"stage": "refine"}, {"step": 0}, {"seed": 8}])
def test_noise_differs_for_every_part_of_its_key(change) -> None:
    seed = change.pop("seed", 7)
    assert not torch.allclose(keyed_noise(7, [0], range(2), SHAPE), keyed_noise(seed, [0], range(2), SHAPE, **change))


def test_noise_is_unit_normal() -> None:
    noise = keyed_noise(0, range(8), range(64), (4, 8, 8))
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01


def test_the_same_seed_gives_the_same_video_bit_for_bit(backbone) -> None:
    assert torch.equal(video(request(seed=3), backbone=backbone), video(request(seed=3), backbone=tiny.build()))
    assert not torch.equal(video(request(seed=3), backbone=backbone), video(request(seed=4), backbone=backbone))


def test_steps_beyond_the_training_are_refused(backbone) -> None:
    with pytest.raises(BadRequest, match="reaches beyond the 1000 steps of training"):
        latents(request(num_inference_steps=1000), backbone=backbone)


@pytest.mark.parametrize("name", [None, DPM, "EulerDiscreteScheduler", "UniPCMultistepScheduler"])
def test_the_estimate_of_the_clean_latents_is_finite_at_every_step(backbone, name) -> None:
    watches = Watches()
    latents(request(num_inference_steps=4), {"watches": watches}, {"scheduler": {"name": name}}, backbone=backbone)
    assert all(estimate.isfinite().all() for estimate in watches.estimates)


def test_a_user_option_wins_over_the_named_key(backbone) -> None:
    run = make_run(request(), config={"scheduler": {"name": DPM, "options": {"timestep_spacing": "trailing"}}})
    run.place(backbone, None)
    assert run.make_scheduler().config.timestep_spacing == "trailing"


def test_a_prompt_beyond_the_token_limit_warns_with_numbers(backbone, capsys) -> None:
    latents(request("x" * 200), backbone=backbone)
    assert "needs 202 tokens, the model reads 77: its last 125 are cut" in capsys.readouterr().err


def test_more_frames_than_the_model_knows_warn_with_numbers(backbone, capsys) -> None:
    latents(request(num_frames=18), backbone=backbone)
    assert "18 frames are denoised together; the model was trained for 16" in capsys.readouterr().err
