"""Tune-A-Video: what the inflated model is at its start, what trains, and what a tuned run leaves and brings."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from one_shot import QUICK, tune
from safetensors.torch import load_file
from vidgen_tune_a_video.inflated import st_attention
from vidgen_tune_a_video.merged_attention import _KERNELS, _works, merges
from vidgen_tune_a_video.method import build
from vidgen_tune_a_video.st_attention import _concatenated, _materialised, _merged

import vidgen_core as vg
from vidgen_core import testing
from vidgen_core.api import train
from vidgen_core.attention import BACKENDS
from vidgen_core.conditioning import Condition, PerFrameText
from vidgen_core.errors import BadRequest
from vidgen_core.models import tiny
from vidgen_core.models.unet2d import ImageBackbone
from vidgen_core.provenance import read_provenance
from vidgen_core.training.gradient_checkpointing import gradient_checkpointing
from vidgen_core.training.learner import choose_trainables

T = torch.tensor(500)


@contextmanager
def inflated(backbone: ImageBackbone) -> Iterator[None]:
    with backbone.attention_installed("sdpa"), st_attention(backbone, seed=0):
        yield


def predicted(backbone: ImageBackbone, latents: torch.Tensor, t: torch.Tensor = T) -> torch.Tensor:
    texts = backbone.encode_text(["a circle"]).detach()
    text = PerFrameText(texts, torch.zeros(len(latents), latents.shape[2], dtype=torch.long))
    return backbone.predict(latents, t, backbone.prepare(Condition(text=text), ["cond"]))


def noise(frames: int, batch: int = 1, size: int = 8) -> torch.Tensor:
    return torch.randn(batch, 4, frames, size, size, generator=torch.Generator().manual_seed(frames))


@torch.no_grad()
def test_one_frame_is_the_image_model() -> None:
    backbone, latents = tiny.build_image(), noise(1, batch=2)
    with backbone.attention_installed("sdpa"):
        expected = predicted(backbone, latents)
    with inflated(backbone):
        assert torch.allclose(predicted(backbone, latents), expected, atol=1e-6)


@torch.no_grad()
def test_equal_frames_are_each_the_image_model_and_different_ones_are_not() -> None:
    backbone = tiny.build_image()
    same, different = noise(1).expand(-1, -1, 3, -1, -1), noise(3)
    with backbone.attention_installed("sdpa"):
        images, others = predicted(backbone, same), predicted(backbone, different)
    with inflated(backbone):
        assert torch.allclose(predicted(backbone, same), images, atol=2e-6)
        assert (predicted(backbone, different) - others).abs().max() > 1e-2


@torch.no_grad()
def test_the_network_is_what_it_was_when_the_surgery_ends() -> None:
    backbone, latents = tiny.build_image(), noise(3)
    names = set(backbone.denoiser.state_dict())
    with backbone.attention_installed("sdpa"):
        before = predicted(backbone, latents)
        with st_attention(backbone, seed=0):
            assert {n for n in backbone.denoiser.state_dict()} - names  # something was added
        assert set(backbone.denoiser.state_dict()) == names
        assert torch.equal(predicted(backbone, latents), before)


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
@pytest.mark.parametrize("batch", [1, 2])
def test_sparse_attention_is_exact_without_copies_values_and_gradients(frames: int, batch: int) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(batch, frames, 2, 9, 16, dtype=torch.float64).float().requires_grad_() for _ in range(3))
    weight = torch.randn_like(q)
    published = _materialised(BACKENDS["math"], q, k, v)
    ways = [_concatenated] + ([_merged] if frames > 2 else [])
    for way in ways:
        found = way(BACKENDS["sdpa"], q, k, v)
        assert torch.allclose(found, published, atol=1e-6)
        pairs = zip(
            torch.autograd.grad((found * weight).sum(), (q, k, v)),
            torch.autograd.grad((published * weight).sum(), (q, k, v), retain_graph=True),
            strict=True,
        )
        assert all(torch.allclose(ours, theirs, atol=2e-6) for ours, theirs in pairs)


@torch.no_grad()
def test_a_frame_reaches_itself_and_the_next_and_the_first_reaches_all() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 5, 2, 9, 16) for _ in range(3))

    def reached(frame: int) -> list[int]:
        out = _merged(BACKENDS["sdpa"], q, k, v)
        changed = [x.clone() for x in (q, k, v)]
        for x in changed:
            x[:, frame] += 1
        moved = (_merged(BACKENDS["sdpa"], *changed) - out).abs().amax(dim=(0, 2, 3, 4))
        return (moved > 1e-5).nonzero().flatten().tolist()

    assert reached(2) == [2, 3]
    assert reached(0) == [0, 1, 2, 3, 4]


def test_at_the_first_step_only_the_output_of_temporal_attention_learns() -> None:
    backbone = tiny.build_image()
    with inflated(backbone):
        predicted(backbone, noise(3)).square().mean().backward()
        gradients = {n: p.grad for n, p in backbone.denoiser.named_parameters() if ".attn_temp." in n}
    assert gradients
    for name, gradient in gradients.items():
        learns = gradient is not None and bool(gradient.abs().max() > 0)
        assert learns == (".to_out." in name), name


@pytest.fixture
def of_width(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A kernel that is right for heads of 16 alone."""

    class Narrow(_KERNELS["cpu"]):  # type: ignore[misc]
        @staticmethod
        def forward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
            out, normaliser = _KERNELS_BEFORE["cpu"].forward(q, k, v)
            return (out if q.shape[-1] == 16 else 2 * out), normaliser

    _KERNELS_BEFORE = dict(_KERNELS)
    _works.cache_clear()
    monkeypatch.setitem(_KERNELS, "cpu", Narrow)
    yield
    _works.cache_clear()


