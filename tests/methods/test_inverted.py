"""Where an edit starts: the inversion of the clip, what it reaches, and the cache of it beside what was tuned."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from one_shot import QUICK, tune
from safetensors import SafetensorError
from vidgen_tune_a_video import clip_cache
from vidgen_tune_a_video.inverted import clean_latents
from vidgen_tune_a_video.method import build

import vidgen_core as vg
from vidgen_core import hookimpl, testing
from vidgen_core.data.one_clip import OneClip
from vidgen_core.models import tiny
from vidgen_core.models.unet2d import ImageBackbone
from vidgen_core.placement import Placement
from vidgen_core.provenance import read_provenance
from vidgen_core.run import Group, Run, Window
from vidgen_core.video import VideoReader

Edit = dict[str, Any]


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, whoever looks at the clip fails the test."""

    def forbid() -> None:
        for kind, name in ((OneClip, "frames"), (ImageBackbone, "encode")):
            monkeypatch.setattr(kind, name, lambda *_: pytest.fail("the clip was looked at"))

    return forbid


# --------------------------------------------------------------------------------------------------- the cache


@pytest.fixture(params=["a folder", "a file", "a published model"])
def edit(request: pytest.FixtureRequest, tuned: Path, clip: Path, published: dict[str, Any], tmp_path: Path) -> Edit:
    """How to edit the clip by each of what a tuning may lie in, none of them inverted yet."""
    if request.param == "a folder":
        copy = shutil.copytree(tuned, tmp_path / "run", ignore=shutil.ignore_patterns("inverted"))
        return {**QUICK, "tuned": copy, "prompt": "a circle"}
    if request.param == "a file":
        file = shutil.copy(tuned / "methods" / "tune_a_video.safetensors", tmp_path)
        size = {"num_frames": 4, "height": 64, "width": 64}
        return {**QUICK, **size, "model": "tiny_image", "video": clip, "tuned": file, "prompt": "a circle"}
    copy = shutil.copytree(published["model.path"], tmp_path / "model", ignore=shutil.ignore_patterns("inverted"))
    return {**published, "model.path": copy, "prompt": "a circle"}


