"""TF-T2V's network: the published file, what stands in the slots of cross-attention, and the two branches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tf_t2v_runs import CLIP, SETTINGS, TINY, T, latents, predicted, run_of, whole
from torch import Tensor
from vgen_weights import KNOWN, checkpoint
from vidgen_tf_t2v import published
from vidgen_tf_t2v.branches import LAST_MIDDLE, over_time
from vidgen_tf_t2v.ddim import DIFFUSIONS
from vidgen_tf_t2v.method import TFT2V
from vidgen_tf_t2v.model import load
from vidgen_tf_t2v.prompts import as_published

from vidgen_core.attention import attentions
from vidgen_core.cli import main
from vidgen_core.conditioning import Branches, Condition, PerFrameText
from vidgen_core.config import compose
from vidgen_core.errors import BadRequest
from vidgen_core.models import tiny
from vidgen_core.models.backbone import Backbone
from vidgen_core.moments import Moments
from vidgen_core.request import Request
from vidgen_core.run import Run, Window, lay_out, opened
from vidgen_core.testing import make_run, request, video
from vidgen_core.video import read_video

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
        asked = ["method=tf_t2v", "model=tf_t2v", f"weights={file}", f"model.parts={file.parent / 'parts'}"]
        asked += [*TINY[1:], f"image={picture}", "prompt=a dog", f"model.image_encoder={CLIP}"]
        assert main([*asked, f"output.dir={tmp_path / 'out'}"]) == 0
        assert len(read_video(tmp_path / "out/video.mp4")) == 4
        assert compose(asked).config["methods"]["tf_t2v"]["published_prompt"] is True

    def test_an_image_alone_says_what_its_video_shows_beside_the_negative_prompt(self, file, picture, tmp_path) -> None:
        def made(folder: str, *asked: str) -> Tensor:
            common = ["method=tf_t2v", "model=tf_t2v", f"weights={file}", f"model.parts={file.parent / 'parts'}"]
            common += [*TINY[1:], f"model.image_encoder={CLIP}", "output.latents=true"]
            assert main([*common, *asked, f"output.dir={tmp_path / folder}"]) == 0
            return load_file(tmp_path / folder / "latents.safetensors")["latents"]

        alone = made("alone", f"image={picture}")
        assert torch.equal(alone, made("told", f"image={picture}", "prompt=a dog", "tf_t2v.text=negative"))
        assert not torch.equal(alone, made("zeros", f"image={picture}", "tf_t2v.no_text=zero_tokens"))
        assert main(["replay", str(tmp_path / "alone/run.yaml"), f"output.dir={tmp_path / 'again'}"]) == 0
        assert torch.equal(alone, load_file(tmp_path / "again/latents.safetensors")["latents"])

    @pytest.mark.parametrize("told", ["image=ref.png", "video=a.mp4", "tf_t2v.conditions={depth: a.npy}"])
    def test_what_says_what_a_video_shows_needs_no_prompt_nor_the_example_of_a_model(self, told) -> None:
        asked = compose(["method=tf_t2v", "model=tiny", told])
        assert asked.request.textless and [video.prompts for video in asked.request.videos] == [("",)]
        assert as_published(asked.request).videos[0].prompts == ("",)
        assert not compose(["method=tf_t2v", "model=tiny", told, "prompt=a"]).request.textless
        assert not compose(["method=tf_t2v", "model=tf_t2v"]).request.videos
        with pytest.raises(BadRequest, match="The prompt is empty"):
            compose(["method=tf_t2v", "model=tiny", told, "prompt="])

    def test_what_is_asked_where_nothing_is_said_is_as_in_the_release(self, file) -> None:
        asked = compose(["method=tf_t2v", "model=tf_t2v", f"weights={file}", "prompt=a"])
        wanted = asked.request
        assert (wanted.num_frames, wanted.height, wanted.width) == (16, 256, 448)
        assert (wanted.guidance_scale, wanted.num_inference_steps, wanted.fps) == (9.0, 50, 8)
        run = Run(wanted, asked.config, Moments({}))
        run.backbone = load(str(file), str(file.parent / "parts"))
        assert type(run.make_scheduler()).__name__ == "DDIMScheduler"

    @pytest.mark.parametrize(
        ("name", "frames", "height", "width"),
        [
            ("tft2v_vcomposer_non_ema_254000.pth", 16, 256, 448),
            ("tft2v_t2v_32frames_non_ema_560000.pth", 32, 256, 448),
            ("tft2v_vcomposer_non_ema_270000_896x512.pth", 16, 512, 896),
        ],
    )
    def test_the_published_sizes_and_lengths_go_through_with_maps_and_without_a_warning(
        self, file, name, frames, height, width, tmp_path
    ) -> None:
        file = file.rename(file.with_name(name))
        np.save(tmp_path / "depth.npy", np.ones((1, 1, 32, 56), np.float32))
        sizes = [f"num_frames={frames}", f"height={height}", f"width={width}"]
        asked = compose(["method=tf_t2v", "model=tf_t2v", f"weights={file}", "prompt=a", *sizes])
        method = TFT2V(branch="motion", conditions={"depth": str(tmp_path / "depth.npy")})
        run = make_run(asked.request, {"tf_t2v": method}, {"model": asked.config["model"]})
        backbone = load(str(file), str(file.parent / "parts"))
        with opened(run, backbone):
            assert run.groups[0].windows[0].span == range(frames)
            window = run.prepare(Window(range(frames), range(frames)))
            assert window.latents is not None
            assert window.latents.shape == (1, 4, frames, height // 8, width // 8)
            assert window.condition["spatial"].shape == (1, 8, frames, height // 8, width // 8)
            # One frame goes through the network here: more of this size take a while.
            first = run.prepare(Window(range(1), range(1)))
            assert first.latents is not None
            made = backbone.predict(first.latents, T, backbone.prepare(first.condition, ("cond",)))
        assert made.shape == first.latents.shape and made.isfinite().all()
        assert not [note for note in run.notes if "trained for" in note]

    def test_thirty_two_frames_go_through_the_network_together(self, file) -> None:
        noisy = latents(32)
        backbone = load(str(file), str(file.parent / "parts"))
        made = predicted(backbone, noisy)
        assert made.shape == noisy.shape
        # The last is told from the first: nothing cuts them apart.
        noisy[:, :, 31] += 1.0
        assert not torch.equal(predicted(backbone, noisy)[:, :, 0], made[:, :, 0])

    def test_more_frames_than_a_checkpoint_was_trained_for_are_told(self, file) -> None:
        run, parts = make_run(request(num_frames=32)), str(file.parent / "parts")
        lay_out(run, load(str(file), parts))
        assert run.notes == ["32 frames are denoised together; the model was trained for 16."]
        assert load(str(file), parts, trained_frames=24).trained_frames == 24

    def test_it_is_named_by_weights_or_as_the_path_of_the_model_beside_weights(self) -> None:
        asked = ["method=tf_t2v", "model=tf_t2v", "prompt=a"]
        alone = compose([*asked, "weights=tft2v.pth"]).config
        assert (alone["model"]["path"], alone["weights"]) == ("tft2v.pth", {})
        both = compose([*asked, "weights=learnt.safetensors", "model.path=tft2v.pth"]).config
        assert (both["model"]["path"], both["weights"]) == ("tft2v.pth", {"tf_t2v": "learnt.safetensors"})

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
        assert not text.cond.embeds[text.cond.index].any() and text.cond.length == 81
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
