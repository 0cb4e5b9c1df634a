"""One clip, the same in every sample: which frames, which pixels, and what is said of a clip that does not serve."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
from golden_cases import DEFAULT, ROOT
from little_data import batch_draw, shown, write_image, write_video

from vidgen_core.data.loading import read_ahead
from vidgen_core.data.one_clip import OneClip
from vidgen_core.data.pixels import to_model_range
from vidgen_core.errors import BadRequest
from vidgen_core.image_files import Gif
from vidgen_core.video import VideoReader

SHARED = DEFAULT.parent
CASES = sorted(folder.parent for folder in ROOT.glob("tune_a_video/dataset*/case.json"))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """12 frames of 32 x 48 pixels, each told by its grey."""
    return write_video(tmp_path / "clip.mp4")


def clip(path: Path | str, captions: Any = ("a grey wall",), num_frames: int = 4, **options: Any) -> OneClip:
    return OneClip(path, captions, num_frames, **{"size": (32, 48), **options})


# ------------------------------------------------------------------------------------------------ which frames


def test_frames_are_taken_in_strides_from_the_start(video: Path) -> None:
    assert shown(clip(video).frames()) == [0, 1, 2, 3]
    assert shown(clip(video, start=2, stride=3).frames()) == [2, 5, 8, 11]
    assert shown(clip(video, num_frames=12).frames()) == list(range(12))


@pytest.mark.parametrize(
    ("frames", "start", "indices"),
    [
        (1, 0, [0]),
        (2, 0, [0, 11]),
        (3, 0, [0, 6, 11]),
        (4, 0, [0, 4, 7, 11]),
        (12, 0, [*range(12)]),
        (3, 5, [5, 8, 11]),
    ],
)
def test_frames_are_spread_to_the_end(video: Path, frames: int, start: int, indices: list[int]) -> None:
    assert shown(clip(video, num_frames=frames, start=start, spread="even").frames()) == indices


def test_a_folder_of_images_is_taken_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 2, 1):
        write_image(tmp_path / f"frame{number}.png", number)
    (tmp_path / "frame0.txt").touch()
    assert shown(clip(tmp_path).frames()) == [1, 2, 9, 10]


def test_a_gif_is_a_video(tmp_path: Path) -> None:
    gif = Gif(tmp_path / "clip.gif", 8)
    gif.write(np.full((6, 32, 48, 3), 8, np.uint8) * np.arange(6, dtype=np.uint8)[:, None, None, None])
    gif.close()
    assert shown(clip(tmp_path / "clip.gif", stride=1, start=2).frames()) == [2, 3, 4, 5]


def test_a_clip_may_lie_in_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "some_package_of_clips" / "clips" / "clip.mp4")
    (tmp_path / "some_package_of_clips" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert shown(clip("pkg://some_package_of_clips/clips/clip.mp4").frames()) == [0, 1, 2, 3]
    with pytest.raises(BadRequest, match="There is no clip 'pkg://some_package_of_clips/other.mp4'"):
        clip("pkg://some_package_of_clips/other.mp4").check()


# ------------------------------------------------------------------------------------------------ which pixels


@pytest.mark.parametrize("fit", ["stretch", "resize_center"])
@pytest.mark.parametrize("size", [(32, 48), (16, 24), (24, 16), (64, 64), (17, 33)])
def test_frames_have_the_size_that_is_asked_for(video: Path, tmp_path: Path, size: tuple[int, int], fit: str) -> None:
    write_image(tmp_path / "images" / "1.png", 0, 40, 24)
    write_image(tmp_path / "images" / "2.png", 1, 9, 100)
    for path in (video, tmp_path / "images"):
        frames = clip(path, num_frames=2, size=size, fit=fit).frames()
        assert frames.shape == (2, 3, *size) and frames.dtype == torch.uint8
        assert shown(frames) == [0, 1]


def test_stretching_shows_all_and_cutting_keeps_the_aspect(tmp_path: Path) -> None:
    from PIL import Image

    bars = np.zeros((20, 80, 3), np.uint8)
    bars[:, 40:] = 200
    bars[:, 70:] = 90
    Image.fromarray(bars).save(tmp_path / "bars.png")
    stretched, cut = (
        clip(tmp_path, num_frames=1, size=(40, 40), fit=fit).frames() for fit in ("stretch", "resize_center")
    )
    assert stretched[0, 0, 20, [5, 25, 38]].tolist() == [0, 200, 90]
    assert cut[0, 0, 20, [5, 25, 38]].tolist() == [0, 200, 200]


@pytest.mark.skipif(not CASES, reason=f"no golden cases under {ROOT}")
@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
def test_pixels_are_those_of_the_published_reader(folder: Path) -> None:
    from safetensors.torch import load_file

    case, expected = json.loads((folder / "case.json").read_text()), load_file(folder / "expected.safetensors")
    s = case["scalars"]
    taken = OneClip(
        SHARED / s["video"],
        ["what it shows"],
        s["n_sample_frames"],
        (s["height"], s["width"]),
        s["sample_start_idx"],
        s["sample_frame_rate"],
        parity=True,
    )
    error = (to_model_range(taken.frames()) - expected["pixel_values"]).abs().max()
    assert error <= case["tolerance"] * expected["pixel_values"].abs().max()


@pytest.mark.skipif(not (SHARED / "data" / "tune_a_video").is_dir(), reason="the example clips are not here")
@pytest.mark.parametrize("name", ["car-turn", "man-skiing", "man-surfing", "rabbit-watermelon"])
def test_real_clips_are_stretched_as_decord_stretches_them(name: str) -> None:
    decord = pytest.importorskip("decord")
    path = SHARED / "data" / "tune_a_video" / f"{name}.mp4"
    taken = clip(path, num_frames=3, size=(96, 64), start=1, stride=2)
    published = decord.VideoReader(str(path), height=96, width=64).get_batch([1, 3, 5]).asnumpy()
    assert np.abs(taken.frames().permute(0, 2, 3, 1).numpy().astype(int) - published).max() <= 2


# ------------------------------------------------------------------------------------------------ as a source


def test_every_sample_is_the_clip_with_a_number_of_its_own(video: Path) -> None:
    source = clip(video)
    batch = source.draw(batch_draw(6, 3))
    assert (len(source), source.held_out()) == (1, None)
    assert [sample.number for sample in batch.samples] == [6, 7, 8]
    assert all(sample.captions == ("a grey wall",) and sample.scene_frames == (4,) for sample in batch.samples)
    assert all(torch.equal(sample.frames, source.frames()) for sample in batch.samples)
    assert batch.num_frames == 4


def test_captions_share_the_frames_out_evenly(video: Path) -> None:
    assert clip(video, ["a", "b", "c"], 8).draw(batch_draw()).samples[0].scene_frames == (2, 3, 3)
    assert clip(video, "one text", 8).captions == ("one text",)
    with pytest.raises(BadRequest, match="5 captions for 4 frames"):
        clip(video, ["a", "b", "c", "d", "e"]).check()
    with pytest.raises(BadRequest, match="no caption"):
        clip(video, [])


def test_the_clip_is_decoded_once(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, read = [], VideoReader.frames
    monkeypatch.setattr(VideoReader, "frames", lambda *arguments: reads.append(1) or read(*arguments))
    source = clip(video)
    for number in range(3):
        source.draw(batch_draw(number))
    assert len(reads) == 1


def test_workers_read_what_one_process_reads(video: Path) -> None:
    source, draws = clip(video), [batch_draw(2 * step, 2, step=step) for step in range(4)]
    before = len(pickle.dumps(source))
    alone, ahead = list(read_ahead(source, draws, 0)), list(read_ahead(source, draws, 2))
    for one, two in zip(alone, ahead, strict=True):
        assert one.draw == two.draw
        assert all(torch.equal(a.frames, b.frames) for a, b in zip(one.samples, two.samples, strict=True))
    assert len(pickle.dumps(source)) < before + 500


class Kept:
    """A cache that holds moments for some keys."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys

    def moments(self, keys: tuple[str, ...], frames: tuple[int, ...]) -> torch.Tensor | None:
        return torch.zeros(sum(frames), 8, 4, 6) if set(keys) <= set(self.keys) else None


