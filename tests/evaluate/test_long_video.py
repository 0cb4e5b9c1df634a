"""Scores of long videos: warp error by motion, seams of chunks, stagnation, and drift from the first frame."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from vidgen_moving_shapes.flow import ObjectFlow
from vidgen_moving_shapes.motions import Track
from vidgen_moving_shapes.palette import GROUND_COLOURS, OBJECT_COLOURS
from vidgen_moving_shapes.world import Layer, Scene

import vidgen_core as vg
from vidgen_core import cli
from vidgen_core.errors import BadRequest
from vidgen_core.evaluation.config import compose_evaluation
from vidgen_core.instantiate import instantiate
from vidgen_core.metrics import flow_raft
from vidgen_core.metrics.anchor_drift import AnchorDrift
from vidgen_core.metrics.chunks import Chunks
from vidgen_core.metrics.clip import Clip, load
from vidgen_core.metrics.flow import Flow, motion, neighbours
from vidgen_core.metrics.flow_opencv import OpenCVFlow
from vidgen_core.metrics.footage import Footage
from vidgen_core.metrics.mawe import Mawe, mean_of_ratios, ratio_of_means, resized, warp, warp_error
from vidgen_core.metrics.seam import Seam
from vidgen_core.metrics.stagnation import Stagnation
from vidgen_core.provenance import write_yaml
from vidgen_core.video_writer import VideoWriter

RED, BLUE = (220, 40, 40), (40, 40, 220)


def footage(frames: np.ndarray, path: Path = Path("long.mp4")) -> Footage:
    """Frames as they are; a file where a metric is to read one."""
    found = Footage("long", path, (), (range(len(frames)),))
    if path.parent == Path():
        vars(found)["frames"] = frames
        return found
    writer = VideoWriter(path, 8, {}, 0, 0)
    writer.write(frames)
    writer.close()
    return found


def texture(seed: int = 0, side: int = 64) -> np.ndarray:
    """A smooth random picture (side, side, 3)."""
    coarse = torch.from_numpy(np.random.default_rng(seed).uniform(0, 255, (1, 3, side // 8, side // 8)))
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 255)
    return smooth[0].permute(1, 2, 0).round().byte().numpy()


def sliding(steps: list[int], side: int = 64) -> np.ndarray:
    """A texture that goes round to the right by so many pixels from frame to frame."""
    return np.stack([np.roll(texture(side=side), shift, axis=1) for shift in np.cumsum([0, *steps])])


class Given:
    """An estimator that says of every pair what it is told."""

    def __init__(self, *steps: tuple[float, float]) -> None:
        self.steps = list(steps)
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        self.seen.append(frames.shape)
        steps, self.steps = self.steps[: len(frames) - 1], self.steps[len(frames) - 1 :]
        flows = np.array(steps, np.float32)[:, :, None, None]
        return np.broadcast_to(flows, (len(steps), 2, *frames.shape[1:3]))


# ------------------------------------------------------------------------------------------------ MAWE


def test_of_pixels_that_land_on_one_place_the_last_stays_and_the_places_left_are_holes() -> None:
    frame = np.arange(1, 5, dtype=np.uint8).reshape(1, 4, 1).repeat(3, axis=2)
    x = np.array([[0.5, 1.5, -0.5, 1.0]], np.float32)  # halves go to the even pixel: targets 0, 2, 2, and outside
    moved, known = warp(frame, np.stack([x, np.zeros_like(x)]))
    assert moved[0, :, 0].tolist() == [1, 0, 3, 0]
    assert known[0].tolist() == [True, False, True, False]


def test_what_follows_the_flow_has_no_error_and_what_leaves_or_comes_in_is_not_counted() -> None:
    left, right = sliding([3])
    flow = np.zeros((2, 64, 64), np.float32)
    assert warp_error(left, right, flow) > 10
    flow[0] = 3
    assert warp_error(left, right, flow) == 0
    flow[0] = 100
    assert warp_error(left, right, flow) == 0


def test_the_code_means_ratios_and_the_paper_divides_means() -> None:
    errors, motions = [19.0, 19.0, 7.0], [1.0, 2.0, 0.0]
    assert mean_of_ratios(errors, motions) == pytest.approx((2 + 1) / 2)
    assert ratio_of_means(errors, motions) == pytest.approx((45 / 3) / (9.5 * 1.0))
    assert mean_of_ratios(errors, [0.0] * 3) is ratio_of_means(errors, [0.0] * 3) is None


def test_pairs_without_motion_are_left_out_and_counted(capsys) -> None:
    frames = sliding([4, 0, 4])
    metric = Mawe(Given((4, 0), (0, 0), (3, 0)), resize=0)
    found = metric.score(footage(frames))
    flow = np.zeros((2, 64, 64), np.float32)
    flow[0] = 3
    third = warp_error(frames[2], frames[3], flow) / (9.5 * 3)
    assert found["mawe"] == pytest.approx((0 + third) / 2)
    assert found["mawe_still_pairs"] == 1
    assert metric.account() == {"pairs": 3, "still pairs left out": 1}
    still = Mawe(Given((0, 0)), resize=0).score(footage(frames[:2]))
    assert still["mawe"] is still["mawe_of_means"] is None
    assert Mawe(Given()).score(footage(frames[:1]))["mawe"] is None
    told = capsys.readouterr().err
    assert "moves by no more than 0.001 pixels in every pair" in told
    assert "has one frame" in told


def test_frames_become_squares_before_their_flow_is_asked_for() -> None:
    estimator = Given((1, 0))
    Mawe(estimator, resize=24).score(footage(sliding([1])[:, :32]))
    assert estimator.seen == [(2, 24, 24, 3)]
    stripes = np.array([0, 100], np.uint8)[None, None, :, None].repeat(3, axis=3)
    assert resized(stripes, 4)[0, 0, :, 0].tolist() == [0, 25, 75, 100]


def test_a_video_is_streamed_and_every_pair_of_neighbours_comes_once(tmp_path) -> None:
    frames = sliding([1] * 19, side=32)
    long = footage(frames, tmp_path / "long.mp4")
    pairs = [len(block) - 1 for block in neighbours(long)]
    assert sum(pairs) == 19 and max(pairs) < 10
    whole = Footage("whole", long.path, (), ())
    scores = [Mawe(OpenCVFlow(), resize=0).score(seen) for seen in (long, footage(whole.frames))]
    assert scores[0] == scores[1]
    assert "frames" not in vars(long)


# ------------------------------------------------------------------------------------------------ flow


@pytest.mark.parametrize("method", ["dis", "farneback"])
def test_opencv_finds_the_shift_of_a_texture(method) -> None:
    frames = np.stack([np.roll(texture(), (i, 2 * i), axis=(0, 1)) for i in range(3)])
    flows = OpenCVFlow(method)(frames)
    assert flows.shape == (2, 2, 64, 64)
    x, y = np.median(flows, axis=(0, 2, 3))
    assert (x, y) == (pytest.approx(2, abs=0.1), pytest.approx(1, abs=0.1))


def test_flow_that_cannot_be_estimated_is_refused(monkeypatch) -> None:
    with pytest.raises(BadRequest, match="at least 16 pixels a side, not 64x8"):
        OpenCVFlow()(np.zeros((2, 8, 64, 3), np.uint8))
    with pytest.raises(BadRequest, match="Did you mean 'dis'"):
        OpenCVFlow("diss")
    with pytest.raises(BadRequest, match="metrics.mawe.resize=0"):
        ObjectFlow()(np.zeros((2, 720, 720, 3), np.uint8))
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(BadRequest, match="needs OpenCV"):
        OpenCVFlow()
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(BadRequest, match="needs the torchvision that belongs to torch"):
        flow_raft.load(device="cpu")


class Network(torch.nn.Module):
    """Takes frames as RAFT does, and answers with two iterates: nothing, and how much brighter the second frame is."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> list[torch.Tensor]:
        assert one.shape == other.shape == (1, 3, 128, 136)
        assert one.abs().max() <= 1
        return [torch.zeros(1, 2, 128, 136), (other - one)[:, :2] * self.scale]


