"""TF-T2V's maps: read from files, and made from a video."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tf_t2v_runs import SETTINGS
from torch import Tensor
from vidgen_tf_t2v import extract
from vidgen_tf_t2v.extract import extracted
from vidgen_tf_t2v.maps import read_map
from vidgen_tf_t2v.method import TFT2V

from vidgen_core.errors import BadRequest
from vidgen_core.models.loading import located
from vidgen_core.testing import request, video

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
