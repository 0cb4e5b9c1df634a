"""What a step computes: noise, timesteps, captions, weights, gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from trainings import composed

from vidgen_core import hookimpl
from vidgen_core.data.sample import Batch, Draw, Sample
from vidgen_core.errors import BadRequest
from vidgen_core.models import tiny
from vidgen_core.moments import Moments
from vidgen_core.placement import Placement
from vidgen_core.run import Run
from vidgen_core.testing import request
from vidgen_core.train import TRAINING_HOOKS, train
from vidgen_core.training.denoising import Denoising, Prediction
from vidgen_core.training.gradient_checkpointing import gradient_checkpointing
from vidgen_core.training.learner import EncodedTexts, Learner, choose_trainables
from vidgen_core.training.optimiser import make_optimiser, make_schedule


def batch_of(*captions: str, first: int = 0, frames: int = 2, timestep: int | None = None) -> Batch:
    """Samples of one scene each, 16 x 16 pixels."""
    samples = []
    for number, caption in enumerate(captions, first):
        pixels = torch.full((frames, 3, 16, 16), 16 * number, dtype=torch.uint8)
        samples.append(Sample((caption,), (frames,), pixels, number=number, name=caption))
    return Batch(samples, Draw(tuple(range(first, first + len(captions))), 0, 0, 0, 0.0, 0), timestep=timestep)


def learner(objective: Any = None, methods: dict[str, Any] | None = None, trainable: str = "all") -> Learner:
    moments = Moments({**(methods or {}), "objective": objective or Denoising()}, defaults=TRAINING_HOOKS)
    run = Run(request(), {"trainer": {"trainable": trainable}}, moments)
    run.place(tiny.build(), Placement(torch.device("cpu"), torch.float32))
    run.backbone.attention_installed("sdpa").__enter__()
    return Learner(run, choose_trainables(run)).eval()


def seen(made: Learner, batch: Batch) -> Prediction:
    """The prediction of one step."""
    kept: list[Prediction] = []
    whole = made.run.moments.losses
    made.run.moments.losses = lambda **named: kept.append(named["prediction"]) or whole(**named)
    made(batch)
    return kept[0]


def test_a_sample_is_noised_alike_in_any_batch() -> None:
    alone, pair = seen(learner(), batch_of("b", first=1)), seen(learner(), batch_of("a", "b"))
    assert torch.equal(alone.noisy[0], pair.noisy[1])
    assert alone.timesteps[0] == pair.timesteps[1]


def test_stratified_timesteps_take_one_from_every_part_of_the_range() -> None:
    timesteps = seen(learner(Denoising(timesteps="stratified")), batch_of(*"abcdefgh")).timesteps
    assert sorted(int(t) // 125 for t in timesteps) == list(range(8))


def test_options_of_the_scheduler_that_say_what_is_predicted_hold_for_the_training_too() -> None:
    made = learner()
    options = {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "final_sigmas_type": "zero"}
    made.run.config = {**made.run.config, "scheduler": {"name": "DPMSolverMultistepScheduler", "options": options}}
    found = seen(made, batch_of("a"))
    expected = found.scheduler.get_velocity(found.latents, found.noise, found.timesteps)
    assert torch.equal(found.target, expected) and not torch.equal(found.target, found.noise)


def test_offset_noise_is_equal_over_the_cells_of_a_frame() -> None:
    plain, moved = (seen(learner(Denoising(offset_noise=s)), batch_of("a")).noise for s in (0.0, 0.5))
    offset = moved - plain
    assert offset.std() > 0 and torch.allclose(offset, offset[..., :1, :1].expand_as(offset), atol=1e-6)


def test_dropped_captions_are_empty_and_those_of_validation_stay() -> None:
    made = learner(Denoising(caption_dropout=1.0))
    made(batch_of("a"))
    assert made.run.request.videos[0].scenes[0].prompt == ""
    made(batch_of("a", timestep=5))
    assert made.run.request.videos[0].scenes[0].prompt == "a"


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_min_snr_weights_follow_the_paper(kind: str) -> None:
    objective = Denoising(snr_gamma=5.0)
    made = learner(objective)
    made.run.backbone.scheduler_config["prediction_type"] = kind
    scheduler = objective.noise_schedule(made.run)
    timesteps = torch.tensor([0, 400, 999])
    abar = scheduler.alphas_cumprod[timesteps]
    snr = abar / (1 - abar)
    least = snr.clamp(max=5.0)
    expected = {"epsilon": least / snr, "v_prediction": least / (snr + 1), "sample": least}[kind]
    assert torch.allclose(objective.weights(timesteps, made.run), expected, rtol=1e-4)


def test_gradient_checkpointing_changes_no_gradient_and_leaves_the_blocks_as_they_were() -> None:
    gradients = []
    for recompute in (False, True):
        made = learner()
        before = [m.forward for m in made.backbone.denoiser.modules()]
        if recompute:
            with gradient_checkpointing(made.backbone.denoiser):
                sum(made(batch_of("a")).values()).backward()
        else:
            sum(made(batch_of("a")).values()).backward()
        assert [m.forward for m in made.backbone.denoiser.modules()] == before
        gradients.append([p.grad for p in made.trainables.values()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_a_methods_own_loss_is_added_by_name() -> None:
    class Smooth:
        @hookimpl
        def losses(self, prediction: Any) -> dict[str, Tensor]:
            return {"smoothness": prediction.output.diff(dim=2).square().mean()}

    assert set(learner(methods={"smooth": Smooth()})(batch_of("a"))) == {"denoising", "smoothness"}


def test_two_losses_of_one_name_are_both_minimised() -> None:
    class Same:
        @hookimpl
        def losses(self, prediction: Any) -> dict[str, Tensor]:
            return {"denoising": prediction.output.mean()}

    alone, both = learner()(batch_of("a")), learner(methods={"same": Same()})(batch_of("a"))
    assert set(both) == {"denoising"}
    assert both["denoising"] != alone["denoising"]


def test_a_method_says_what_trains() -> None:
    class Bias:
        @hookimpl(claims="denoiser")
        def trainable(self, backbone: Any) -> dict[str, Tensor]:
            return {"denoiser.conv_out.bias": backbone.denoiser.conv_out.bias}

    made = learner(methods={"bias": Bias()})
    assert [p is made.backbone.denoiser.conv_out.bias for p in made.parameters() if p.requires_grad] == [True]


def test_texts_of_a_frozen_encoder_are_encoded_once() -> None:
    made = learner()
    asked: list[list[str]] = []
    whole = made.backbone.encode_text
    made.backbone.encode_text = lambda texts: asked.append(list(texts)) or whole(texts)  # type: ignore[method-assign]
    texts = EncodedTexts(made.run, limit=2)
    assert torch.equal(texts(["a", "b"]), texts(["a", "b"]))
    texts(["c"])
    texts(["a"])
    assert asked == [["a"], ["b"], ["c"], ["a"]]


def test_an_embedding_does_not_depend_on_what_was_encoded_before() -> None:
    made = learner()
    whole = made.backbone.encode_text
    made.backbone.encode_text = lambda texts: whole(texts) + len(texts)  # type: ignore[method-assign]
    straight, resumed = EncodedTexts(made.run), EncodedTexts(made.run)
    straight(["a", "b"])
    assert torch.equal(straight(["b", "c"]), resumed(["b", "c"]))


def test_each_part_of_a_name_scales_the_learning_rate() -> None:
    weights = {"spatial.w": torch.zeros(1, requires_grad=True), "temp.w": torch.zeros(1, requires_grad=True)}
    options = {"rate_scale": {"temp": 2.0}, "learning_rate": 0.1, "betas": [0.9, 0.99], "epsilon": 1e-8}
    optimiser = make_optimiser(weights, {**options, "weight_decay": 0.0, "optimizer": "adamw"})
    assert [group["lr"] for group in optimiser.param_groups] == [0.1, 0.2]


def test_a_factor_that_names_nothing_is_refused_where_the_user_wrote_it() -> None:
    weights = {"spatial.w": torch.zeros(1, requires_grad=True)}
    options = {"rate_scale": {"temp": 2.0}, "learning_rate": 0.1, "betas": [0.9, 0.99], "epsilon": 1e-8}
    options |= {"weight_decay": 0.0, "optimizer": "adamw"}
    assert [group["lr"] for group in make_optimiser(weights, options, given=["seed"]).param_groups] == [0.1]
    with pytest.raises(BadRequest, match="no parameter that trains has 'temp'"):
        make_optimiser(weights, options, given=["trainer.rate_scale.temp"])


def test_a_warm_up_below_one_is_a_share_of_the_steps_and_begins_at_zero() -> None:
    optimiser = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = make_schedule(optimiser, {"schedule": "constant_with_warmup", "warmup": 0.2}, steps=20)
    rates = []
    for _ in range(6):
        rates.append(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()
    assert rates == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_cached_latents_train_as_fresh_ones_do(stories: Path, tmp_path: Path) -> None:
    from trainings import curve

    more = ("trainer.cache=latents", f"trainer.cache_dir={tmp_path / 'cache'}")
    for out in ("first", "second"):
        train(composed(stories, tmp_path / out, *more))
    assert list((tmp_path / "cache").rglob("*.safetensors"))
    assert curve(tmp_path / "first") == curve(tmp_path / "second")


def test_the_cache_gives_the_same_bits_whoever_fills_it(stories: Path, tmp_path: Path) -> None:
    from trainings import last, same

    more = ("trainer.cache=latents", "trainer.batch_size=2", "trainer.accumulation=1")
    for workers in (0, 2):
        train(composed(stories, tmp_path / str(workers), *more, f"trainer.workers={workers}"))
    assert same(last(tmp_path / "0"), last(tmp_path / "2"))


def test_what_is_frozen_has_no_dropout() -> None:
    made = learner()
    made.train()
    backbone = made.backbone
    assert backbone.denoiser.training and not backbone.vae.training and not backbone.text_encoder.training


def test_frames_that_do_not_divide_are_refused(stories: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="do not divide by 8"):
        train(composed(stories, tmp_path / "run", "data.size=20"))