def test_raft_sees_padded_frames_and_its_last_iterate_is_cut_to_the_picture() -> None:
    frames = np.stack([np.full((64, 130, 3), shade, np.uint8) for shade in (0, 255, 0)])
    flows = flow_raft.RaftFlow(Network())(frames)
    assert flows.shape == (2, 2, 64, 130)
    assert (flows[0] == 2).all() and (flows[1] == -2).all()


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torchvision whose RAFT is the network of these tests, which nobody may fetch weights for."""

    def raft_large(weights: object) -> Network:
        assert weights is None
        return Network()

    flow = ModuleType("torchvision.models.optical_flow")
    vars(flow).update(raft_large=raft_large, Raft_Large_Weights=None)
    for module in (ModuleType("torchvision"), ModuleType("torchvision.models"), flow):
        monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.usefixtures("torchvision")
def test_raft_takes_the_weights_of_the_users_file(tmp_path: Path) -> None:
    def estimator(file: Path) -> Flow:
        asked = ["flow=raft", f"flow.weights={file}", "flow.device=cpu", f"videos={tmp_path}", "metric=[mawe]"]
        found: Flow = instantiate(compose_evaluation(asked).config["flow"])
        return found

    frames = np.stack([np.full((64, 130, 3), shade, np.uint8) for shade in (0, 255)])
    for name, scale in (("raft.pth", 3.0), ("raft.safetensors", 5.0)):
        tensors = {"scale": torch.tensor(scale)}
        save_file(tensors, tmp_path / name) if name.endswith("safetensors") else torch.save(tensors, tmp_path / name)
        assert (estimator(tmp_path / name)(frames) == 2 * scale).all()
    torch.save({"another": torch.zeros(1)}, tmp_path / "another.pth")
    with pytest.raises(BadRequest, match="scale"):
        estimator(tmp_path / "another.pth")
    with pytest.raises(BadRequest, match="there is no such file"):
        estimator(tmp_path / "nothing.pth")


def shape_clip(x: np.ndarray, size: np.ndarray | float = 12.0) -> Scene:
    centre = np.stack([x, np.full(len(x), 32.0)], 1).astype(np.float32)
    track = Track(centre, np.broadcast_to(size, len(x)).astype(np.float32))
    tint = np.asarray(OBJECT_COLOURS["red"], np.float32)
    return Scene(np.asarray(GROUND_COLOURS["white"], np.float32), (Layer("circle", tint, track),))


@pytest.mark.parametrize("size", [12.0, np.linspace(10, 14, 8)])
def test_the_oracles_flow_is_the_exact_one(size) -> None:
    scene = shape_clip(20 + 1.3 * np.arange(8), size)
    exact, found = scene.flow().transpose(0, 3, 1, 2), ObjectFlow()(scene.frames())
    assert np.abs(found - exact).max() < 0.15
    assert motion(found) == pytest.approx(motion(exact), rel=0.05)


def test_nothing_moves_where_there_is_no_object() -> None:
    empty = np.full((3, 64, 64, 3), 255, np.uint8)
    empty[0] = shape_clip(np.array([32.0])).frames()[0]
    assert not ObjectFlow()(empty).any()


# ------------------------------------------------------------------------------------------------ chunks


def test_chunks_are_as_the_user_says_else_as_recorded(tmp_path) -> None:
    long = footage(np.zeros((20, 16, 16, 3), np.uint8), tmp_path / "video.mp4")
    assert Chunks(4, 8).of(long) == [range(8), range(8, 12), range(12, 16), range(16, 20)]
    assert Chunks(8).of(long) == [range(8), range(8, 16), range(16, 20)]
    with pytest.raises(BadRequest, match="holds no record of its chunks. Say chunks.frames="):
        Chunks().of(long)
    write_yaml(tmp_path / "run.yaml", {"config": {}, "window_frames": [16, 4]})
    assert Chunks().of(long) == [range(16), range(16, 20)]
    assert Chunks(10).of(long) == [range(10), range(10, 20)]
    write_yaml(tmp_path / "run.yaml", {"config": {}, "window_frames": [16, 8]})
    with pytest.raises(BadRequest, match="has 20 frames, and its record tells of 24"):
        Chunks().of(long)


def test_a_run_records_the_frames_of_its_windows(tmp_path) -> None:
    vg.generate(
        prompt="x",
        model="tiny",
        num_frames=3,
        height=16,
        width=16,
        num_inference_steps=1,
        output={"dir": str(tmp_path)},
    )
    assert Chunks().of(Footage("made", tmp_path / "video.mp4", (), ())) == [range(3)]


def test_chunks_that_do_not_fit_are_named() -> None:
    long = footage(np.zeros((8, 16, 16, 3), np.uint8))
    with pytest.raises(BadRequest, match="chunks.frames=8 leaves no second chunk in 'long', which has 8 frames"):
        Chunks(8).of(long)
    with pytest.raises(BadRequest, match="chunks.first=9 leaves no second chunk"):
        Chunks(2, 9).of(long)
    with pytest.raises(BadRequest, match="Give chunks.frames= too"):
        Chunks(first=9)


def test_a_seam_is_a_jump_at_the_joins_and_nowhere_else(capsys) -> None:
    even, jumping = footage(sliding([1] * 11)), footage(sliding([1, 1, 1, 9, 1, 1, 1, 9, 1, 1, 1]))
    assert Seam(Chunks(4)).score(even)["seam"] == pytest.approx(1, abs=0.02)
    assert Seam(Chunks(4)).score(jumping)["seam"] > 3
    assert Seam(Chunks(5)).score(jumping)["seam"] < 1
    still = footage(np.zeros((8, 16, 16, 3), np.uint8))
    assert Seam(Chunks(4)).score(still)["seam"] is None
    assert "shows no change inside its chunks" in capsys.readouterr().err


def test_a_video_that_stops_has_lost_its_motion_and_a_jump_at_a_join_is_none(capsys) -> None:
    def stagnation(*steps: int) -> float | None:
        flow = Given(*((step, 0) for step in steps))
        return Stagnation(flow, Chunks(3), ends=0.5).score(footage(sliding(list(steps))))["stagnation"]

    assert stagnation(2, 2, 9, 2, 2) == pytest.approx(0)
    assert stagnation(2, 2, 9, 0, 0) == pytest.approx(1)
    assert stagnation(2, 2, 0, 1, 1, 9, 1, 1, 9, 1, 1) == pytest.approx(1 - 1 / 1.5)
    assert stagnation(2, 2, 0, 3, 3) == pytest.approx(-0.5)
    assert stagnation(0, 0, 9, 2, 2) is None
    assert "moves by no more than 0.001 pixels in its first chunks" in capsys.readouterr().err


def test_the_motion_of_every_chunk_is_told_in_order() -> None:
    flow = Given(*((step, 0) for step in (2, 2, 9, 1, 3, 9, 1, 1)))
    scores = Stagnation(flow, Chunks(3)).score(footage(sliding([2, 2, 9, 1, 3, 9, 1, 1])))
    motions = {name: value for name, value in scores.items() if name.startswith("motion_chunk_")}
    assert motions == {f"motion_chunk_{i:03d}": pytest.approx(m) for i, m in enumerate((2, 2, 1))}


# ------------------------------------------------------------------------------------------------ drift


@pytest.fixture(scope="module")
def clip(clip_folder: Path) -> Clip:
    return load(str(clip_folder), "cpu")


def painted(*colours: tuple[int, int, int]) -> np.ndarray:
    return np.stack([np.broadcast_to(np.array(colour, np.uint8), (32, 32, 3)) for colour in colours])


def test_a_still_video_does_not_drift_and_another_colour_at_the_end_does(clip, tmp_path) -> None:
    still = AnchorDrift(clip).score(footage(painted(RED, RED, RED), tmp_path / "still.mp4"))
    assert (still["colour_drift"], still["colour_drift_end"]) == (0, 0)
    assert still["anchor_similarity"] == pytest.approx(1, abs=1e-4)
    drifting = AnchorDrift(clip, end_frames=1).score(footage(painted(RED, RED, BLUE), tmp_path / "drifting.mp4"))
    assert (drifting["colour_drift"], drifting["colour_drift_end"]) == (pytest.approx(0.5), pytest.approx(1))
    assert drifting["anchor_similarity_end"] < drifting["anchor_similarity"] < 1 - 1e-4


# ------------------------------------------------------------------------------------------------ command


def test_videos_without_captions_are_scored_by_one_command(clip_folder, tmp_path, capsys) -> None:
    (tmp_path / "videos").mkdir()
    footage(sliding([1] * 11), tmp_path / "videos" / "one.mp4")
    command = ["evaluate", f"videos={tmp_path / 'videos'}", "chunks.frames=4", f"clip.path={clip_folder}"]
    command += [f"output.dir={tmp_path / 'out'}", "metrics.mawe.resize=64"]
    assert cli.main([*command, "metric=[mawe,seam,stagnation,anchor_drift]"]) == 0
    table = capsys.readouterr().out
    seam = Seam(Chunks(4)).score(Footage("one", tmp_path / "videos" / "one.mp4", (), ()))["seam"]
    assert f"{seam:.2f} [" in table  # a number, not points
    assert "motion_chunk" not in table
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    chunks = [f"motion_chunk_00{i}" for i in range(3)]  # of four frames each
    means = found["rows"][""]["means"]
    assert [means[name]["mean"] for name in chunks] == [found["videos"][0]["scores"][name] for name in chunks]
    assert "mawe: pairs 11, still pairs left out 0" in table
    assert cli.main([*command, "metric=[mawe,clip_text]"]) == 2
    assert "holds no record of what it was to show" in capsys.readouterr().err
    assert cli.main([*command, "metric=mawe", "flow=moving"]) == 2
    assert "Did you mean 'moving_shapes'" in capsys.readouterr().err
