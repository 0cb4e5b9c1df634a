"""SR600: how its network differs from ModelScope's, and frames refined by it inside a run."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from vgen_weights import checkpoint, network
from vidgen_streaming.method import build as streaming
from vidgen_tf_t2v import model
from vidgen_tf_t2v.ddim import inverted
from vidgen_tf_t2v.method import TFT2V
from vidgen_tf_t2v.refinement import halved, twice_each
from vidgen_tf_t2v.sr600 import as_sr600, fits, load, rows_below

from vidgen_core.cli import main
from vidgen_core.config import compose
from vidgen_core.errors import BadRequest
from vidgen_core.models import tiny
from vidgen_core.models.backbone import Backbone
from vidgen_core.run import FrameBlock, Window, frames, opened
from vidgen_core.testing import make_run, request
from vidgen_core.video import read_video

CLIP = "pkg://vidgen_moving_shapes/weights/clip"


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny.build()


@pytest.fixture(scope="module")
def files(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tiny model as a folder, and its network as a checkpoint of the published names."""
    folder = tmp_path_factory.mktemp("sr600")
    backbone.save(folder / "parts", torch.float32)
    save_file({name: tensor.contiguous() for name, tensor in network(backbone).items()}, folder / "sr.safetensors")
    return {"refine": str(folder / "sr.safetensors"), "refine_parts": str(folder / "parts")}


class TestNetwork:
    def test_rows_of_the_published_size_come_back(self) -> None:
        assert [rows_below(h) for h in (90, 46, 24)] == [46, 24, 13]
        assert fits(720, 1280, levels=4)
        assert fits(528, 1280, 4) and not fits(512, 1280, 4) and not fits(720, 1288, 4)

    def test_it_keeps_the_shape_where_rows_do_not_halve_evenly_and_computes_something_else(self, backbone) -> None:
        latents = torch.randn(1, 4, 2, 6, 8, generator=torch.Generator().manual_seed(0))
        text = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(1))
        network = tiny.build().denoiser
        with torch.no_grad():
            plain = network(latents, 500, text).sample
            refining = as_sr600(network)(latents, 500, text).sample
        assert refining.shape == plain.shape == latents.shape
        assert (refining - plain).abs().max() > 1e-3

    def test_downsampling_pads_two_rows_and_upsampling_drops_two(self) -> None:
        network = as_sr600(tiny.build().denoiser)
        cells = torch.randn(2, 32, 6, 8)
        down = network.down_blocks[0].downsamplers[0]
        up = network.up_blocks[0].upsamplers[0]
        assert down(cells).shape[-2:] == (4, 4)
        below = torch.randn(2, 64, 4, 4)
        doubled = below.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)
        assert torch.allclose(up(below, (6, 8)), up.conv(doubled[..., 1:-1, :]))

    def test_the_first_skips_meet_what_comes_from_below_as_they_are_published_to(self) -> None:
        network = as_sr600(tiny.build().denoiser)
        seen = []
        below, skip = torch.randn(2, 1, 64, 6, 8)
        for resnet in network.up_blocks[0].resnets:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(resnet, "forward", lambda x, temb: seen.append(x) or x)
                resnet(torch.cat([below, skip], dim=1), None)
        for number, (kept, low) in enumerate([(1.1, 0.6), (1.2, 0.4)]):
            found_below, found_skip = seen[number].chunk(2, dim=1)
            assert torch.allclose(found_below[:, :32], below[:, :32] * kept)
            assert torch.equal(found_below[:, 32:], below[:, 32:])
            waves, found = torch.fft.fft2(skip), torch.fft.fft2(found_skip)
            assert torch.allclose(found[..., 0, 0], low * waves[..., 0, 0], atol=1e-3)
            assert torch.allclose(found[..., 2:5, 2:7], waves[..., 2:5, 2:7], atol=1e-3)

    def test_only_the_first_two_skips_are_adjusted(self) -> None:
        network = as_sr600(tiny.build().denoiser)
        hooked = [name for name, module in network.named_modules() if module._forward_pre_hooks]
        assert hooked == ["up_blocks.0.resnets.0", "up_blocks.0.resnets.1"]


class TestInversion:
    def test_it_stops_where_it_is_told_in_the_steps_of_the_release(self, backbone) -> None:
        run = make_run(request(num_frames=2, num_inference_steps=30))
        with opened(run, backbone):
            window = run.conditioned(Window(range(2), range(2)))
            latents = torch.randn(1, 4, 2, 4, 4)
            assert len(list(inverted(run, window, latents, 700, "uncond"))) == 31
            (last,) = deque(inverted(run, window, latents, 700, "uncond"), maxlen=1)
        assert torch.isfinite(last).all()

    @pytest.mark.parametrize("scheduler", ["checkpoint", "ddim", "dpm", "euler", "unipc"])
    def test_it_is_the_same_whatever_the_video_was_sampled_with(self, backbone, scheduler) -> None:
        def start(config: dict[str, Any]) -> Tensor:
            run = make_run(request(num_frames=2, num_inference_steps=30), config=config)
            with opened(run, backbone):
                window = run.conditioned(Window(range(2), range(2)))
                latents = torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(0))
                (last,) = deque(inverted(run, window, latents, 700, "uncond"), maxlen=1)
            return last

        chosen = compose(["method=tf_t2v", "model=tiny", f"scheduler={scheduler}"]).config["scheduler"]
        assert torch.equal(start({"scheduler": {**chosen, "timestep_spacing": "trailing"}}), start({}))