@pytest.mark.usefixtures("of_width")
def test_the_kernel_is_tried_at_every_head_width() -> None:
    assert merges(torch.zeros(1, 3, 1, 4, 16))
    assert not merges(torch.zeros(1, 3, 1, 4, 40))


def test_gradient_checkpointing_trains_every_named_weight_just_the_same() -> None:
    def gradients(checkpointing: bool) -> dict[str, torch.Tensor]:
        backbone = tiny.build_image()
        run = testing.make_run(testing.request(), {"tune_a_video": build()}, {"trainer": {"trainable": "all"}})
        run.backbone = backbone
        with backbone.attention_installed("sdpa"), run.moments.attach(run=run, backbone=backbone):
            torch.manual_seed(1)
            trained = choose_trainables(run)
            for parameter in trained.values():
                torch.nn.init.normal_(parameter, std=0.1)
            with gradient_checkpointing(backbone.denoiser) if checkpointing else nullcontext():
                predicted(backbone, noise(3)).square().mean().backward()
            return {name: parameter.grad for name, parameter in trained.items()}

    _works.cache_clear()  # the kernel is tried inside the first block, and not again when that is recomputed
    recomputed, plain = gradients(True), gradients(False)
    for part in ("down_blocks", "mid_block", "up_blocks"):
        for learns in (".attn1.to_q.", ".attn2.to_q.", ".attn_temp.to_k."):
            assert any(part in name and learns in name for name in plain)
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in recomputed.values())
    assert all(torch.allclose(recomputed[name], plain[name], rtol=1e-4, atol=1e-9) for name in plain)


# ------------------------------------------------------------------------------------------- a tuned run


def test_a_tuned_run_holds_only_what_changed(tuned: Path) -> None:
    tensors = load_file(tuned / "methods" / "tune_a_video.safetensors")
    blocks = 4  # one below, one in the middle, two above
    assert len(tensors) == 7 * blocks
    assert not (tuned / "model").exists()
    parts = {name.split("transformer_blocks.0.")[1].removeprefix("temporal.") for name in tensors}
    to = ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias")
    assert parts == {"attn1.to_q.weight", "attn2.to_q.weight", *(f"attn_temp.{name}" for name in to)}


