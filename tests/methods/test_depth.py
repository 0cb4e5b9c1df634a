"""Depth-conditioned one-shot tuning: the depth is seen at every call, kept out of what is saved, and can be edited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from vidgen_depth.method import Depth
from vidgen_tune_a_video.inflated import st_attention

import vidgen_core as vg
from vidgen_core.api import train
from vidgen_core.conditioning import Condition, PerFrameText
from vidgen_core.errors import BadRequest
from vidgen_core.models import tiny
from vidgen_core.models.unet2d import ImageBackbone

CROSSING = "pkg://vidgen_moving_shapes/clips/crossing.mp4"  # with its exact depth beside it
SMALL = {"model": "tiny_depth", "num_frames": 4, "height": 64, "width": 64}
EDIT = {"method": "depth", "prompt": "a dog", "num_inference_steps": 2}


def predicted(backbone: ImageBackbone, latents: torch.Tensor, depth: torch.Tensor | None) -> torch.Tensor:
    texts = backbone.encode_text(["a circle"]).detach()
    named: dict[str, Any] = {"text": PerFrameText(texts, torch.zeros(1, latents.shape[2], dtype=torch.long))}
    named |= {} if depth is None else {"channels": depth}
    inputs = backbone.prepare(Condition(named), ["cond"])
    with torch.no_grad():
        return backbone.predict(latents, torch.tensor(500), inputs)


def test_a_network_that_gives_depth_no_weight_is_the_inflated_image_model() -> None:
    with_depth, without = tiny.build_image(in_channels=5), tiny.build_image()
    state = with_depth.denoiser.state_dict()
    state["conv_in.weight"][:, 4] = 0
    without.denoiser.load_state_dict({**state, "conv_in.weight": state["conv_in.weight"][:, :4].clone()})
    latents, depth = torch.randn(1, 4, 3, 8, 8), torch.randn(1, 1, 3, 8, 8)
    found = []
    for backbone, channels in ((with_depth, depth), (without, None)):
        with backbone.attention_installed("sdpa"), st_attention(backbone, seed=0):
            found.append(predicted(backbone, latents, channels))
    assert torch.allclose(*found, atol=1e-6)


def test_of_one_frame_the_inflated_model_is_the_image_model_on_latents_and_depth() -> None:
    backbone = tiny.build_image(in_channels=5)
    latents, depth = torch.randn(1, 4, 1, 8, 8), torch.randn(1, 1, 1, 8, 8)
    with torch.no_grad():
        seen = torch.cat([latents, depth], dim=1)[:, :, 0]
        image = backbone.denoiser(seen, torch.tensor(500), backbone.encode_text(["a circle"])).sample
    with backbone.attention_installed("sdpa"), st_attention(backbone, seed=0):
        inflated = predicted(backbone, latents, depth)
    assert torch.allclose(inflated[:, :, 0], image, atol=1e-6)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned") / "run"
    options = {"trainer.max_steps": 2, "trainer.log_every": 1, "trainer.workers": 0, "output.dir": folder}
    train(method="depth", **SMALL, video=CROSSING, prompt="two shapes", **options)
    return folder


def losses(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_tuning_minimises_both_losses_and_saves_no_depth(tuned: Path) -> None:
    assert {"denoising", "temporal_consistency"} <= losses(tuned)[0].keys()
    tensors = load_file(tuned / "methods" / "depth.safetensors")
    assert {name.rpartition("attn")[2].split(".")[0] for name in tensors} == {"1", "2", "_temp"}


def test_without_weight_the_loss_is_that_of_tune_a_video_bit_for_bit(tuned: Path, tmp_path: Path) -> None:
    options = {"trainer.max_steps": 1, "trainer.log_every": 1, "trainer.workers": 0, "output.dir": tmp_path / "run"}
    train(method="depth", **SMALL, video=CROSSING, prompt="two shapes", **{"depth.temporal_weight": 0}, **options)
    (plain,) = losses(tmp_path / "run")
    assert "temporal_consistency" not in plain
    assert plain["loss"] == plain["denoising"] == losses(tuned)[0]["denoising"]


def test_an_edit_of_the_depth_changes_the_video_and_not_the_noise_it_starts_from(tuned: Path, tmp_path: Path) -> None:
    nearer = [{"region": [0, 0, 1, 0.5], "shift": 0.5}]
    plain = vg.generate(**EDIT, tuned=tuned, **{"output.dir": tmp_path / "plain"})
    changed = vg.generate(**EDIT, tuned=tuned, **{"depth.edit": nearer, "output.dir": tmp_path / "changed"})
    assert (plain.frames != changed.frames).any()
    assert len(list((tuned / "inverted").glob("*.safetensors"))) == 1


def test_scenes_of_an_edit_see_the_clips_depth(tuned: Path, tmp_path: Path) -> None:
    scenes = {**EDIT, "method": ["depth", "talc"], "prompt": ["a dog", "a cat"]}
    assert vg.generate(**scenes, tuned=tuned, **{"output.dir": tmp_path / "scenes"}).frames.shape == (4, 64, 64, 3)


def refused(**values: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        vg.generate(**{**EDIT, **values})
    return str(caught.value)


def test_what_cannot_be_is_refused_by_name(tmp_path: Path) -> None:
    out = {"output.dir": tmp_path / "none"}
    assert "one channel of depth" in refused(**{**SMALL, "model": "tiny_image"}, video=CROSSING, **out)
    np.savez(tmp_path / "few.npz", nearness=np.ones((3, 8, 8)))
    few = refused(**SMALL, video=CROSSING, **{"depth.maps": str(tmp_path / "few.npz")}, **out)
    assert "few.npz" in few and "3 depth maps" in few
    with pytest.raises(BadRequest, match="weighting"):
        Depth(temporal_weighting="alpha")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "video=clip.mp4"),
        ({"video": "gone.mp4", "depth.invert": "none"}, "There is no clip 'gone.mp4'"),
        ({"video": CROSSING, "depth.edit": [{"scal": 2}]}, "Did you mean 'scale'"),
        ({"video": CROSSING, "depth.edit": [{"from": "gone.npz"}]}, "There are no depth maps 'gone.npz'"),
        (
            {"video": CROSSING, "depth.edit": {"shift": 0.3}},
            "depth.edit is a list, be it of one: depth.edit=[{shift: 0.3}]",
        ),
        ({"video": CROSSING, "depth.maps": 3}, "depth.maps=3 is no path. Give a text."),
        ({"video": CROSSING, "depth.maps": CROSSING}, "crossing.mp4' is a video in colour"),
    ],
)
def test_what_needs_no_weights_to_be_found_is_told_before_they_are_read(
    monkeypatch: Any, asked: Any, message: str
) -> None:
    monkeypatch.setattr(tiny, "build_image", lambda **_: pytest.fail("weights were read"))
    assert message in refused(**SMALL, **asked)
