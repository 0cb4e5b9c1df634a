"""Image models: a video is denoised frame by frame as diffusers denoises the images of a batch."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import pytest
import torch

from vidgen_core import hookimpl
from vidgen_core.conditioning import Branches, Condition, PerFrameText
from vidgen_core.depth_map import depth_channel
from vidgen_core.errors import BadRequest, VidgenError
from vidgen_core.models import tiny, unet2d
from vidgen_core.testing import latents, request, video

FRAMES = 3
T = torch.tensor(7)
WANTED = {"num_frames": 1, "height": 32, "width": 32, "num_inference_steps": 3, "guidance_scale": 7.5}

# The keys in which the published image models differ from one another.
STABLE_1 = {"attention_head_dim": 2}
STABLE_2 = {
    "attention_head_dim": [2, 4],
    "use_linear_projection": True,
    "upcast_attention": True,
    "dual_cross_attention": False,
    "only_cross_attention": False,
    "transformer_layers_per_block": 1,
}


def image_model(in_channels: int = 4, **keys) -> unet2d.ImageBackbone:
    backbone = tiny.build_image(in_channels=in_channels)
    torch.manual_seed(0)
    config = {**backbone.denoiser.config, **(keys or STABLE_1)}
    config.pop("_use_default_values")  # whose keys would not be taken from here
    backbone.denoiser = diffusers.UNet2DConditionModel.from_config(config).eval()
    assert backbone.denoiser.config.items() >= (keys or STABLE_1).items()
    backbone.scheduler_config["prediction_type"] = "v_prediction"
    return backbone


def sample(batch: int = 2, channels: int = 4):
    return torch.randn(batch, channels, FRAMES, 8, 8, generator=torch.Generator().manual_seed(0))


def rows(frames):
    """(B, C, F, h, w) -> (B * F, C, h, w)."""
    return frames.transpose(1, 2).flatten(0, 1)


@pytest.mark.parametrize("keys", [STABLE_1, STABLE_2], ids=["1.x", "2.x"])
@pytest.mark.parametrize("index", [[[0, 0, 0], [1, 1, 1]], [[0, 1, 2], [2, 0, 0]]], ids=["per video", "per frame"])
@torch.no_grad()
def test_every_frame_is_an_image_of_the_stock_network(keys, index) -> None:
    backbone = image_model(**keys)
    texts = backbone.encode_text(["one", "two", "three"])
    expected = backbone.denoiser(rows(sample()), T, texts[torch.tensor(index).flatten()]).sample
    with backbone.attention_installed("sdpa"):
        inputs = backbone.prepare(Condition(text=PerFrameText(texts, torch.tensor(index))), ["cond"])
        found = backbone.predict(sample(), T, inputs)
    assert torch.allclose(rows(found), expected, atol=2e-6)


@torch.no_grad()
def test_a_model_that_asks_for_single_precision_has_it_under_autocast_too(monkeypatch) -> None:
    kernel, seen = torch.nn.functional.scaled_dot_product_attention, []

    def watched(q, k, v):
        seen.append((q.dtype, k.dtype, v.dtype, torch.is_autocast_enabled("cpu")))
        return kernel(q, k, v)

    backbone = image_model(**STABLE_2)
    text = PerFrameText(backbone.encode_text(["one"]), torch.zeros(2, FRAMES, dtype=int))
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    with backbone.attention_installed("sdpa"), torch.autocast("cpu", dtype=torch.bfloat16):
        backbone.predict(sample(), T, backbone.prepare(Condition(text=text), ["cond"]))
    assert set(seen) == {(torch.float32, torch.float32, torch.float32, False)}


@torch.no_grad()
def test_every_video_may_have_a_timestep_of_its_own() -> None:
    backbone = image_model()
    texts, steps = backbone.encode_text(["one"]), torch.tensor([3, 900])
    expected = backbone.denoiser(rows(sample()), steps.repeat_interleave(FRAMES), texts.expand(6, -1, -1)).sample
    with backbone.attention_installed("sdpa"):
        inputs = backbone.prepare(Condition(text=PerFrameText(texts, torch.zeros(2, FRAMES, dtype=int))), ["cond"])
        found = backbone.predict(sample(), steps, inputs)
    assert torch.allclose(rows(found), expected, atol=2e-6)


@torch.no_grad()
def test_extra_channels_follow_the_noisy_ones_in_both_branches() -> None:
    backbone = image_model(in_channels=5)
    texts, near, far = backbone.encode_text(["one", ""]), sample(channels=1), torch.zeros(2, 1, FRAMES, 8, 8)
    text = Branches(*(PerFrameText(texts, torch.full((2, FRAMES), row)) for row in (0, 1)))
    assert backbone.reads == {"text", "channels"}
    with backbone.attention_installed("sdpa"):
        condition = Condition(text=text, channels=Branches(near, far))
        both = backbone.predict(torch.cat([sample()] * 2), T, backbone.prepare(condition, ["uncond", "cond"]))
    for found, row, depth in zip(both.chunk(2), (1, 0), (far, near), strict=True):
        inputs = rows(torch.cat([sample(), depth], dim=1))
        expected = backbone.denoiser(inputs, T, texts[row].expand(6, -1, -1)).sample
        assert torch.allclose(rows(found), expected, atol=2e-6)


class Depth:
    @hookimpl(claims="channels")
    def condition(self, run, window):
        ramp = torch.linspace(0, 1, run.request.width).expand(1, len(window.span), run.request.height, -1)
        return {"channels": depth_channel(ramp, run.backbone.latent_shape(run.request.height, run.request.width)[1:])}


def test_a_model_of_five_channels_makes_videos_of_four() -> None:
    backbone = image_model(in_channels=5)
    (window,) = latents(request("a dog", **WANTED), {"depth": Depth()}, backbone=backbone)
    assert window.latents.shape == (1, 4, 1, 4, 4)


def test_extra_channels_that_nobody_supplies_are_an_error() -> None:
    with pytest.raises(VidgenError, match="reads 1 latent channels beside the noisy ones, such as depth"):
        video(request("a dog", **WANTED), backbone=image_model(in_channels=5))


def test_extra_channels_that_nobody_reads_are_an_error() -> None:
    with pytest.raises(VidgenError, match="'channels' was supplied but nothing in the network reads it"):
        video(request("a dog", **WANTED), {"depth": Depth()}, backbone=image_model())


@pytest.fixture
def noise():
    given = torch.randn(1, 4, 1, 4, 4, generator=torch.Generator().manual_seed(0))

    class Given:
        @hookimpl
        def start_latents(self):
            return given

    return given, Given()


def test_one_frame_equals_the_stable_diffusion_pipeline(noise) -> None:
    backbone, (given, start) = image_model(**STABLE_2), noise
    scheduler = diffusers.DDIMScheduler.from_config(backbone.scheduler_config)
    parts = (backbone.vae, backbone.text_encoder, backbone.tokenizer, backbone.denoiser, scheduler)
    pipe = diffusers.StableDiffusionPipeline(*parts, None, None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    keys = {key: value for key, value in WANTED.items() if key != "num_frames"}
    expected = pipe("a dog", negative_prompt="dark", latents=given[:, :, 0], output_type="latent", **keys).images
    (window,) = latents(request("a dog", negative=("dark",), **WANTED), {"given": start}, backbone=backbone)
    assert (window.latents[:, :, 0] - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_depth_is_prepared_as_the_depth_pipeline_does() -> None:
    nearness = torch.rand(2, FRAMES, 64, 48, generator=torch.Generator().manual_seed(0))
    pipe = diffusers.StableDiffusionDepth2ImgPipeline
    stub = type("Stub", (), {"vae_scale_factor": 8})()
    expected = pipe.prepare_depth_map(
        stub, torch.zeros(6, 3, 64, 48), nearness.flatten(0, 1), 6, False, torch.float32, torch.device("cpu")
    )
    assert torch.equal(rows(depth_channel(nearness, (8, 6))), expected)


@torch.no_grad()
def test_a_saved_model_loads_again_with_the_pipeline_that_it_names(tmp_path: Path) -> None:
    backbone = image_model(in_channels=5, **STABLE_2)
    backbone.pipeline = "StableDiffusionDepth2ImgPipeline"
    backbone.save(tmp_path / "model", torch.float32)
    again = unet2d.load(str(tmp_path / "model"))
    assert again.pipeline == "StableDiffusionDepth2ImgPipeline"
    assert again.latent_shape(32, 32) == (4, 4, 4)
    text, inputs = backbone.encode_text(["one"]).expand(6, -1, -1), rows(sample(channels=5))
    assert torch.equal(again.denoiser(inputs, T, text).sample, backbone.denoiser(inputs, T, text).sample)


def test_a_model_that_reads_more_than_text_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    image_model().save(folder, torch.float32)
    file = folder / "unet" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"class_embed_type": "identity"}))
    with pytest.raises(BadRequest, match="reads more than text: its class_embed_type is 'identity'"):
        unet2d.load(str(folder))