def test_the_modules_that_train_may_be_chosen(tmp_path: Path, clip: Path) -> None:
    chosen = ["attn1.to_q", "attn_temp"]
    tuned = tune(tmp_path / "run", clip, **{"tune_a_video.trainable_modules": chosen})
    tensors = load_file(tuned / "methods" / "tune_a_video.safetensors")
    assert all(any(f".{module}." in name for module in chosen) for name in tensors)
    vg.generate(**QUICK, tuned=tuned, prompt="a circle", **{"output.dir": tmp_path / "edit"})
    for wrong in (["attn3.to_q"], []):
        with pytest.raises(BadRequest, match="trainable_modules"):
            tune(tmp_path / "wrong", clip, **{"tune_a_video.trainable_modules": wrong})


def test_where_a_part_of_temporal_attention_trains_edits_do_not_depend_on_the_seed(tmp_path: Path, clip: Path) -> None:
    tuned = tune(tmp_path / "run", clip, **{"tune_a_video.trainable_modules": ["attn_temp.to_out"]})
    assert len(load_file(tuned / "methods" / "tune_a_video.safetensors")) == 5 * 4
    one, two = (
        vg.generate(**QUICK, tuned=tuned, prompt="a circle", seed=seed, **{"output.dir": tmp_path / str(seed)})
        for seed in (1, 2)
    )
    assert (one.frames == two.frames).all()


def test_what_a_tuning_goes_on_from_and_does_not_train_stays_in_its_file(
    tuned: Path, tmp_path: Path, clip: Path
) -> None:
    chosen = {"tune_a_video.trainable_modules": ["attn_temp"]}
    further = tune(tmp_path / "run", clip, tuned=tuned, **chosen)
    before, after = (load_file(folder / "methods" / "tune_a_video.safetensors") for folder in (tuned, further))
    assert before.keys() == after.keys()
    kept = {name for name in before if torch.equal(before[name], after[name])}
    assert kept == {name for name in before if ".attn_temp." not in name}


def test_an_edit_brings_the_model_the_clip_and_the_sizes_of_the_tuning(tuned: Path, tmp_path: Path) -> None:
    made = vg.generate(**QUICK, tuned=tuned, prompt="a circle", **{"output.dir": tmp_path / "edit"})
    assert made.frames.shape == (4, 64, 64, 3)
    again = vg.generate(**QUICK, tuned=tuned, prompt="a circle", seed=5, **{"output.dir": tmp_path / "b"})
    assert (made.frames == again.frames).all()  # from inverted noise the seed plays no part
    other = vg.generate(**QUICK, tuned=tuned, prompt="a dog", **{"output.dir": tmp_path / "c"})
    assert (made.frames != other.frames).any()


def test_an_edit_from_fresh_noise_needs_no_clip_and_may_be_longer(tuned: Path, tmp_path: Path) -> None:
    afresh = {"tune_a_video.invert": "none", "video": tmp_path / "gone.mp4", "num_frames": 13}
    made = vg.generate(**QUICK, tuned=tuned, prompt="a circle", **afresh, **{"output.dir": tmp_path / "edit"})
    assert made.frames.shape == (13, 64, 64, 3)


def test_the_record_of_an_edit_tells_what_was_tuned(tuned: Path, tmp_path: Path) -> None:
    vg.generate(**QUICK, tuned=tuned, prompt="a circle", **{"output.dir": tmp_path / "edit"})
    file = tuned / "methods" / "tune_a_video.safetensors"
    record = read_provenance(tmp_path / "edit" / "run.yaml")
    assert record["tuned"] == {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}


def test_tuning_and_checkpointing_agree_and_resume_goes_on_bit_for_bit(clip: Path, tmp_path: Path) -> None:
    straight = tune(tmp_path / "straight", clip, **{"trainer.max_steps": 4, "trainer.checkpoint_every": 2})
    halved = tmp_path / "halved"
    tune(halved, clip, **{"trainer.max_steps": 4, "trainer.checkpoint_every": 2})
    shutil.rmtree(halved / "methods")
    shutil.rmtree(halved / "checkpoints" / "step_00000004")
    (halved / "checkpoints" / "index.json").write_text(json.dumps({"last": "step_00000002"}))
    tune(halved, clip, **{"trainer.max_steps": 4, "trainer.checkpoint_every": 2, "resume": True})
    a, b = (load_file(run / "methods" / "tune_a_video.safetensors") for run in (straight, halved))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("mode", ["time_aligned", "merged", "separate"])