def test_what_the_vae_made_of_all_scenes_is_not_decoded(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = clip(video, ["a", "b"]).draw(batch_draw()).samples[0].cache_keys
    assert len(set(keys)) == 2
    source = clip(video, ["a", "b"])
    source.cache = Kept(keys[0])
    assert source.draw(batch_draw()).samples[0].frames is not None
    source = clip(video, ["c", "d"])
    source.cache = Kept(*keys)
    monkeypatch.setattr(VideoReader, "frames", lambda *_: pytest.fail("decoded"))
    sample = source.draw(batch_draw()).samples[0]
    assert sample.frames is None and sample.moments.shape == (4, 8, 4, 6)


def test_content_tells_pixels_and_not_places(video: Path, tmp_path: Path) -> None:
    content, keys = clip(video).content, clip(video).cache_keys
    elsewhere = Path(shutil.copy(video, tmp_path / "other name.mp4"))
    assert (clip(elsewhere, ["other words"]).content, clip(elsewhere).cache_keys) == (content, keys)
    others = [clip(video, **other) for other in ({"size": (48, 32)}, {"start": 1}, {"stride": 2}, {"spread": "even"})]
    others += [clip(video, fit="resize_center"), clip(write_video(tmp_path / "longer.mp4", 13))]
    assert len({content, *(other.content for other in others)}) == 7
    assert len({keys, *(other.cache_keys for other in others)}) == 7


def test_content_of_a_folder_is_that_of_the_images_taken(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        write_image(tmp_path / f"{number}.png", number)
    content = clip(tmp_path, num_frames=2).content
    write_image(tmp_path / "3.png", 9)
    assert clip(tmp_path, num_frames=2).content == content
    write_image(tmp_path / "2.png", 9)
    assert clip(tmp_path, num_frames=2).content != content


# ------------------------------------------------------------------------------------------ what does not serve


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_frames": 13}, "12 frames; 13 frames from start=0 need 13. Ask for num_frames=12 or fewer.$"),
        (
            {"stride": 4},
            "12 frames; 4 frames from start=0 with stride=4 need 13. .* num_frames=3 or fewer, or stride=3.$",
        ),
        (
            {"start": 10},
            "12 frames; 4 frames from start=10 need 14. Ask for num_frames=2 or fewer, or start=8 or less.$",
        ),
        (
            {"start": 5, "spread": "even", "num_frames": 8},
            "12 frames; 8 frames from start=5 need 13. Ask for num_frames=7 or fewer, or start=4 or less.$",
        ),
        (
            {"start": 10, "stride": 2, "keys": "depth."},
            "12 frames; 4 frames from depth.start=10 with depth.stride=2 need 17. Ask for num_frames=1 or fewer, or "
            "depth.start=5 or less.$",
        ),
        ({"start": 12}, "12 frames: 0..11; start=12 is none of them"),
    ],
)
def test_a_clip_that_is_too_short_is_named_with_the_mend_before_it_is_decoded(
    video: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(VideoReader, "frames", lambda *_: pytest.fail("decoded"))
    clip(video).check()
    with pytest.raises(BadRequest, match=f"{video.name}' has {message}"):
        clip(video, **options).check()


def test_as_published_a_clip_that_ends_early_has_fewer_frames(video: Path) -> None:
    taken = clip(video, num_frames=8, start=3, stride=3, parity=True)
    assert shown(taken.frames()) == [3, 6, 9]
    assert taken.draw(batch_draw()).num_frames == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_frames": 0}, "num_frames=0 is too small. Give 1 or more"),
        ({"stride": 0}, "stride=0 is too small"),
        ({"start": -1}, "start=-1 is too small. Give 0 or more"),
        ({"spread": "evenly"}, "spread=evenly is none of stride, even. Did you mean 'even'?"),
        ({"fit": "crop"}, "fit=crop is none of stretch, resize_center"),
        ({"spread": "even", "stride": 2}, "stride=2 has no meaning"),
    ],
)
def test_a_value_that_is_none_is_named(video: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest) as refused:
        clip(video, **options)
    assert message in str(refused.value)