# ------------------------------------------------------------------------------------------------ frames


def blocks(frames: Tensor, at_once: int) -> list[FrameBlock]:
    starts = range(0, frames.shape[1], at_once)
    parts = [frames[:, start : start + at_once] for start in starts]
    return [FrameBlock(range(s, s + part.shape[1]), part) for s, part in zip(starts, parts, strict=True)]


@pytest.mark.parametrize("at_once", [1, 3])
def test_doubled_frames_come_back_as_they_were_however_they_are_cut(at_once) -> None:
    frames = torch.rand(1, 5, 3, 2, 2)
    doubled = torch.cat([block.frames for block in twice_each(iter(blocks(frames, 2)))], dim=1)
    assert doubled.shape[1] == 10
    back = list(halved(iter(blocks(doubled, at_once))))
    assert torch.equal(torch.cat([block.frames for block in back], dim=1), frames)
    assert [frame for block in back for frame in block.span] == list(range(5))


def refined(backbone: Backbone, frames: int, **options: Any) -> Tensor:
    method = TFT2V(**{"refine_size": (48, 64), "refine_steps": 2, **options})
    settings = {"tuned": None, "weights": {}, "model": {"untrained": True, "image_encoder": CLIP}}
    run = make_run(request(num_frames=frames, guidance_scale=3.0), {"tf_t2v": method}, settings)
    with opened(run, backbone):
        stream = iter(blocks(torch.rand(1, frames, 3, 32, 32, generator=torch.Generator().manual_seed(0)), 2))
        return torch.cat([block.frames for block in method.finish_frames(stream) or ()], dim=1)


@pytest.mark.parametrize("frames", [3, 18])
def test_frames_come_back_larger_and_as_many(backbone, files, frames) -> None:
    made = refined(backbone, frames, **files)
    assert made.shape == (1, frames, 3, 48, 64)
    assert torch.isfinite(made).all()
    assert torch.equal(made, refined(backbone, frames, **files))


def test_frames_are_enlarged_as_in_the_release_before_they_are_encoded(backbone, files, monkeypatch) -> None:
    seen, encode = [], Backbone.to_latents
    monkeypatch.setattr(Backbone, "to_latents", lambda self, v, *rest: seen.append(v) or encode(self, v, *rest))
    refined(backbone, 1, **files)
    frame = torch.rand(1, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    wanted = torch.nn.functional.interpolate(frame[:, 0], (48, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(seen[0][:, 0], wanted)


def test_the_command_refines(files, tmp_path: Path) -> None:
    asked = ["method=tf_t2v", "model=tiny", "num_inference_steps=1", "height=32", "width=32", "num_frames=2"]
    refine = [f"tf_t2v.{key}={value}" for key, value in files.items()]
    assert main([*asked, *refine, "tf_t2v.refine_size=[48,64]", "tf_t2v.refine_steps=1", f"output.dir={tmp_path}"]) == 0
    assert read_video(tmp_path / "video.mp4").shape == (2, 48, 64, 3)


def test_a_long_video_is_refined_by_both_methods_each_with_noise_and_a_record_of_its_own(
    backbone, files, picture
) -> None:
    refines = {"refine": True, "refine_size": (40, 32), "refine_chunk": 3, "refine_overlap": 1, "refine_steps": 1}
    long = streaming(chunk=4, overlap=2, fit="stretch", hidden=8, embedding_widths=[8] * 4, **refines)
    methods = {"tf_t2v": TFT2V(**files, refine_size=(48, 64), refine_steps=1), "streaming": long}
    settings = {"model": {"untrained": True, "image_encoder": CLIP}}
    run = make_run(request(num_frames=5, num_inference_steps=1, image=picture), methods, settings)
    with opened(run, backbone):
        made = torch.cat([block.frames for block in frames(run)], dim=1)
    assert made.shape == (1, 5, 3, 40, 32)  # as the later one of them says
    assert {"refine", "tf_t2v.refine"} <= run.placements.keys()


def test_mistakes_are_named(backbone, files, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="16 more than a multiple of 64"):
        refined(backbone, 2, **files | {"refine_size": (40, 64)})
    with pytest.raises(BadRequest, match="tf_t2v.refine_steps=700: .* leaves 700 of the model's 1000 noise levels"):
        refined(backbone, 2, **files | {"refine_steps": 700})
    with pytest.raises(BadRequest, match="tf_t2v.refine=.*there is no such file"):
        load(str(tmp_path / "none.pth"), files["refine_parts"])
    (tmp_path / "text2video_pytorch_model.pth").touch()
    with pytest.raises(BadRequest, match="tf_t2v.refine=.* is by its name ModelScope's model"):
        load(str(tmp_path / "text2video_pytorch_model.pth"), files["refine_parts"])
    save_file({name: t.contiguous() for name, t in checkpoint(backbone).items()}, tmp_path / "tft2v.safetensors")
    with pytest.raises(
        BadRequest, match="tf_t2v.refine=.*tft2v.safetensors reads spatial conditions, which SR600 does"
    ):
        refined(backbone, 2, **files | {"refine": str(tmp_path / "tft2v.safetensors")})
    (tmp_path / "sr_step_110000_ema.pth").touch()
    with pytest.raises(BadRequest, match="tf_t2v.refine=.*sr_step_110000_ema.pth"):
        model.load(str(tmp_path / "sr_step_110000_ema.pth"))
    with pytest.raises(BadRequest, match="tf_t2v.refine_parts="):
        refined(backbone, 2, refine=files["refine"])