@pytest.mark.parametrize("both", [["tune_a_video", "talc"], ["talc", "tune_a_video"]], ids=["+talc", "talc+"])
def test_scenes_of_an_edit(both: list[str], mode: str, tuned: Path, tmp_path: Path) -> None:
    scenes = {"prompt": ["a circle", "a dog"], "talc.mode": mode, "output.dir": tmp_path / "scenes"}
    made = vg.generate(**{**QUICK, "method": both}, tuned=tuned, **scenes)
    plain = vg.generate(**QUICK, tuned=tuned, prompt="a circle", **{"output.dir": tmp_path / "plain"})
    assert made.frames.shape == plain.frames.shape
    assert (made.frames[-1] != plain.frames[-1]).any()


def refused(**values: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        vg.generate(**values)
    return str(caught.value)


def test_tuning_with_and_without_gradient_checkpointing_comes_out_the_same(
    tuned: Path, clip: Path, tmp_path: Path
) -> None:
    recomputed = tune(tmp_path / "run", clip, **{"trainer.gradient_checkpointing": True})
    ours, plain = (load_file(run / "methods" / "tune_a_video.safetensors") for run in (recomputed, tuned))
    assert ours.keys() == plain.keys()
    assert all(torch.allclose(ours[name], plain[name], atol=1e-5) for name in plain)


def test_what_cannot_be_is_refused_by_name(tuned: Path, clip: Path, tmp_path: Path) -> None:
    edit = {"method": "tune_a_video", "prompt": "x", "output.dir": tmp_path / "none"}
    of_videos = refused(**edit, model="modelscope")
    assert "unet2d" in of_videos and all(model in of_videos for model in ("moving_shapes_image", "sd15", "sd21"))
    assert "'tune_a_video' and 'depth' cannot be combined" in refused(**{**edit, "method": ["tune_a_video", "depth"]})
    assert "tuned=" in refused(**edit, tuned=tmp_path / "nowhere")
    assert "another model" in refused(**edit, tuned=other_base(tuned, tmp_path), model="moving_shapes_image")
    assert "12" in refused(**edit, model="tiny_image", video=clip, num_frames=40, height=64, width=64)
    assert "reads a latent channel" in refused(**edit, model="tiny_depth", num_frames=2, height=64, width=64)
    assert "no place for what was tuned" in refused(**edit, tuned=tuned, **{"tune_a_video.temporal": False})
    message = refused(**edit, tuned=tuned, num_frames=13)
    assert "square.mp4" in message and "12" in message
    with pytest.raises(BadRequest, match="Say what it shows"):
        train(method="tune_a_video", model="moving_shapes_image", video=clip, **{"output.dir": tmp_path / "t"})
    (tmp_path / "edits.txt").write_text("a circle")
    with pytest.raises(BadRequest, match="Say what it shows: tune_a_video.caption='...'"):
        looks = {"prompts_file": tmp_path / "edits.txt", "output.dir": tmp_path / "t"}
        train(method="tune_a_video", model="moving_shapes_image", video=clip, **looks)
    begun = {**edit, "scheduler": "euler", "output.dir": tmp_path / "begun"}
    assert "afresh: tune_a_video.invert=none" in refused(**begun, tuned=tuned)
    with pytest.raises(BadRequest, match="trains on one clip"):
        train(method="tune_a_video", model="tiny_image", prompt="x", **{"output.dir": tmp_path / "t"})
    assert not (tmp_path / "none").exists()


def other_base(tuned: Path, tmp_path: Path) -> Path:
    """The tuned weights, said to belong to some other model."""
    from safetensors.torch import save_file

    file = tmp_path / "other.safetensors"
    save_file(load_file(tuned / "methods" / "tune_a_video.safetensors"), file, {"base": "0" * 16})
    return file


def test_truncated_weights_are_told(tuned: Path, tmp_path: Path) -> None:
    whole = (tuned / "methods" / "tune_a_video.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    edit = {"method": "tune_a_video", "prompt": "x", "model": "tiny_image", "num_frames": 2, "height": 64, "width": 64}
    assert "half.safetensors" in refused(**edit, tuned=tmp_path / "half.safetensors", **{"output.dir": tmp_path / "e"})
