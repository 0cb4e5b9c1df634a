"""TF-T2V: videos, losses, and what is refused."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tf_t2v_runs import SETTINGS, TINY, run_of
from torch import Tensor
from vidgen_streaming import method as streaming
from vidgen_talc import method as talc
from vidgen_tf_t2v import networks
from vidgen_tf_t2v.coherence import temporal_coherence
from vidgen_tf_t2v.ddim import DIFFUSIONS
from vidgen_tf_t2v.method import TFT2V
from vidgen_tf_t2v.prompts import NEGATIVE, SUFFIX, as_published
from vidgen_tf_t2v.reference import reference

from vidgen_core.attention import TextCrossAttention
from vidgen_core.cli import main
from vidgen_core.config import compose
from vidgen_core.errors import BadRequest
from vidgen_core.models import tiny
from vidgen_core.models.loading import file_hash, located
from vidgen_core.provenance import read_provenance
from vidgen_core.run import opened
from vidgen_core.testing import make_run, request, video
from vidgen_core.video import read_video

# ------------------------------------------------------------------------------------------------------- sampling


class TestVideos:
    @pytest.mark.parametrize(
        ("build", "wanted"),
        [
            (talc.build, request("a", "b")),
            (
                lambda: streaming.build(chunk=4, overlap=2, fit="resize_center"),
                request(num_frames=6, num_inference_steps=1),
            ),
        ],
        ids=["talc", "streaming"],
    )
    def test_it_goes_with_other_methods_in_any_order(self, picture, build, wanted) -> None:
        wanted, backbone = wanted.replace(image=picture), tiny.build()
        name = build().__module__.split(".")[0].removeprefix("vidgen_")
        one, other, without = (
            video(wanted, methods, {**SETTINGS, "model": {**SETTINGS["model"], "path": "tiny"}}, backbone)
            for methods in (
                {"tf_t2v": TFT2V(), name: build()},
                {name: build(), "tf_t2v": TFT2V()},
                {name: build()},
            )
        )
        assert torch.equal(one, other) and not torch.equal(one, without)

    @pytest.mark.parametrize("order", [("tf_t2v", "streaming"), ("streaming", "tf_t2v")])
    def test_a_picture_that_only_the_guided_branch_is_told_of_goes_with_an_anchor(self, picture, order) -> None:
        projected: Counter[int] = Counter()
        project = TextCrossAttention.project

        def projects(self, attention, *text):
            projected[id(self)] += 1
            return project(self, attention, *text)

        def made(frames: int) -> Tensor:
            projected.clear()
            chunks = streaming.build(chunk=4, overlap=2, fit="resize_center", hidden=8, embedding_widths=[8] * 4)
            methods = {"tf_t2v": TFT2V(unguided_image="omit"), "streaming": chunks}
            wanted = request(num_frames=frames, num_inference_steps=1, image=picture)
            return video(wanted, {name: methods[name] for name in order}, SETTINGS, tiny.build())

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(TextCrossAttention, "project", projects)
            assert made(5).shape[1] == 5
            short = sorted(projected.values())
            assert torch.isfinite(made(11)).all()
        # What is read of the texts and images is the same in all chunks.
        assert sorted(projected.values()) == short

    def test_a_video_is_seen_through_its_middle_frame(self) -> None:
        clip = located("pkg://vidgen_moving_shapes/clips/red_circle_moves_right.mp4")
        frames = read_video(clip)
        seen = reference(request(video=str(clip)))
        middle = torch.from_numpy(frames[len(frames) // 2]).permute(2, 0, 1)[None]
        assert torch.equal(seen, middle.float() / 127.5 - 1)

    def test_fifty_steps_are_those_of_the_release_and_none_is_beyond_the_training(self) -> None:
        backbone = tiny.build()
        backbone.scheduler_config = dict(DIFFUSIONS["v_zero_snr"])

        def steps(count: int) -> list[int]:
            run = make_run(request(num_inference_steps=count))
            run.backbone = backbone
            return run.timesteps(run.make_scheduler()).tolist()

        assert steps(50) == list(range(981, 0, -20))
        with pytest.raises(BadRequest, match="reaches beyond the 1000 steps of training"):
            steps(1000)

    @pytest.mark.parametrize("scheduler", ["checkpoint", "ddim", "dpm", "euler", "unipc"])
    def test_any_number_of_steps_is_that_many_and_leads_to_what_the_network_sees(self, scheduler) -> None:
        settings = compose(["model=tf_t2v", "method=tf_t2v", f"scheduler={scheduler}"]).config["scheduler"]
        clean = torch.randn(1, 4, 1, 2, 2, generator=torch.Generator().manual_seed(1))
        for steps, spacing in itertools.product([1, 6, 7, 30, 50, 333, 999], [None, "trailing"]):
            chosen = {"scheduler": {**settings, "timestep_spacing": spacing}}
            run = make_run(request(num_inference_steps=steps), config=chosen)
            run.backbone = SimpleNamespace(sampling_config=DIFFUSIONS["v_zero_snr"], device=torch.device("cpu"))
            solver = run.make_scheduler()
            if steps == 999 and spacing is None and scheduler in ("dpm", "unipc"):
                with pytest.raises(BadRequest, match=f"{type(solver).__name__}'s spacing and offset reaches beyond"):
                    run.timesteps(solver)
                continue
            timesteps = run.timesteps(solver)
            assert len(timesteps) == steps and timesteps.min() >= 0 and timesteps.max() <= 999
            assert spacing is None or timesteps[0] == 999
            x = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)) * solver.init_noise_sigma
            for t in timesteps:
                noisy, signal = solver.scale_model_input(x, t), solver.alphas_cumprod[int(t)]
                velocity = (signal.sqrt() * noisy - clean) / (1 - signal).sqrt()
                x = solver.step(velocity, t, x, return_dict=False)[0]
            # The one step of the release's DDIM is that of the least noise, whatever there is of it.
            assert x.isfinite().all()
            assert timesteps[0] == 1 or (x - clean).abs().max() < 0.15

    def test_a_step_at_the_end_of_the_schedule_is_visited_or_refused(self) -> None:
        run = make_run(request(num_inference_steps=999))
        run.backbone = SimpleNamespace(sampling_config=DIFFUSIONS["v_zero_snr"], device=torch.device("cpu"))
        assert int(run.timesteps(run.make_scheduler())[0]) == 999
        beyond = make_run(request(num_inference_steps=1000))
        beyond.backbone = run.backbone
        with pytest.raises(BadRequest, match="timestep_spacing=trailing"):
            beyond.timesteps(beyond.make_scheduler())

    def test_from_pure_noise_the_video_is_finite(self) -> None:
        backbone = tiny.build()
        backbone.scheduler_config = dict(DIFFUSIONS["v_zero_snr"])
        settings = {**SETTINGS, "scheduler": {"timestep_spacing": "trailing"}}
        assert video(request(), {"tf_t2v": TFT2V()}, settings, backbone).isfinite().all()

    def test_prompts_are_completed_as_in_the_release_before_and_after_scenes_are_laid(self) -> None:
        asked = request("a", "b", negative=("", "dark"))
        done = as_published(asked).videos[0]
        assert done.prompts == (f"a{SUFFIX}", f"b{SUFFIX}") and done.negative_prompts == (NEGATIVE, "dark")
        one, other = (
            second(first(asked))
            for first, second in (
                (as_published, lambda r: talc.build().prepare_request(r)),
                (lambda r: talc.build().prepare_request(r), as_published),
            )
        )
        assert one == other
        clip = dataclasses.replace(asked, videos=(dataclasses.replace(asked.videos[0], spans=(2, 2)),))
        trained = as_published(clip).videos[0]
        assert trained.prompts == ("a", "b") and trained.negative_prompts == (NEGATIVE, "dark")


# ------------------------------------------------------------------------------------------------------- training


class TestCoherence:
    def test_an_error_that_stays_is_free_and_one_that_flickers_is_not(self) -> None:
        target, stays = torch.randn(2, 4, 5, 3, 3), torch.randn(2, 4, 1, 3, 3)
        torch.testing.assert_close(temporal_coherence(target + stays, target), torch.zeros(2), atol=1e-9, rtol=0)
        flicker = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])[:, None, None]
        torch.testing.assert_close(temporal_coherence(target + flicker, target), torch.full((2,), 4.0))
        torch.testing.assert_close(temporal_coherence(target + flicker, target, "frame_sum"), torch.full((2,), 16.0))

    def test_one_frame_has_none(self) -> None:
        for reduction in ("mean", "frame_sum"):
            one = temporal_coherence(torch.ones(2, 4, 1, 3, 3), torch.zeros(2, 4, 1, 3, 3), reduction)
            assert torch.equal(one, torch.zeros(2))


class TestTraining:
    def test_a_training_learns_the_image_layers_and_the_network_and_brings_them(self, tmp_path, picture) -> None:
        clip = located("pkg://vidgen_moving_shapes/clips/red_circle_moves_right.mp4")
        data = ["data=folder", f"data.path={clip.parent}", "data.caption=a circle", "data.frames=2", "data.size=32"]
        asked = ["method=tf_t2v", "model=tiny", *data, "trainer.max_steps=1", f"output.dir={tmp_path / 'out'}"]
        assert main(["train", *asked, "trainer.workers=0", "tf_t2v.coherence_weight=0.5"]) == 0
        line = json.loads((tmp_path / "out/log.jsonl").read_text().splitlines()[-1])
        assert line["loss"] == pytest.approx(line["denoising"] + line["coherence"]) and line["coherence"] > 0
        learnt = load_file(tmp_path / "out/methods/tf_t2v.safetensors")
        assert {name.partition(".")[0] for name in learnt} == {"image", "denoiser"}
        asked = ["method=tf_t2v", *TINY, f"image={picture}", "prompt=a", f"output.dir={tmp_path / 'video'}"]
        assert main([*asked, f"tuned={tmp_path / 'out'}"]) == 0
        recorded = read_provenance(tmp_path / "video/run.yaml")["tf_t2v"]["weights"]
        assert recorded == {"tf_t2v.safetensors": file_hash(tmp_path / "out/methods/tf_t2v.safetensors")}

    def test_images_have_no_coherence_loss_nor_do_videos_whose_weight_is_zero(self) -> None:
        def losses(frames: int, weight: float) -> dict[str, Tensor]:
            batch, made = SimpleNamespace(num_frames=frames), torch.ones(1, 4, frames, 2, 2)
            prediction = SimpleNamespace(output=made, target=made)
            return TFT2V(coherence_weight=weight).losses(None, batch, prediction)  # type: ignore[arg-type]

        assert [set(losses(*case)) for case in ((1, 0.1), (4, 0.0), (4, 0.1))] == [set(), set(), {"coherence"}]


# ------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["image=nothing.png"], "image=nothing.png: it cannot be read as an image"),
        (["video=nothing.mp4"], "There is no video file 'nothing.mp4'"),
        (["image=a.png", "video=b.mp4"], "image= and video= are both given"),
        (["tf_t2v.conditions={dept: a.npy}"], "tf_t2v.conditions.dept: there is no such condition. Did you mean"),
        (["tf_t2v.conditions=[depth]"], "takes keys of its own: key.name=value (condition -> file of its maps"),
        (["tf_t2v.branch=contents"], "tf_t2v.branch is one of auto, content, motion"),
        (["tf_t2v.unguided_image=zero"], "zero_embedding, zero_tokens, omit, same"),
        (["model=tf_t2v"], "iic/tf-t2v. Download it and name it: model.path=tft2v_t2v_non_ema_512000.pth"),
        (["model=tf_t2v", "model.path=nothing.pth"], "model.path=nothing.pth: there is no such file"),
    ],
)
def test_a_mistake_is_one_paragraph(capsys, arguments: list[str], message: str) -> None:
    given = {key: value for key, _, value in (a.partition("=") for a in [*TINY, "prompt=a", *arguments])}
    assert main(["method=tf_t2v", *(f"{key}={value}" for key, value in given.items())]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_image_encoder_is_the_one_that_was_named(capsys, picture) -> None:
    assert main(["method=tf_t2v", *TINY, "prompt=a", f"image={picture}", "tf_t2v.encoder=/nowhere/clip"]) == 2
    assert "There is no image encoder in '/nowhere/clip'" in " ".join(capsys.readouterr().err.split())


def test_an_encoder_of_another_width_than_the_weights_were_trained_with_is_refused(capsys, picture, tmp_path) -> None:
    save_file(networks.fresh(tiny.build().denoiser, image_width=48).state_dict(), tmp_path / "own.safetensors")
    asked = ["method=tf_t2v", *TINY, "prompt=a", f"image={picture}", f"weights={tmp_path / 'own.safetensors'}"]
    assert main([*asked, f"output.dir={tmp_path / 'out'}"]) == 2
    assert "makes 64 features, but these weights read 48. Give the encoder" in " ".join(capsys.readouterr().err.split())


# ---------------------------------------------------------------------------------- beside a model that is there


@pytest.mark.parametrize(("wanted", "of_the_network"), [("none", False), ("all", True)])
def test_the_image_layers_can_be_trained_alone(backbone, wanted, of_the_network) -> None:
    with run_of(backbone, request()) as (_, method):
        training = SimpleNamespace(config={"trainer": {"trainable": wanted}})
        names = method.trainable(training, backbone)
    assert {"image.0.weight", "image.2.bias"} <= set(names)
    assert any(name.startswith("denoiser.") for name in names) == of_the_network


@pytest.mark.parametrize("with_network", [False, True])
def test_layers_that_were_learnt_beside_a_relative_are_used_with_a_word_and_its_network_is_not(
    backbone, tmp_path, with_network
) -> None:
    tensors = dict(networks.fresh(backbone.denoiser, image_width=64).state_dict())
    if with_network:
        tensors["denoiser.conv_in.weight"] = backbone.denoiser.conv_in.weight.detach().clone()
    save_file(tensors, tmp_path / "tf_t2v.safetensors", {"base": "another"})
    backbone.weights = {"unet/model.safetensors": "its hash"}
    settings = {**SETTINGS, "weights": {"tf_t2v": str(tmp_path / "tf_t2v.safetensors")}}
    run = make_run(request(), {"tf_t2v": TFT2V()}, settings)
    if with_network:
        with pytest.raises(BadRequest, match="tuned on another model"), opened(run, backbone):
            pass
    else:
        with opened(run, backbone):
            assert "learnt on other weights" in run.notes[0]
