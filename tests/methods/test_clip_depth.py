"""The depth of the clip that a method is given: whose it is, how it is cut, and that it is made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from depth_models import dpt, save
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from vidgen_depth import clip_depth
from vidgen_depth.method import Depth

from vidgen_core import testing
from vidgen_core.data.one_clip import OneClip
from vidgen_core.depth_map import depth_channel
from vidgen_core.models import tiny
from vidgen_core.models.depth_estimator import estimate
from vidgen_core.run import Run, Window
from vidgen_core.video_writer import VideoWriter

FRAMES, HEIGHT, WIDTH = 4, 32, 64


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A clip twice as wide as high, of frames that differ."""
    writer = VideoWriter(tmp_path / "clip.mp4", 8)
    frames = np.random.default_rng(0).integers(0, 255, (FRAMES, HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    writer.write(frames.repeat(8, axis=1).repeat(8, axis=2))
    writer.close()
    return tmp_path / "clip.mp4"


def asked(clip: Path, method: Depth, **config: Any) -> Run:
    request = testing.request("a wall", num_frames=FRAMES, height=64, width=64, video=str(clip))
    run = testing.make_run(request, {"depth": method}, {"tuned": None, "model": {}, **config})
    run.backbone = tiny.build_image(in_channels=5)
    return run


def seen(clip: Path, run: Run | None = None, **options: Any) -> torch.Tensor:
    """(F, h, w): the depth that the network reads."""
    method = Depth(**options)
    whole = range(FRAMES)
    return method.condition(run or asked(clip, method), Window(whole, whole))["channels"][0, 0]


@pytest.mark.parametrize("width", [WIDTH, HEIGHT], ids=["as wide as the frames", "squeezed"])
def test_maps_are_cut_as_the_frames_are(clip: Path, width: int) -> None:
    """Where the depth is a ramp over the whole frame, the middle half of it is left."""
    ramp = np.broadcast_to(np.linspace(0, 1, width, dtype=np.float32), (FRAMES, HEIGHT, width))
    np.savez(clip.with_suffix(".depth.npz"), nearness=ramp * ramp)
    stretched, cut = (seen(clip, fit=fit)[0, 4] for fit in ("stretch", "resize_center"))
    place = torch.arange(0.5, 8) / 8
    for found, across in ((stretched, place), (cut, 0.25 + place / 2)):
        square = across.square()
        expected = 2 * (square - square[0]) / (square[-1] - square[0]) - 1
        assert torch.allclose(found, expected, atol=0.06)
    assert not torch.allclose(stretched, cut, atol=0.1)


def test_the_depth_of_another_clip_is_that_of_its_maps_or_estimated(clip: Path, monkeypatch: Any) -> None:
    """In each frame something near moves on, in the maps beside the other clip as in what the estimator sees."""
    steps = torch.eye(8)[:FRAMES, None].expand(-1, 8, -1)
    np.save(clip.with_name("flat.npy"), np.zeros((FRAMES, 8, 8)))
    edit = {"edit": [{"from": str(clip)}], "maps": str(clip.with_name("flat.npy"))}
    monkeypatch.setattr(clip_depth, "estimate", lambda frames, *_: steps[: len(frames)])
    assert torch.equal(seen(clip, **edit), 2 * steps - 1)
    np.savez(clip.with_suffix(".depth.npz"), depth=steps.numpy())
    assert torch.equal(seen(clip, **edit), 2 * steps - 1)


@pytest.fixture
def model(tmp_path: Path) -> str:
    """The folder of a depth model that brings its estimator."""
    (tmp_path / "model").mkdir()
    return save(tmp_path / "model", dpt(), "depth_estimator", "feature_extractor")


def test_without_maps_the_models_own_estimator_looks_at_the_original_frames(clip: Path, model: str) -> None:
    frames = OneClip(clip, ["a wall"], FRAMES, (HEIGHT, WIDTH)).frames()
    for options, normalise in (({}, "per_frame"), ({"normalise": "per_clip"}, "per_clip")):
        expected = depth_channel(estimate(frames, model)[None], (8, 8), normalise)[0, 0]
        method = Depth(**options)
        assert torch.equal(seen(clip, asked(clip, method, model={"path": model}), **options), expected)


def test_what_was_estimated_is_cut_as_the_frames_are(clip: Path, monkeypatch: Any) -> None:
    ramp = torch.linspace(0, 1, WIDTH).square().expand(FRAMES, HEIGHT, -1)
    shapes = []
    monkeypatch.setattr(clip_depth, "estimate", lambda frames, *_: shapes.append(frames.shape) or ramp)
    estimated = seen(clip, fit="resize_center")
    assert shapes == [(FRAMES, 3, HEIGHT, WIDTH)]
    np.savez(clip.with_suffix(".depth.npz"), nearness=ramp.numpy())
    assert torch.equal(estimated, seen(clip, fit="resize_center"))


def test_maps_lie_beside_a_clip_under_its_whole_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "clip.v2"
    folder.mkdir()
    np.savez(tmp_path / "clip.v2.depth.npz", nearness=np.ones((1, 4, 4)))
    found = str(tmp_path / "clip.v2.depth.npz")
    assert clip_depth._beside(OneClip(folder, ["a wall"], 1, (64, 64))) == found
    monkeypatch.chdir(folder)
    assert clip_depth._beside(OneClip(".", ["a wall"], 1, (64, 64))) == found


def test_depth_spans_its_range_in_every_frame_or_over_the_clip(clip: Path) -> None:
    rising = np.linspace(0, 1, 16).reshape(1, 4, 4) + np.arange(FRAMES)[:, None, None]
    np.savez(clip.with_suffix(".depth.npz"), depth=rising)
    by_frame, by_clip = (seen(clip, normalise=normalise) for normalise in ("per_frame", "per_clip"))
    assert torch.allclose(by_frame.amax((1, 2)), torch.ones(FRAMES))
    assert torch.allclose(by_frame.amin((1, 2)), -torch.ones(FRAMES))
    assert by_clip.max() == 1 and by_clip.min() == -1 and by_clip[0].max() < 0 < by_clip[-1].min()


def test_depth_beside_what_was_tuned_is_estimated_once(clip: Path, model: str, monkeypatch: Any) -> None:
    calls: list[str] = []
    monkeypatch.setattr(clip_depth, "estimate", lambda *given: calls.append(given[1]) or estimate(*given))
    (clip.parent / "run").mkdir()
    there = {"tuned": str(clip.parent / "run"), "model": {"path": model}}
    first, again = (seen(clip, asked(clip, Depth(), **there)) for _ in range(2))
    assert torch.equal(first, again) and calls == [model]
    save(Path(model), dpt(initializer_range=0.1), "depth_estimator", "feature_extractor")
    seen(clip, asked(clip, Depth(), **there))
    assert calls == [model, model]


@pytest.mark.parametrize(
    ("answer", "estimator"),
    [(None, "owner/model"), (EntryNotFoundError, clip_depth.PUBLISHED), (LocalEntryNotFoundError, "owner/model")],
    ids=["has one", "has none", "no network"],
)
def test_a_model_of_the_hub_is_asked_for_its_own_estimator(
    clip: Path, monkeypatch: Any, answer: type[Exception] | None, estimator: str
) -> None:
    def download(source: str, file: str) -> str:
        assert (source, file) == ("owner/model", "depth_estimator/config.json")
        if answer is not None:
            raise answer("not there")
        return file

    calls: list[str] = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(clip_depth, "estimate", lambda *given: calls.append(given[1]) or torch.zeros(FRAMES, 8, 8))
    seen(clip, asked(clip, Depth(), model={"path": "owner/model"}))
    assert calls == [estimator]