def test_a_clip_that_was_inverted_is_neither_read_nor_encoded_again(
    edit: Edit, tmp_path: Path, unseen: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    made = vg.generate(**edit, **{"output.dir": tmp_path / "first"})
    assert "inverted in 2 steps;" in capsys.readouterr().err
    unseen()
    again = vg.generate(**edit, **{"output.dir": tmp_path / "again"})
    assert (made.frames == again.frames).all()
    assert "the inversion in 2 steps was read from the cache;" in capsys.readouterr().err


def test_frames_by_themselves_are_not_begun_from_what_was_kept_of_the_clip(
    published: dict[str, Any], tmp_path: Path
) -> None:
    model = shutil.copytree(published["model.path"], tmp_path / "model", ignore=shutil.ignore_patterns("inverted"))
    edit = {**published, "model.path": model, "prompt": "a circle"}
    alone = {**edit, "tune_a_video.temporal": False}
    before = vg.generate(**alone, **{"output.dir": tmp_path / "before"})
    shutil.rmtree(model / "inverted", ignore_errors=True)
    vg.generate(**edit, **{"output.dir": tmp_path / "whole"})
    after = vg.generate(**alone, **{"output.dir": tmp_path / "after"})
    assert (before.frames == after.frames).all()


def test_a_full_disk_costs_the_cache_and_not_the_edit(
    edit: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_of_it(tensors: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", half_of_it)
    assert vg.generate(**edit, **{"output.dir": tmp_path / "edit"}).frames.shape == (4, 64, 64, 3)
    assert list(kept(tmp_path).iterdir()) == []


def test_what_is_kept_and_damaged_is_made_again(edit: Edit, tmp_path: Path) -> None:
    made = vg.generate(**edit, **{"output.dir": tmp_path / "first"})
    (file,) = kept(tmp_path).iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    again = vg.generate(**edit, **{"output.dir": tmp_path / "again"})
    assert (made.frames == again.frames).all()
    assert file.read_bytes() == whole


def test_nothing_is_kept_beside_a_model_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = testing.make_run(testing.request(), config={"model": {"path": "owner/name"}})
    run.backbone = tiny.build_image()
    run.backbone.denoiser.carried = {"attn_temp": torch.zeros(1)}
    assert clip_cache.beside_the_weights(run, "inverted") is None
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert clip_cache.beside_the_weights(run, "inverted") == Path("owner/name/inverted")


def kept(folder: Path) -> Path:
    """The one cache below a folder."""
    (found,) = folder.rglob("inverted")
    return found


# ---------------------------------------------------------------------------------------- how far it is walked


@pytest.mark.parametrize(("strength", "first"), [(0, 3), (0.1, 3), (0.5, 2), (1, 0)])
def test_an_edit_starts_where_its_noise_lies_and_takes_a_step_at_least(
    strength: float, first: int, tuned: Path, tmp_path: Path
) -> None:
    steps = []
    edit = {"method": "tune_a_video", "tuned": tuned, "prompt": "a circle", "num_inference_steps": 4}
    edit |= {"tune_a_video.strength": strength, "output.dir": tmp_path / "edit"}
    vg.generate(**edit, on_step=lambda step, latents: steps.append(step.index))
    assert steps == list(range(first, 4))
    assert read_provenance(tmp_path / "edit" / "run.yaml")["inversion"]["steps"] == 4 - first


@pytest.mark.parametrize(("steps", "strength", "first"), [(10, 0.75, 751), (10, 0.5, 501), (20, 0.8, 751), (3, 1, 751)])
def test_an_edit_starts_at_the_level_that_an_inversion_of_other_steps_reached(
    steps: int, strength: float, first: int, tuned: Path, tmp_path: Path
) -> None:
    seen = []
    edit = {"method": "tune_a_video", "tuned": tuned, "prompt": "a circle", "num_inference_steps": 4}
    edit |= {"tune_a_video.strength": strength, "tune_a_video.inversion_steps": steps, "output.dir": tmp_path / "edit"}
    vg.generate(**edit, on_step=lambda step, latents: seen.append(int(step.t)))
    assert seen[0] == first


@pytest.mark.parametrize(("invert", "prompt"), [("empty", ""), ("prompt", "a square")])
def test_the_record_of_an_edit_tells_how_its_clip_was_inverted(
    invert: str, prompt: str, embedded: Path, tmp_path: Path
) -> None:
    def record(steps: int) -> dict[str, Any]:
        edit = {**QUICK, "tuned": embedded, "prompt": "a circle", "tune_a_video.invert": invert}
        vg.generate(**edit, **{"tune_a_video.inversion_steps": steps, "output.dir": tmp_path / f"in_{steps}"})
        found: dict[str, Any] = read_provenance(tmp_path / f"in_{steps}" / "run.yaml")["inversion"]
        return found

    few, many = record(2), record(20)
    assert (few["steps"], few["of"], few["prompt"]) == (2, 2, prompt)
    assert many["reconstruction_error"] < few["reconstruction_error"]


class Halves:
    """Two windows, each half of the video."""

    @hookimpl
    def plan(self, run: Run) -> list[Group]:
        half = run.request.num_frames // 2
        spans = [range(half), range(half, 2 * half)]
        return [Group((Window(span, span, index, index),)) for index, span in enumerate(spans)]


@torch.no_grad()
def test_windows_share_a_clip_that_is_read_once(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, reads = VideoReader.frames, []
    monkeypatch.setattr(VideoReader, "frames", lambda *arguments: reads.append(1) or read(*arguments))
    wanted = testing.request("a dog", num_frames=4, height=64, width=64, video=str(clip))
    config = {"tuned": None, "model": {}, "scheduler": {"name": "DDIMScheduler"}}
    testing.latents(wanted, {"tune_a_video": build(), "halves": Halves()}, config, tiny.build_image())
    assert len(reads) == 1


@torch.no_grad()
def test_frames_left_by_themselves_are_edited_alike_whatever_is_beside_them(clip: Path) -> None:
    wanted = testing.request("a dog", num_frames=4, height=64, width=64, video=str(clip))
    config = {"tuned": None, "model": {}, "scheduler": {"name": "DDIMScheduler"}}

    def edited(temporal: bool, **more: object) -> torch.Tensor:
        methods = {"tune_a_video": build(temporal=temporal), **more}
        windows = testing.latents(wanted, methods, config, tiny.build_image())
        return torch.cat([window.latents for window in windows], dim=2)

    assert torch.allclose(edited(False), edited(False, halves=Halves()), atol=1e-4)
    assert not torch.allclose(edited(True), edited(True, halves=Halves()), atol=1e-2)


@torch.no_grad()
def test_a_frame_of_the_clip_is_encoded_alike_in_every_window_and_slice(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, opened = testing.make_run(testing.request()), OneClip(clip, ["a square"], 4, (64, 64))
    run.place(tiny.build_image(), Placement(torch.device("cpu"), torch.float32, vae_slice=3))
    encode, seen = run.backbone.vae.encode, []
    monkeypatch.setattr(run.backbone.vae, "encode", lambda part: seen.append(len(part)) or encode(part))
    whole, part = (clean_latents(run, Window(span, span), opened) for span in (range(4), range(1, 3)))
    assert torch.allclose(whole[:, :, 1:3], part, atol=1e-6)
    assert seen == [3, 1, 2]


def test_a_tuning_under_the_clips_own_caption_shows_edits_as_it_goes(tmp_path: Path, clip: Path) -> None:
    options = {"trainer.sample_every": 1, "trainer.max_steps": 1, "num_inference_steps": 2}
    run = tune(tmp_path / "run", clip, prompt="a dog, red", **{"tune_a_video.caption": "a square, it's", **options})
    assert len(list((run / "samples").glob("*.png"))) == 1
    assert "a square, it's" in (run / "run.yaml").read_text()


def test_samples_of_a_tuning_that_goes_on_are_made_from_noise_of_its_own_weights(
    tuned: Path, clip: Path, tmp_path: Path
) -> None:
    start = shutil.copytree(tuned, tmp_path / "start", ignore=shutil.ignore_patterns("inverted"))
    options = {"trainer.sample_every": 1, "trainer.max_steps": 2, "num_inference_steps": 2, "tuned": start}
    run = tune(tmp_path / "run", clip, **options)
    assert len(list((run / "samples").glob("*.png"))) == 2
    assert not (start / "inverted").exists()
