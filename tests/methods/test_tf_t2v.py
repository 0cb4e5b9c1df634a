"""TF-T2V: the published file, what stands in the slots of cross-attention, the two branches, maps, and the training."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from vgen_weights import KNOWN, checkpoint
from vidgen_streaming import method as streaming
from vidgen_talc import method as talc
from vidgen_tf_t2v import extract, networks, published
from vidgen_tf_t2v.branches import LAST_MIDDLE, over_time
from vidgen_tf_t2v.coherence import temporal_coherence
from vidgen_tf_t2v.ddim import DIFFUSIONS
from vidgen_tf_t2v.extract import extracted
from vidgen_tf_t2v.maps import read_map
from vidgen_tf_t2v.method import TFT2V
from vidgen_tf_t2v.model import load
from vidgen_tf_t2v.prompts import NEGATIVE, SUFFIX, as_published
from vidgen_tf_t2v.reference import reference

from vidgen_core.attention import attentions
from vidgen_core.cli import main
from vidgen_core.conditioning import Branches, Condition, PerFrameText
from vidgen_core.config import compose
from vidgen_core.errors import BadRequest
from vidgen_core.models import tiny
from vidgen_core.models.backbone import Backbone
from vidgen_core.models.loading import file_hash, located
from vidgen_core.provenance import read_provenance
from vidgen_core.request import Request
from vidgen_core.run import Run, Window, opened
from vidgen_core.testing import make_run, request, video
from vidgen_core.video import read_video

T = torch.tensor(500)
CLIP = "pkg://vidgen_moving_shapes/weights/clip"
SETTINGS = {"tuned": None, "weights": {}, "model": {"untrained": True, "image_encoder": CLIP}}
TINY = ["model=tiny", "num_inference_steps=2", "height=32", "width=32", "num_frames=4"]


@pytest.fixture
def backbone() -> Backbone:
    """The tiny model, whose layers over time say something, as trained ones do."""
    made = tiny.build()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for name, parameter in made.denoiser.named_parameters():
            if "conv4" in name:
                parameter.normal_(std=0.1)
    return made


@pytest.fixture
def picture(tmp_path: Path) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "ref.png")
    return str(tmp_path / "ref.png")


def latents(frames: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 4, frames, 4, 4, generator=torch.Generator().manual_seed(frames))


@contextmanager
def run_of(backbone: Backbone, wanted: Request, **options: Any) -> Iterator[tuple[Run, TFT2V]]:
    method = TFT2V(**options)
    run = make_run(wanted, {"tf_t2v": method}, SETTINGS)
    with opened(run, backbone):
        yield run, method


def whole(run: Run) -> Window:
    return run.conditioned(Window(range(run.request.num_frames), range(run.request.num_frames)))


def predicted(backbone: Backbone, noisy: Tensor, **options: Any) -> Tensor:
    with run_of(backbone, request(num_frames=noisy.shape[2]), **options) as (run, _):
        return backbone.predict(noisy, T, backbone.prepare(whole(run).condition, ("cond",)))


# -------------------------------------------------------------------------------------------- the published file


class TestCheckpoint:
    def test_every_tensor_finds_its_place(self, backbone) -> None:
        tensors = checkpoint(backbone)
        unet = published.read_unet(tensors, "a.pth", torch.float32)
        assert published.geometry({k: list(t.shape) for k, t in tensors.items()}, "a.pth") == KNOWN
        wanted = backbone.denoiser.state_dict()
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in unet.state_dict().items())
        assert torch.equal(unet.carried["stem.weight"], tensors[published.FIRST][:, 4:])
        assert {name.split(".")[1] for name in unet.carried if name.startswith("encoders")} == {"depth", "masked"}

    def test_the_width_of_heads_can_be_told_where_it_is_not_as_published(self, backbone) -> None:
        unet = published.read_unet(checkpoint(backbone), "a.pth", torch.float32, head_width=16)
        assert {module.heads for _, module in attentions(unet.transformer_in)} == {4}
        assert {module.heads for _, module in attentions(unet.mid_block)} == {4}
        with pytest.raises(BadRequest, match="Heads of 24 features do not divide the widths of 'a.pth'"):
            published.read_unet(checkpoint(backbone), "a.pth", torch.float32, head_width=24)

    @pytest.fixture
    def file(self, backbone, tmp_path: Path) -> Path:
        backbone.save(tmp_path / "parts", torch.float32)
        torch.save({"state_dict": checkpoint(backbone), "step": 7}, tmp_path / "tft2v.pth")
        return tmp_path / "tft2v.pth"

    def test_its_text_to_video_is_that_of_the_stock_network(self, backbone, file) -> None:
        backbone.scheduler_config = dict(DIFFUSIONS["v_zero_snr"])
        loaded = load(str(file), str(file.parent / "parts"))
        assert torch.equal(video(request(), backbone=loaded), video(request(), backbone=backbone))
        assert next(iter(loaded.weights)) == "unet/tft2v.pth"

    def test_how_it_diffuses_is_that_of_its_kind_unless_the_user_says(self, backbone, file, tmp_path) -> None:
        torch.save(checkpoint(backbone, conditions=()), tmp_path / "modelscope.pth")
        tf_t2v, modelscope, told = (
            load(str(tmp_path / name), str(tmp_path / "parts"), diffusion=diffusion).scheduler_config
            for name, diffusion in (("tft2v.pth", None), ("modelscope.pth", None), ("modelscope.pth", "cosine_v"))
        )
        assert tf_t2v["prediction_type"] == "v_prediction" and tf_t2v["rescale_betas_zero_snr"]
        assert modelscope["prediction_type"] == "epsilon" and "rescale_betas_zero_snr" not in modelscope
        assert told["beta_schedule"] == "squaredcos_cap_v2"

    def test_the_command_line_makes_a_video_of_it_with_the_prompt_of_the_release(self, file, picture, tmp_path) -> None:
        asked = ["method=tf_t2v", "model=tf_t2v", f"model.path={file}", f"model.parts={file.parent / 'parts'}"]
        asked += [*TINY[1:], f"image={picture}", "prompt=a dog", f"model.image_encoder={CLIP}"]
        assert main([*asked, f"output.dir={tmp_path / 'out'}"]) == 0
        assert len(read_video(tmp_path / "out/video.mp4")) == 4
        assert compose(asked).config["methods"]["tf_t2v"]["published_prompt"] is True

    def test_one_is_a_model_and_not_a_methods_weights(self, file, capsys) -> None:
        assert main(["method=tf_t2v", *TINY, "prompt=a", f"weights={file}"]) == 2
        assert f"Give it as that: model=tf_t2v model.path={file}" in " ".join(capsys.readouterr().err.split())

    def test_a_model_without_the_methods_layers_is_refused(self, backbone, tmp_path, capsys) -> None:
        backbone.save(tmp_path / "model", torch.float32)
        asked = ["method=tf_t2v", "model=modelscope", f"model.path={tmp_path / 'model'}", "prompt=a", *TINY[1:]]
        assert main([*asked, f"output.dir={tmp_path / 'out'}"]) == 2
        assert "or train them: vidgen train method=tf_t2v" in " ".join(capsys.readouterr().err.split())


# ----------------------------------------------------------------------------------------------------- the slots


def slots(wanted: Request, **options: Any) -> tuple[TFT2V, Branches]:
    with run_of(tiny.build(), wanted, **options) as (run, method):
        return method, whole(run).condition["text"]


class TestSlots:
    def test_without_an_image_there_are_no_tokens_of_one(self) -> None:
        _, text = slots(request())
        assert (text.cond.tokens, text.uncond.tokens, text.cond.length) == ({}, {}, 77)

    @pytest.mark.parametrize("fill", ["zero_tokens", "zero_embedding"])
    def test_an_empty_image_slot_can_be_filled_in_both_branches(self, fill) -> None:
        method, text = slots(request(), no_image=fill)
        image = method.networks.image
        with torch.no_grad():
            wanted = torch.zeros(4, 32) if fill == "zero_tokens" else image(torch.zeros(image.width))
        for branch in (text.cond, text.uncond):
            assert torch.equal(branch.tokens["tf_t2v"][0], wanted)
            assert branch.length == 81

    @pytest.mark.parametrize("fill", ["zero_tokens", "zero_embedding", "omit", "same"])
    def test_beside_an_image_the_unguided_slot_holds_what_was_asked(self, picture, fill) -> None:
        method, text = slots(request(image=picture), unguided_image=fill)
        image, shown = method.networks.image, text.cond.tokens["tf_t2v"][0]
        with torch.no_grad():
            torch.testing.assert_close(shown, image(method.embedding)[0])
            empty = image(torch.zeros(image.width))
        wanted = {"zero_tokens": torch.zeros(4, 32), "zero_embedding": empty, "same": shown}
        if fill == "omit":
            assert text.uncond.tokens == {}
        else:
            torch.testing.assert_close(text.uncond.tokens["tf_t2v"][0], wanted[fill])

    def test_an_image_alone_stands_beside_the_negative_prompt_or_zeros(self, picture) -> None:
        wanted = request(negative=("bad",), image=picture)
        _, text = slots(wanted, text="negative")
        assert torch.equal(text.cond.embeds[text.cond.index], text.uncond.embeds[text.uncond.index])
        _, text = slots(wanted, text="zero_tokens")
        assert not text.cond.embeds.any() and text.cond.length == 81
        assert text.uncond.embeds.any()

    def test_every_filling_makes_another_video(self, picture) -> None:
        wanted, backbone = request(image=picture), tiny.build()
        fills: list[Mapping[str, Any]] = [
            *({"unguided_image": fill} for fill in ("zero_tokens", "zero_embedding", "omit", "same")),
            *({"text": fill} for fill in ("negative", "zero_tokens")),
        ]
        made = [video(wanted, {"tf_t2v": TFT2V(**options)}, SETTINGS, backbone) for options in fills]
        made += [
            video(request(), {"tf_t2v": TFT2V(no_image=fill)}, SETTINGS, backbone)
            for fill in ("omit", "zero_embedding", "zero_tokens")
        ]
        assert all(not torch.equal(a, b) for i, a in enumerate(made) for b in made[:i])

    def test_text_alone_is_the_model_without_the_method(self, backbone) -> None:
        assert torch.equal(
            video(request(), {"tf_t2v": TFT2V()}, SETTINGS, backbone), video(request(), backbone=backbone)
        )

    def test_the_videos_of_a_batch_read_the_same_picture(self, picture) -> None:
        both = video(request(videos=2, image=picture), {"tf_t2v": TFT2V()}, SETTINGS)
        alone = video(request(image=picture), {"tf_t2v": TFT2V()}, SETTINGS)
        torch.testing.assert_close(both[:1], alone, atol=1e-4, rtol=0)

    def test_the_model_is_as_it_was_afterwards(self, backbone, picture) -> None:
        forwards = {name: module.forward for name, module in backbone.named_modules()}
        names, reads = list(backbone.state_dict()), backbone.reads
        video(request(image=picture), {"tf_t2v": TFT2V()}, SETTINGS, backbone)
        assert {name: module.forward for name, module in backbone.named_modules()} == forwards
        assert (list(backbone.state_dict()), backbone.reads, backbone.preparers) == (names, reads, {})
        assert not backbone.denoiser.conv_in._forward_hooks


# -------------------------------------------------------------------------------------------------- the branches


@contextmanager
def multiplied_by_zero(backbone: Backbone, but: str = "") -> Iterator[None]:
    """What every layer over time adds is computed and counts nothing, as published."""

    def nothing(module: Any, arguments: Any, out: Any) -> Any:
        x = arguments[0]
        y = out[0] if isinstance(out, tuple) else out
        return (x + 0.0 * (y - x),) if isinstance(out, tuple) else x + 0.0 * (y - x)

    with ExitStack() as stack:
        for name, layer in over_time(backbone.denoiser):
            if name != but:
                stack.callback(layer.register_forward_hook(nothing).remove)
        yield


def plain(backbone: Backbone, noisy: Tensor) -> Tensor:
    texts = backbone.encode_text(["a dog runs"])
    index = torch.zeros(len(noisy), noisy.shape[2], dtype=torch.long)
    with backbone.attention_installed("sdpa"):
        inputs = backbone.prepare(Condition(text=PerFrameText(texts, index)), ("cond",))
        return backbone.predict(noisy, T, inputs)


@torch.no_grad()
class TestBranches:
    def test_an_image_runs_the_spatial_layers_bit_for_bit_as_multiplied_by_zero(self, backbone) -> None:
        with multiplied_by_zero(backbone):
            expected = plain(backbone, latents(1))
        assert torch.equal(predicted(backbone, latents(1)), expected)
        assert not torch.equal(plain(backbone, latents(1)), expected)

    def test_the_one_layer_that_the_release_keeps_can_be_kept(self, backbone) -> None:
        with multiplied_by_zero(backbone, but=LAST_MIDDLE):
            expected = plain(backbone, latents(1))
        kept = predicted(backbone, latents(1), keep_last=True)
        assert torch.equal(kept, expected) and not torch.equal(predicted(backbone, latents(1)), kept)

    def test_nothing_over_time_is_computed_for_an_image(self, backbone) -> None:
        calls = []
        inside = [m for _, layer in over_time(backbone.denoiser) for m in layer.modules() if m is not layer]
        handles = [module.register_forward_hook(lambda m, a, o: calls.append(m)) for module in inside]
        predicted(backbone, latents(1))
        assert not calls
        predicted(backbone, latents(2))
        assert len(calls) == len({*inside})
        for handle in handles:
            handle.remove()

    def test_the_content_branch_sees_every_frame_by_itself(self, backbone) -> None:
        frames = latents(3)
        together = predicted(backbone, frames, branch="content")
        for i in range(3):
            torch.testing.assert_close(
                together[:, :, i : i + 1], predicted(backbone, frames[:, :, i : i + 1]), atol=2e-6, rtol=1e-5
            )

    def test_the_motion_branch_runs_everything_for_one_frame_too(self, backbone) -> None:
        assert torch.equal(predicted(backbone, latents(1), branch="motion"), plain(backbone, latents(1)))


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

    @pytest.mark.parametrize("steps", [1, 6, 7, 30, 333, 999])
    def test_any_number_of_steps_is_that_many_and_stays_finite(self, steps) -> None:
        run = make_run(request(num_inference_steps=steps))
        run.backbone = SimpleNamespace(scheduler_config=DIFFUSIONS["v_zero_snr"], device=torch.device("cpu"))
        scheduler = run.make_scheduler()
        timesteps = run.timesteps(scheduler)
        assert len(timesteps) == steps
        x = torch.randn(1, 4, 1, 2, 2, generator=torch.Generator().manual_seed(0))
        for t in timesteps:
            x = scheduler.step(torch.ones_like(x), t, x, return_dict=False)[0]
        assert x.isfinite().all()

    def test_a_step_at_the_end_of_the_schedule_is_visited_or_refused(self) -> None:
        run = make_run(request(num_inference_steps=999))
        run.backbone = SimpleNamespace(scheduler_config=DIFFUSIONS["v_zero_snr"], device=torch.device("cpu"))
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


# ----------------------------------------------------------------------------------------------------------- maps


class TestMaps:
    def test_a_map_is_read_where_there_is_an_encoder_and_changes_the_video(self, tmp_path, backbone) -> None:
        rng = np.random.default_rng(0)
        for name in ("one", "other"):
            np.save(tmp_path / f"{name}.npy", rng.random((4, 40, 48), np.float32))
        one, other = (
            video(request(), {"tf_t2v": TFT2V(maps={"depth": str(tmp_path / f"{name}.npy")})}, SETTINGS, backbone)
            for name in ("one", "other")
        )
        assert not torch.equal(one, other)
        assert not torch.equal(one, video(request(), backbone=backbone))

    def test_its_channels_are_encoded_once_for_all_steps(self, tmp_path, monkeypatch) -> None:
        from vidgen_tf_t2v.map_encoder import MapEncoder

        calls, forward = [], MapEncoder.forward
        monkeypatch.setattr(MapEncoder, "forward", lambda *a: calls.append(1) or forward(*a))
        np.save(tmp_path / "depth.npy", np.zeros((4, 32, 32), np.float32))
        method = TFT2V(maps={"depth": str(tmp_path / "depth.npy")})
        video(request(num_inference_steps=3), {"tf_t2v": method}, SETTINGS)
        assert len(calls) == 1

    def test_pictures_count_by_brightness_or_by_colours(self, tmp_path) -> None:
        Image.new("RGB", (6, 4), (255, 0, 0)).save(tmp_path / "red.png")
        grey, colours = (read_map(name, str(tmp_path / "red.png"), 3) for name in ("sketch", "local_image"))
        torch.testing.assert_close(grey, torch.full((1, 3, 4, 6), 0.299))
        assert torch.equal(colours[:, 2, 0, 0], torch.tensor([1.0, 0.0, 0.0]))

    def test_arrays_are_taken_as_they_are_one_for_all_frames_or_one_for_each(self, tmp_path) -> None:
        array = np.random.default_rng(0).normal(size=(3, 2, 4, 6)).astype(np.float32)
        np.save(tmp_path / "motion.npy", array)
        assert torch.equal(
            read_map("motion", str(tmp_path / "motion.npy"), 2), torch.from_numpy(array[:2]).transpose(0, 1)
        )
        np.save(tmp_path / "one.npy", array[:1, 0])
        assert read_map("canny", str(tmp_path / "one.npy"), 5).shape == (1, 5, 4, 6)
        np.save(tmp_path / "histogram.npy", np.ones((2, 156)))
        assert read_map("histogram", str(tmp_path / "histogram.npy"), 2).shape == (156, 2, 1, 1)

    @pytest.mark.parametrize(
        ("name", "array", "message"),
        [
            ("depth", np.zeros((2, 4, 4)), "holds 2 maps for 3 frames"),
            ("motion", np.zeros((3, 4, 4)), r"must be \(frames, 2, height, width\)"),
            ("depth", np.full((3, 4, 4), np.nan), "holds NaN or infinity"),
            ("depth", np.array(["a"]), "no array of real numbers"),
        ],
    )
    def test_what_is_no_map_is_refused(self, tmp_path, name, array, message) -> None:
        np.save(tmp_path / "map.npy", array)
        with pytest.raises(BadRequest, match=message):
            read_map(name, str(tmp_path / "map.npy"), 3)


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
        (["tf_t2v.maps.dept=a.npy"], "tf_t2v.maps.dept: there is no such condition. Did you mean 'depth'"),
        (["tf_t2v.maps.depth=a.npy"], "tf_t2v.maps.depth=a.npy: there is no such file"),
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


# --------------------------------------------------------------------------------------------- maps made from a video


CIRCLE = located("pkg://vidgen_moving_shapes/clips/red_circle_moves_right.mp4")


class TestExtraction:
    def test_edges_lie_around_the_object_and_the_first_frame_stays(self) -> None:
        edges = extracted("canny", str(CIRCLE), 4)
        assert edges.shape == (1, 4, 64, 64) and 20 < edges[0, 0].sum() < 200
        columns = [float((frame.nonzero()[:, 1]).float().mean()) for frame in edges[0]]
        assert columns == sorted(columns)  # the circle moves right
        first = extracted("local_image", str(CIRCLE), 4)
        assert torch.equal(first[:, 0], first[:, 3]) and first.shape == (3, 4, 64, 64) and first.max() <= 1

    def test_the_codec_moves_the_blocks_of_the_circle_to_the_right(self) -> None:
        moved = extracted("motion", str(CIRCLE), 8)
        assert moved.shape == (2, 8, 64, 64) and not moved[:, 0].any()
        assert moved[0, 1:].mean() > 0 and moved[0].abs().sum() > moved[1].abs().sum()

    def test_depth_is_the_estimators_on_the_released_scale(self, monkeypatch) -> None:
        seen = []

        def near(frames: Tensor, estimator: str, device: Any) -> Tensor:
            seen.append(estimator)
            return torch.full((len(frames), 8, 8), 40.0)

        monkeypatch.setattr(extract, "estimate", near)
        assert torch.equal(extracted("depth", str(CIRCLE), 2), torch.full((1, 2, 8, 8), 2.0))
        assert torch.equal(extracted("depth", str(CIRCLE), 2, "mine"), torch.full((1, 2, 8, 8), 2.0))
        assert seen == ["Intel/dpt-large", "mine"]

    def test_a_picture_serves_all_frames(self, picture) -> None:
        edges = extracted("canny", picture, 3)
        assert edges.shape == (1, 3, 48, 64) and torch.equal(edges[:, 0], edges[:, 2])

    def test_made_maps_change_a_video_as_given_ones_do(self, tmp_path, backbone) -> None:
        np.save(tmp_path / "canny.npy", extracted("canny", str(CIRCLE), 4)[0].numpy())
        made, given, none = (
            video(request(), {"tf_t2v": TFT2V(**options)}, SETTINGS, backbone)
            for options in (
                {"extract": {"canny": str(CIRCLE)}},
                {"maps": {"canny": str(tmp_path / "canny.npy")}},
                {},
            )
        )
        assert torch.equal(made, given) and not torch.equal(made, none)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"extract": {"sketch": str(CIRCLE)}}, "canny, local_image, depth, motion. Others are given as a file"),
            ({"extract": {"canny": "nothing.mp4"}}, "tf_t2v.extract.canny=nothing.mp4: there is no such file"),
            (
                {"extract": {"canny": str(CIRCLE)}, "maps": {"canny": str(CIRCLE)}},
                "are both given. Leave one out",
            ),
        ],
    )
    def test_what_cannot_be_made_is_refused(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(BadRequest, match=message):
            TFT2V(**arguments).prepare_request(request())

    def test_a_clip_that_is_too_short_is_refused(self) -> None:
        for name in ("canny", "motion"):
            with pytest.raises(BadRequest, match=r"frames for 90. Ask for as many"):
                extracted(name, str(CIRCLE), 90)


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
