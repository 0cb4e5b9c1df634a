"""Scores of sets: known distances of distributions, networks of the user's, and how they come into a report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vidgen_core import cli
from vidgen_core.errors import BadRequest
from vidgen_core.evaluation.results import Results, Scored, ScoredSet
from vidgen_core.evaluation.table import table
from vidgen_core.metrics.clip import Clip, ClipSim, TextScore, load
from vidgen_core.metrics.colour_shift import ColourShift
from vidgen_core.metrics.distributions import frechet_distance, inception_score
from vidgen_core.metrics.feature_network import over_time
from vidgen_core.metrics.footage import Footage
from vidgen_core.metrics.real import Real
from vidgen_core.metrics.sets import Fid, Fvd, InceptionScore
from vidgen_core.video_writer import VideoWriter

RED, BLUE = (220, 40, 40), (40, 40, 220)


def with_moments(mean: np.ndarray, covariance: np.ndarray, n: int = 200) -> np.ndarray:
    """Samples whose mean and covariance are exactly these."""
    drawn = np.random.default_rng(0).normal(size=(n, len(mean)))
    drawn -= drawn.mean(axis=0)
    white = drawn @ np.linalg.inv(np.linalg.cholesky(np.cov(drawn, rowvar=False))).T
    return white @ np.linalg.cholesky(covariance).T + mean


def video(path: Path, *colours: tuple[int, int, int]) -> Footage:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = VideoWriter(path, 8, {}, 0, 0)
    for colour in colours:
        writer.write(np.broadcast_to(np.array(colour, np.uint8), (2, 32, 32, 3)))
    writer.close()
    return Footage(path.stem, path, ("a red circle",), (range(2 * len(colours)),))


@pytest.fixture(scope="module")
def clip(clip_folder: Path) -> Clip:
    return load(str(clip_folder), "cpu")


# ------------------------------------------------------------------------------------------ distributions


def test_the_frechet_distance_of_gaussians_is_the_closed_form() -> None:
    ours = with_moments(np.array([1.0, 2.0, 3.0]), np.diag([4.0, 9.0, 1.0]))
    real = with_moments(np.array([1.0, 0.0, 3.0]), np.diag([1.0, 4.0, 1.0]))
    # Of covariances that commute it is the squared distance of means and of standard deviations.
    assert frechet_distance(ours, real) == pytest.approx(2**2 + (2 - 1) ** 2 + (3 - 2) ** 2, rel=1e-9)


def test_the_frechet_distance_of_correlated_gaussians_is_that_of_the_square_root_of_a_matrix() -> None:
    rng = np.random.default_rng(1)
    a, b = (part @ part.T + np.eye(5) for part in rng.normal(size=(2, 5, 5)))
    root = np.linalg.eigvals(a @ b).real.clip(0)
    expected = np.trace(a) + np.trace(b) - 2 * np.sqrt(root).sum()
    zero = np.zeros(5)
    assert frechet_distance(with_moments(zero, a), with_moments(zero, b)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", [3, 500], ids=["fewer samples than features", "more"])
def test_a_set_has_no_distance_to_itself_whatever_its_order(n) -> None:
    features = np.random.default_rng(0).normal(size=(n, 64)) * 1000
    assert frechet_distance(features, features[::-1]) == pytest.approx(0, abs=1e-4)


def test_the_inception_score_is_the_number_of_classes_that_are_shown_surely() -> None:
    sure = 1000 * np.eye(5)
    assert inception_score(np.concatenate([sure, sure])) == pytest.approx(5)
    assert inception_score(sure[[0, 0, 0]]) == pytest.approx(1)
    assert inception_score(np.zeros((4, 5))) == pytest.approx(1)


# ----------------------------------------------------------------------------------------------- networks


def test_features_over_time_tell_motion_from_standing_and_from_jumping_about() -> None:
    way = torch.eye(8)[:, :, None]  # something passes eight places in eight frames
    looks, drift, change = over_time(way)
    for other in (way[[3, 0, 6, 1, 7, 2, 5, 4]], way[:1].expand(8, -1, -1)):
        assert over_time(other)[0] == looks
    assert over_time(way.flip(0)) == pytest.approx(over_time(way), abs=1e-6)
    standing = over_time(way[:1].expand(8, -1, -1))
    assert standing[1:] == pytest.approx(0, abs=1e-6)
    assert drift > 0.05 and change > 0.05
    assert over_time(way[:1]).tolist() == [looks, 0, 0]


def test_the_same_videos_are_at_no_distance_and_others_are(clip, tmp_path) -> None:
    ours = [video(tmp_path / "real" / f"{i}.mp4", *order) for i, order in enumerate([(RED, RED), (RED, BLUE)])]
    others = [video(tmp_path / f"{i}.mp4", BLUE, BLUE) for i in range(2)]
    for kind in (Fid, Fvd):
        metric = kind(clip, Real(str(tmp_path / "real")))
        (same,) = metric.score_set([metric.see(one) for one in ours]).values()
        (apart,) = metric.score_set([metric.see(one) for one in others]).values()
        assert same == pytest.approx(0, abs=1e-5)
        assert apart is not None and apart > 1e-3


class MeanColour(nn.Module):
    """Three features, the mean of each colour; of pictures or videos."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).mean(dim=2)


