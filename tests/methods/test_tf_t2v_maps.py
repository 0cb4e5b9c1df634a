"""TF-T2V's maps: read from files, and made from a video."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from tf_t2v_runs import SETTINGS, TINY
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from vidgen_tf_t2v import extract, map_encoder
from vidgen_tf_t2v.conditions import footage, read_conditions, shown
from vidgen_tf_t2v.extract import Extraction
from vidgen_tf_t2v.maps import read_map
from vidgen_tf_t2v.method import TFT2V

from vidgen_core.cli import main
from vidgen_core.data.image_maps import ImageMaps
from vidgen_core.errors import BadRequest
from vidgen_core.models.loading import located
from vidgen_core.provenance import read_provenance
from vidgen_core.testing import request, video

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from little_data import write_sound

# ----------------------------------------------------------------------------------------------------------- maps


class TestMaps:
    def test_a_map_is_read_where_there_is_an_encoder_and_changes_the_video(self, tmp_path, backbone) -> None:
        rng = np.random.default_rng(0)
        for name in ("one", "other"):
            np.save(tmp_path / f"{name}.npy", rng.random((4, 40, 48), np.float32))
        one, other = (
            video(request(), {"tf_t2v": TFT2V(conditions={"depth": str(tmp_path / f"{name}.npy")})}, SETTINGS, backbone)
            for name in ("one", "other")
        )
        assert not torch.equal(one, other)
        assert not torch.equal(one, video(request(), backbone=backbone))

    def test_its_channels_are_encoded_once_for_all_steps(self, tmp_path, monkeypatch) -> None:
        from vidgen_tf_t2v.map_encoder import MapEncoder

        calls, forward = [], MapEncoder.forward
        monkeypatch.setattr(MapEncoder, "forward", lambda *a: calls.append(1) or forward(*a))
        np.save(tmp_path / "depth.npy", np.zeros((4, 32, 32), np.float32))
        method = TFT2V(conditions={"depth": str(tmp_path / "depth.npy")})
        video(request(num_inference_steps=3), {"tf_t2v": method}, SETTINGS)
        assert len(calls) == 1

    def test_a_few_frames_at_a_time_have_the_channels_of_all_at_once(self, monkeypatch) -> None:
        encoder, maps = map_encoder.MapEncoder(1, 4).eval(), torch.rand(2, 1, 5, 16, 24)
        few = encoder(maps, (2, 3), scaled_dot_product_attention)
        monkeypatch.setattr(map_encoder, "AT_ONCE", 100)
        torch.testing.assert_close(few, encoder(maps, (2, 3), scaled_dot_product_attention))

    def test_pictures_count_by_brightness_or_by_colours(self, tmp_path) -> None:
        Image.new("RGB", (6, 4), (255, 0, 0)).save(tmp_path / "red.png")
        grey, colours = (read_map(name, str(tmp_path / "red.png"), 3) for name in ("sketch", "local_image"))
        torch.testing.assert_close(grey, torch.full((1, 3, 4, 6), 0.299))
        assert torch.equal(colours[:, 2, 0, 0], torch.tensor([1.0, 0.0, 0.0]))

    def test_a_picture_of_16_bits_is_the_map_that_a_training_reads_of_it(self, tmp_path) -> None:
        Image.fromarray(np.linspace(0, 65535, 24).astype(np.uint16).reshape(4, 6)).save(tmp_path / "d16.png")
        trained = ImageMaps({"depth": str(tmp_path)}).read("d16.jpg", (4, 6), (4, 6), "center")["depth"]
        asked = read_map("depth", str(tmp_path / "d16.png"), 1)
        torch.testing.assert_close(asked[:, 0], trained[0], atol=0.51 / 255, rtol=0)

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

    @pytest.mark.parametrize("kind", [">f4", np.longdouble, np.uint16, "f8"])
    def test_arrays_of_any_real_type_are_read(self, tmp_path, kind) -> None:
        np.save(tmp_path / "depth.npy", np.arange(24).reshape(1, 4, 6).astype(kind))
        assert torch.equal(read_map("depth", str(tmp_path / "depth.npy"), 1).flatten(), torch.arange(24.0))

    @pytest.mark.parametrize(
        ("name", "array", "message"),
        [
            ("depth", np.zeros((2, 4, 4)), "holds 2 maps for 3 frames"),
            ("motion", np.zeros((3, 4, 4)), r"must be \(frames, 2, height, width\)"),
            ("depth", np.full((3, 4, 4), np.nan), "holds NaN or infinity"),
            ("depth", np.array(["a"]), "no array of real numbers"),
            ("depth", np.zeros((3, 0, 4)), "no array of real numbers"),
            ("depth", np.full((3, 4, 4), 1e300), "holds NaN or infinity"),
        ],
    )
    def test_what_is_no_map_is_refused(self, tmp_path, name, array, message) -> None:
        np.save(tmp_path / "map.npy", array)
        with pytest.raises(BadRequest, match=message):
            read_map(name, str(tmp_path / "map.npy"), 3)


# --------------------------------------------------------------------------------------------- maps made from a video


CIRCLE = str(located("pkg://vidgen_moving_shapes/clips/red_circle_moves_right.mp4"))


def made(
    name: str, frames: int, path: str = CIRCLE, estimator: str | None = None, network: str | None = None
) -> Tensor:
    return Extraction(estimator, network).maps(name, path, path, frames)


class TestExtraction:
    def test_edges_lie_around_the_object_and_the_first_frame_stays(self) -> None:
        edges = made("canny", 4)
        assert edges.shape == (1, 4, 64, 64) and 20 < edges[0, 0].sum() < 200
        columns = [float((frame.nonzero()[:, 1]).float().mean()) for frame in edges[0]]
        assert columns == sorted(columns)  # the circle moves right
        first = made("local_image", 4)
        assert torch.equal(first[:, 0], first[:, 3]) and first.shape == (3, 4, 64, 64) and first.max() <= 1

    def test_strokes_run_along_the_object_and_go_with_it(self) -> None:
        strokes, edges = made("sketch", 4)[0], made("canny", 4)[0]
        assert strokes.shape == (4, 64, 64) and strokes.min() >= 0 and 0.2 < strokes.max() <= 1
        near = torch.nn.functional.max_pool2d(edges[:, None], 5, 1, 2)[:, 0]
        assert (strokes * near).sum() > 0.9 * strokes.sum()  # nowhere else
        columns = [float((frame.sum(0) * torch.arange(64)).sum() / frame.sum()) for frame in strokes]
        assert columns == sorted(columns)
        assert torch.equal(made("single_sketch", 4)[0], strokes[:1].expand(4, -1, -1))

    def test_a_network_of_the_user_draws_instead(self, tmp_path) -> None:
        class Lines(torch.nn.Module):
            """Shows the brightness of red, as several maps of which the last counts."""

            def __init__(self, channels: int) -> None:
                super().__init__()
                self.channels = channels

            def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
                red = pictures[:, : self.channels] * 0.229 + 0.485
                return red * 0, red

        for channels in (1, 2):
            torch.jit.script(Lines(channels)).save(tmp_path / f"{channels}.pt")
        network = str(tmp_path / "1.pt")
        red = made("local_image", 1)[0]
        torch.testing.assert_close(made("sketch", 2, network=network)[0, 0], red[0])
        torch.testing.assert_close(made("single_sketch", 2, network=network)[0, 1], red[0])
        assert torch.equal(made("canny", 1, network=network), made("canny", 1))
        for file, message in ((tmp_path / "2.pt", "It must make"), (CIRCLE, "is no TorchScript file")):
            with pytest.raises(BadRequest, match=f"tf_t2v.sketch_network=.*{message}"):
                made("sketch", 1, network=str(file))

    def test_what_is_dark_all_over_has_no_strokes(self) -> None:
        assert not extract.sketch(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).any()

    def test_the_codec_moves_the_blocks_of_the_circle_to_the_right(self) -> None:
        moved = made("motion", 8)
        assert moved.shape == (2, 8, 64, 64) and not moved[:, 0].any()
        assert moved[0, 1:].mean() > 0 and moved[0].abs().sum() > moved[1].abs().sum()

    @pytest.mark.parametrize(("codec", "ending", "tells"), [("libx264", "mp4", True), ("libvpx-vp9", "webm", False)])
    def test_a_codec_that_tells_no_motion_is_refused_and_stillness_is_not(self, tmp_path, codec, ending, tells) -> None:
        file = tmp_path / f"still.{ending}"
        with av.open(str(file), "w") as container:
            stream = container.add_stream(codec, rate=8, width=64, height=48, pix_fmt="yuv420p")
            for _ in range(3):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))))
            container.mux(stream.encode(None))
        assert not made("motion", 1, str(file)).any()  # of one frame nothing could be told
        if tells:
            assert not made("motion", 3, str(file)).any()
        else:
            with pytest.raises(BadRequest, match="as vp9 this video does not tell by how much its blocks move"):
                made("motion", 3, str(file))

    def test_depth_is_the_estimators_on_the_released_scale(self, monkeypatch) -> None:
        seen = []

        def near(frames: Tensor, estimator: str, device: Any) -> Tensor:
            seen.append(estimator)
            return torch.full((len(frames), 8, 8), 40.0)

        monkeypatch.setattr(extract, "estimate", near)
        assert torch.equal(made("depth", 2), torch.full((1, 2, 8, 8), 2.0))
        assert torch.equal(made("depth", 2, estimator="mine"), torch.full((1, 2, 8, 8), 2.0))
        assert seen == ["Intel/dpt-large", "mine"]

    def test_a_picture_serves_all_frames(self, picture) -> None:
        edges = made("canny", 3, picture)
        assert edges.shape == (1, 3, 48, 64) and torch.equal(edges[:, 0], edges[:, 2])

    def test_a_clip_that_is_too_short_is_refused(self) -> None:
        for name in ("canny", "motion"):
            with pytest.raises(BadRequest, match=r"frames for 90. Ask for as many"):
                made(name, 90)


# ------------------------------------------------------------------------------------------- what was asked for


class TestConditions:
    def test_made_maps_change_a_video_as_given_ones_do(self, tmp_path, backbone) -> None:
        np.save(tmp_path / "canny.npy", made("canny", 4)[0].numpy())
        auto, given, none = (
            video(wanted, {"tf_t2v": TFT2V(**options)}, SETTINGS, backbone)
            for wanted, options in (
                (request(video=CIRCLE), {"conditions": {"canny": "auto"}}),
                (request(), {"conditions": {"canny": str(tmp_path / "canny.npy")}}),
                (request(), {}),
            )
        )
        assert torch.equal(auto, given) and not torch.equal(auto, none)

    def test_auto_looks_at_the_clip_of_motion_then_at_video_then_at_the_image(self, picture) -> None:
        both = {"sketch": "auto", "motion": CIRCLE}
        for conditions, wanted, seen in (
            (both, request(video="other.mp4"), CIRCLE),
            ({"sketch": "auto", "motion": "moved.npy"}, request(video=CIRCLE), CIRCLE),
            ({"sketch": "auto", "motion": "auto"}, request(video=CIRCLE, image=picture), CIRCLE),
            ({"sketch": "auto"}, request(image=picture), picture),
        ):
            found = footage(conditions, wanted)
            assert found is not None and found[1] == seen
        read = read_conditions(both, request(), Extraction())
        assert torch.equal(read["sketch"], made("sketch", 4)) and torch.equal(read["motion"], made("motion", 4))

    def test_a_video_that_says_where_things_are_says_not_what_they_look_like(self, picture) -> None:
        wanted = request(video=CIRCLE, image=picture)
        TFT2V(conditions={"canny": "auto"}).prepare_request(wanted)
        assert shown({"canny": "auto"}, wanted) == wanted.replace(video=None)
        assert shown({"canny": "auto", "motion": CIRCLE}, request(video=CIRCLE)) == request(video=CIRCLE)
        assert shown({"depth": "depth.npy"}, request(video=CIRCLE)) == request(video=CIRCLE)

    def test_they_are_written_as_one_mapping(self, tmp_path) -> None:
        np.save(tmp_path / "depth.npy", np.zeros((4, 32, 32), np.float32))
        mapping = f"{{depth: {tmp_path / 'depth.npy'}, sketch: auto, motion: {CIRCLE}}}"
        asked = ["method=tf_t2v", *TINY, "prompt=a", f"tf_t2v.conditions={mapping}", f"output.dir={tmp_path / 'out'}"]
        assert main(asked) == 0
        recorded = read_provenance(tmp_path / "out/run.yaml")["config"]["methods"]["tf_t2v"]["conditions"]
        assert recorded == {"depth": str(tmp_path / "depth.npy"), "sketch": "auto", "motion": CIRCLE}

    @pytest.mark.parametrize(
        ("conditions", "wanted", "message"),
        [
            ({"dept": "a.npy"}, {}, "tf_t2v.conditions.dept: there is no such condition. Did you mean 'depth'"),
            ({"depth": "a.npy"}, {}, "tf_t2v.conditions.depth=a.npy: there is no such file"),
            ({"depth": 3}, {}, "tf_t2v.conditions.depth=3: give a file of its maps, or auto"),
            ({"depth": None}, {}, "tf_t2v.conditions.depth=None: give a file"),
            ({"masked": "auto"}, {"video": CIRCLE}, "masked=auto: these can be made from a video: canny, sketch"),
            ({"sketch": "auto"}, {}, "tf_t2v.conditions.sketch=auto has nothing to be made from. Give video="),
            ({"motion": "auto"}, {"image": "a.png"}, "motion=auto needs a video, but image=a.png is a picture"),
        ],
    )
    def test_what_cannot_be_is_refused(self, conditions: dict[str, Any], wanted: Any, message: str) -> None:
        with pytest.raises(BadRequest, match=message):
            TFT2V(conditions=conditions).prepare_request(request(**wanted))

    def test_a_file_of_the_wrong_kind_is_refused_by_its_key(self, picture, tmp_path) -> None:
        (tmp_path / "text.mp4").write_text("no video")
        write_sound(tmp_path / "sound.mp4")
        for conditions, message in (
            ({"motion": str(tmp_path / "sound.mp4")}, "tf_t2v.conditions.motion=.*sound.mp4 holds no video"),
            ({"motion": picture}, "tf_t2v.conditions.motion=.*: maps of 2 channels are no pictures"),
            ({"masked": CIRCLE}, "tf_t2v.conditions.masked=.*: maps of 4 channels are no pictures"),
            ({"depth": str(tmp_path / "text.mp4")}, "text.mp4' cannot be read as video"),
        ):
            with pytest.raises(BadRequest, match=message):
                read_conditions(conditions, request(), Extraction())

    def test_a_training_takes_its_maps_from_its_data(self, tmp_path, capsys) -> None:
        data = ["data=folder", f"data.path={Path(CIRCLE).parent}", "data.caption=a", "data.frames=2", "data.size=32"]
        asked = ["method=tf_t2v", "model=tiny", *data, "trainer.max_steps=1", f"output.dir={tmp_path / 'out'}"]
        assert main(["train", *asked, f"tf_t2v.conditions={{local_image: {CIRCLE}}}"]) == 2
        assert "tf_t2v.trained_conditions=[...] says what is learnt" in " ".join(capsys.readouterr().err.split())