def test_what_is_missing_empty_or_no_video_is_named(video: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video")
    for name, message in (
        ("absent.mp4", "There is no clip '.*absent.mp4'. Give a video file or a folder of images."),
        ("empty", "The folder '.*empty' holds no images"),
        ("nothing.mp4", "nothing.mp4' cannot be read as video"),
        ("text.mp4", "text.mp4' cannot be read as video"),
    ):
        with pytest.raises(BadRequest, match=message):
            clip(tmp_path / name).check()


def test_a_video_without_frames_is_named(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "none.mp4"), "w", options={"movflags": "empty_moov"}) as container:
        stream = container.add_stream("libx264", rate=8)
        stream.height, stream.width = 32, 48
        container.start_encoding()
    with pytest.raises(BadRequest, match="none.mp4' has no frames. Is it a damaged file?"):
        clip(tmp_path / "none.mp4").check()


def test_damage_inside_a_file_is_named(video: Path, tmp_path: Path) -> None:
    data = bytearray(video.read_bytes())
    data[len(data) // 3 :] = bytes(len(data) - len(data) // 3)
    video.write_bytes(data)
    with pytest.raises(BadRequest, match=r"clip.mp4' (cannot be read|has .* frames?; 12 frames)"):
        clip(video, num_frames=12).frames()
    write_image(tmp_path / "images" / "1.png").write_bytes(b"this is no image")
    clip(tmp_path / "images", num_frames=1).check()
    with pytest.raises(BadRequest, match="1.png' is not to be used: it cannot be read as an image"):
        clip(tmp_path / "images", num_frames=1).frames()