class AsPublished(nn.Module):
    """Arguments of the detectors that are passed around for FID and FVD: they take 0..255 and resize by themselves."""

    def forward(self, x: torch.Tensor, resize: bool = False, return_features: bool = False) -> torch.Tensor:
        if not resize or not return_features:
            return x.flatten(2).mean(dim=2) * 0
        return x.flatten(2).mean(dim=2)


def test_a_network_of_torchscript_sees_what_it_says_it_takes(clip, tmp_path) -> None:
    torch.jit.script(MeanColour()).save(str(tmp_path / "mean.pt"))
    torch.jit.script(AsPublished()).save(str(tmp_path / "published.pt"))
    shown = video(tmp_path / "blue.mp4", BLUE, BLUE)
    pictures = Fid(clip, Real(), network=str(tmp_path / "mean.pt"), size=8, values="0..1").see(shown)
    assert pictures.shape == (4, 3)
    assert pictures[0] == pytest.approx(np.array(BLUE) / 255, abs=0.02)
    whole = Fvd(clip, Real(), network=str(tmp_path / "published.pt"), size=8).see(shown)
    assert whole == pytest.approx(np.array([BLUE]), abs=5)


def test_a_video_classifier_of_transformers_gives_features_and_classes(clip, picture_processor, tmp_path) -> None:
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEImageProcessor

    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = VideoMAEConfig(**size, image_size=32, patch_size=16, num_frames=4, tubelet_size=2, num_labels=7)
    VideoMAEForVideoClassification(config).save_pretrained(tmp_path / "videomae")
    VideoMAEImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        tmp_path / "videomae"
    )
    shown = video(tmp_path / "blue.mp4", BLUE, BLUE)
    assert Fvd(clip, Real(), network=str(tmp_path / "videomae")).see(shown).shape == (1, 16)
    logits, _ = InceptionScore(clip, network=str(tmp_path / "videomae")).see(shown)
    assert logits.shape == (1, 7)
    with pytest.raises(BadRequest, match="looks at videos"):
        Fid(clip, Real(), network=str(tmp_path / "videomae")).see(shown)


def test_mistakes_are_named(clip, tmp_path) -> None:
    shown = video(tmp_path / "blue.mp4", BLUE)
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(BadRequest, match="real.path=<folder>"):
        fid = Fid(clip, Real())
        fid.score_set([fid.see(shown)])
    with pytest.raises(BadRequest, match="is no TorchScript file"):
        Fid(clip, Real(), network=str(tmp_path / "text.pt"))
    with pytest.raises(BadRequest, match="there is no such file or folder"):
        Fvd(clip, Real(), network=str(tmp_path / "nowhere"))
    with pytest.raises(BadRequest, match="metrics.fvd.frames=16"):
        Fvd(clip, Real(), frames=16).see(shown)


# ------------------------------------------------------------------------------------------ single videos


def test_colours_that_move_have_not_shifted_and_those_that_fade_have(tmp_path) -> None:
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame[number : number + 2, 1:3] = (200, 100, 0)
    footage = Footage("moves", tmp_path / "none.mp4", (), (range(3),))
    vars(footage)["frames"] = frames
    assert ColourShift().score(footage) == {"colour_shift": 0, "colour_shift_first": 0}
    vars(footage)["frames"] = np.stack([np.full((8, 8, 3), value, np.uint8) for value in (10, 20, 10)])
    assert ColourShift().score(footage) == {"colour_shift": 10, "colour_shift_first": 5}


def test_clipsim_weighs_frames_and_not_scenes(clip, tmp_path) -> None:
    footage = video(tmp_path / "three.mp4", RED, BLUE, BLUE)
    assert ClipSim(clip).score(footage)["clipsim"] == pytest.approx(TextScore(clip).score(footage)["clip_text"])
    footage = Footage("two", footage.path, ("a red circle", "a blue square"), (range(2), range(2, 6)))
    first, second = (
        Footage("", footage.path, (c,), (s,)) for c, s in zip(footage.captions, footage.spans, strict=True)
    )
    values = [ClipSim(clip).score(part)["clipsim"] for part in (first, second)]
    assert ClipSim(clip).score(footage)["clipsim"] == pytest.approx((2 * values[0] + 4 * values[1]) / 6, abs=1e-6)


# ------------------------------------------------------------------------------------------------ reports


def test_a_folder_is_one_set_and_at_no_distance_from_itself(tmp_path, clip_folder) -> None:
    for name, colours in {"a": (RED, RED), "b": (RED, BLUE), "c": (BLUE, BLUE)}.items():
        video(tmp_path / "videos" / f"{name}.mp4", *colours)
    captions = {"a": ["a red circle"], "b": ["a red circle"], "c": ["a blue square"]}
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    videos = f"videos={tmp_path / 'videos'}"
    asked = ["metric=[fid,fvd,inception_score,colour_shift]", f"clip.path={clip_folder}", "page_videos=1"]
    given = [f"real.path={tmp_path / 'videos'}", f"captions={tmp_path / 'captions.json'}"]
    assert cli.main(["evaluate", videos, *asked, *given, f"output.dir={tmp_path / 'out'}"]) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    (of_all,) = found["sets"]
    assert of_all["scores"]["fid"] == pytest.approx(0, abs=1e-4)
    assert of_all["scores"]["fvd"] == pytest.approx(0, abs=1e-4)
    assert 1 <= of_all["scores"]["inception_score"] <= 2
    assert found["rows"][""]["means"]["fvd"]["n"] == 1
    assert found["rows"][""]["means"]["colour_shift"]["n"] == 3


def results(by_seed: bool) -> Results:
    def made(row: str, seed: int, story: str, score: float) -> Scored:
        return Scored(row, story, seed, Path("none"), (), (), {"text": score})

    videos = [
        made(row, seed, story, (row == "a") * 0.5 + seed / 10) for row in "ab" for seed in (0, 1, 2) for story in "xy"
    ]
    sets = [ScoredSet(row, seed, {"fvd": 10.0 * (row == "b") + seed}) for row in "ab" for seed in (0, 1, 2)]
    return Results(
        "T", {"a": "A", "b": "B"}, ["text", "fvd"], "a", videos, numbers=frozenset({"fvd"}), sets=sets, by_seed=by_seed
    )


def test_sets_are_averaged_and_paired_over_seeds() -> None:
    mean, difference = results(False).mean("b", "fvd"), results(False).difference("b", "fvd")
    assert mean is not None and (mean.mean, mean.low, mean.high, mean.n) == (11, 10, 12, 3)
    assert difference is not None and (difference.mean, difference.low, difference.high) == (-10, -10, -10)
    assert "story by story, sets seed by seed" in table(results(False))


def test_seeds_are_the_units_of_all_scores_where_models_were_trained_with_them() -> None:
    stories, seeds = results(False).mean("a", "text"), results(True).mean("a", "text")
    assert stories is not None and stories.n == 2 and stories.low == stories.high
    assert seeds is not None and seeds.n == 3 and seeds.low < seeds.mean < seeds.high
    assert "seed by seed" in table(results(True))
