"""Reading and writing video: identical frames, files that grow, and nothing lost when a process dies."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from odd_videos import BACKENDS, FRAGMENTED, OPEN_GOP, UNEVEN, encoded, remuxed, told, with_matrix

from vidgen_core.errors import BadRequest, VidgenError
from vidgen_core.image_files import FrameFolder, Gif
from vidgen_core.video import VideoReader, read_video
from vidgen_core.video_writer import VideoWriter


def clip(frames: int = 12, height: int = 64, width: int = 64) -> np.ndarray:
    """A red bar that grows over a white ground."""
    pixels = np.full((frames, height, width, 3), 240, np.uint8)
    for i in range(frames):
        pixels[i, height // 4 : height // 2, : 4 + 3 * i] = (215, 40, 40)
    return pixels


@pytest.fixture
def file(tmp_path):
    writer = VideoWriter(tmp_path / "video.mp4", 8)
    writer.write(clip())
    assert writer.close() == [tmp_path / "video.mp4"]
    return tmp_path / "video.mp4"


def test_what_is_written_is_read_with_flat_colours_kept(file) -> None:
    frames = read_video(file)
    assert frames.shape == (12, 64, 64, 3)
    error = np.abs(frames.astype(int) - clip())
    assert error.mean() < 3
    # inside the bar and on the ground, away from the edges that chroma subsampling softens
    assert error[11, 20:28, 4:30].max() <= 8 and error[:, 40:].max() <= 4


@pytest.mark.parametrize("indices", [[0], [11], [3, 3, 7], [9, 2, 5], list(range(12))])
def test_decord_and_pyav_read_identical_frames(file, indices) -> None:
    pytest.importorskip("decord")
    assert np.array_equal(VideoReader(file, "decord").frames(indices), VideoReader(file, "pyav").frames(indices))


def test_frames_come_in_the_order_asked(file) -> None:
    whole = read_video(file)
    assert np.array_equal(VideoReader(file, "pyav").frames([5, 1, 5]), whole[[5, 1, 5]])


def test_the_reader_knows_length_and_rate(file) -> None:
    reader = VideoReader(file)
    assert (len(reader), reader.fps) == (12, 8.0)


def test_a_frame_outside_is_refused(file) -> None:
    with pytest.raises(BadRequest, match=r"frames 0..11; frame 12 was asked for"):
        VideoReader(file).frames([12])


@pytest.mark.parametrize("content", [None, b"", b"this is no video"])
def test_a_file_that_is_no_video_is_refused(tmp_path, content) -> None:
    path = tmp_path / "broken.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadRequest, match=r"broken.mp4"):
        read_video(path)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "make",
    [
        lambda folder: encoded(folder / "b.mp4", g="12", bf="3"),
        lambda folder: encoded(folder / "b.webm", "libvpx-vp9", g="12"),
        lambda folder: encoded(folder / "any.avi", "mpeg4", g="12", b="1M"),
        lambda folder: encoded(folder / "open.mp4", **{"x264-params": OPEN_GOP}),
        lambda folder: encoded(folder / "times.mp4", bf="3", times=UNEVEN),
        lambda folder: encoded(folder / "times.mkv", bf="3", times=UNEVEN),
        lambda folder: remuxed(encoded(folder / "b.mp4", g="12", bf="3"), "late.mp4", later=7),
        lambda folder: remuxed(encoded(folder / "b.mp4", g="12", bf="3"), "parts.mp4", movflags=FRAGMENTED),
    ],
)
def test_a_frame_is_found_by_its_place_in_the_order_of_presentation(tmp_path, make, backend) -> None:
    reader = VideoReader(make(tmp_path), backend)
    assert [told(reader.frames([index])) for index in range(len(reader))] == [[index] for index in range(24)]
    assert told(reader.frames(range(24))) == list(range(24))


@pytest.mark.parametrize("backend", BACKENDS)
def test_frames_that_an_edit_list_hides_do_not_count(tmp_path, backend) -> None:
    cut = remuxed(encoded(tmp_path / "b.mp4", g="12", bf="3"), "cut.mp4", later=-5, avoid_negative_ts="disabled")
    reader = VideoReader(cut, backend)
    assert [told(reader.frames([index])) for index in range(len(reader))] == [[index] for index in range(5, 24)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_frames_cut_off_from_their_key_frame_do_not_count(tmp_path, backend) -> None:
    cut = remuxed(encoded(tmp_path / "b.mp4", g="12", bf="3"), "cut.mp4", skip=1)
    assert told(read_video(cut)) == list(range(12, 24))
    assert told(VideoReader(cut, backend).frames([3, 0])) == [15, 12]


def test_the_rate_is_that_of_the_frames_on_average(tmp_path) -> None:
    average = 23 * 600 / (UNEVEN[-1] - UNEVEN[0])
    for name in ("times.mp4", "times.mkv"):
        assert VideoReader(encoded(tmp_path / name, times=UNEVEN)).fps == pytest.approx(average, rel=0.05)
    assert VideoReader(encoded(tmp_path / "even.mkv")).fps == 24


TURNS = {
    "not": ((1, 0, 0, 1), lambda frames: frames),
    "clockwise": ((0, 1, -1, 0), lambda frames: np.rot90(frames, -1, (1, 2))),
    "half": ((-1, 0, 0, -1), lambda frames: np.rot90(frames, 2, (1, 2))),
    "counter-clockwise": ((0, -1, 1, 0), lambda frames: np.rot90(frames, 1, (1, 2))),
    "mirrored": ((-1, 0, 0, 1), lambda frames: frames[:, :, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda frames: frames[:, ::-1]),
    "transposed": ((0, 1, 1, 0), lambda frames: frames.swapaxes(1, 2)),
    "transposed and turned": ((0, -1, -1, 0), lambda frames: frames.swapaxes(1, 2)[:, ::-1, ::-1]),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("matrix", "turn"), TURNS.values(), ids=TURNS)
def test_what_a_phone_wrote_comes_upright(tmp_path, matrix, turn, backend) -> None:
    lying = encoded(tmp_path / "lying.mp4", pictures=clip(3, 48, 96))
    frames = VideoReader(with_matrix(lying, matrix), backend).frames([2, 0])
    assert np.array_equal(frames, turn(VideoReader(lying).frames([2, 0])))


def test_a_turned_frame_is_scaled_upright(tmp_path) -> None:
    lying = encoded(tmp_path / "lying.mp4", pictures=clip(1, 48, 96))
    upright = VideoReader(with_matrix(lying, TURNS["clockwise"][0]))
    assert upright.frames([0]).shape == (1, 96, 48, 3)
    assert np.array_equal(upright.frames([0], (64, 40)), np.rot90(VideoReader(lying).frames([0], (40, 64)), -1, (1, 2)))


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), [
    ("odd.mp4", "mpeg4", "yuv420p"), ("odd.webm", "libvpx-vp9", "yuv420p"), ("odd.mkv", "libx264", "yuv444p"),
])  # fmt: skip
def test_odd_sides_are_kept(tmp_path, name, codec, pix_fmt) -> None:
    odd = encoded(tmp_path / name, codec, pix_fmt, pictures=clip(3, 145, 175), b="1M")
    frames = VideoReader(odd, "pyav").frames([0, 2])
    assert np.array_equal(VideoReader(odd, "decord").frames([0, 2]), frames)
    assert np.abs(frames.astype(int) - clip(3, 145, 175)[[0, 2]]).mean() < 3


def test_more_than_eight_bits_are_read_alike(tmp_path) -> None:
    deep = encoded(tmp_path / "deep.mp4", pix_fmt="yuv420p10le", pictures=clip(3))
    frames = VideoReader(deep, "pyav").frames([0, 2])
    assert np.array_equal(VideoReader(deep, "decord").frames([0, 2]), frames)
    assert np.abs(frames.astype(int) - clip(3)[[0, 2]]).mean() < 3


@pytest.mark.parametrize("size", [(64, 64), (145, 175), (40, 100), (34, 50), (33, 47), (200, 300)])
def test_frames_are_scaled_as_decord_scales_them(tmp_path, size) -> None:
    decord = pytest.importorskip("decord")
    file = encoded(tmp_path / "any.mp4", pictures=clip(3, 66, 98))
    published = decord.VideoReader(str(file), width=size[1], height=size[0]).get_batch([2, 0]).asnumpy()
    for backend in BACKENDS:
        frames = VideoReader(file, backend).frames([2, 0], size)
        assert frames.shape == (2, *size, 3)
        assert np.abs(frames.astype(int) - published).max() <= 2


@pytest.mark.parametrize("size", [(16, 16), (24, 24), (16, 48), (1, 1), (8, 640)])
def test_any_size_can_be_asked_for(tmp_path, size) -> None:
    frames = VideoReader(encoded(tmp_path / "any.mp4", pictures=clip(3, 66, 98))).frames([2, 0], size)
    assert frames.shape == (2, *size, 3)


def test_sound_alone_is_no_video(tmp_path) -> None:
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    with pytest.raises(BadRequest, match=r"sound.wav' cannot be read as video \(it holds no video"):
        read_video(tmp_path / "sound.wav")


@pytest.mark.parametrize(("height", "width"), [(33, 47), (32, 31), (1, 1), (64, 128)])
def test_any_size_is_written_odd_sides_padded_to_even(tmp_path, height, width) -> None:
    writer = VideoWriter(tmp_path / "odd.mp4", 8)
    writer.write(clip(3, height, width))
    writer.close()
    assert read_video(tmp_path / "odd.mp4").shape == (3, height + height % 2, width + width % 2, 3)


def test_the_file_grows_with_every_frame(tmp_path) -> None:
    writer = VideoWriter(tmp_path / "video.mp4", 8)
    readable = []
    for frame in clip():
        writer.write(frame[None])
        readable.append((tmp_path / "video.mp4").stat().st_size)
    assert readable == sorted(readable) and readable[-1] > readable[2] > 0
    assert len(VideoReader(tmp_path / "video.mp4")) == 11  # the last waits for the next
    writer.close()


def test_a_killed_process_leaves_a_playable_file_of_all_frames_but_the_last(tmp_path) -> None:
    path = tmp_path / "video.mp4"
    code = f"""
import os, signal, numpy as np
from pathlib import Path
from vidgen_core.video_writer import VideoWriter
writer = VideoWriter(Path({str(path)!r}), 8)
writer.write(np.zeros((20, 32, 32, 3), np.uint8))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert len(read_video(path)) == 19


def test_a_file_goes_on_after_kept_frames_without_encoding_them_again(file) -> None:
    before = read_video(file)
    writer = VideoWriter(file, 8, {"comment": "again"}, keep_frames=7)
    writer.write(clip()[7:])
    writer.close()
    after = read_video(file)
    assert len(after) == 12
    assert np.array_equal(after[:7], before[:7])
    assert np.abs(after[7:].astype(int) - clip()[7:]).mean() < 3
    with av.open(str(file)) as container:
        times = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
        assert np.unique(np.diff(times)).size == 1
        assert container.metadata["comment"] == "again"
    assert [entry.name for entry in file.parent.iterdir()] == ["video.mp4"]


def test_a_folder_that_cannot_be_written_is_named_with_the_mend(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(VidgenError, match=r"cannot be written.*output.dir"):
        VideoWriter(tmp_path / "file" / "video.mp4", 8).write(clip())


def test_a_full_disk_is_named_and_the_frames_before_it_stay(tmp_path, monkeypatch) -> None:
    writer = VideoWriter(tmp_path / "video.mp4", 8)
    writer.write(clip(6))
    container = writer._container

    class Full:
        def mux(self, packet):
            raise OSError(errno.ENOSPC, "No space left on device")

    writer._container = Full()
    with pytest.raises(VidgenError, match="The disk is full: free some space"):
        writer.write(clip(6))
    writer._container = container
    writer.close()
    assert len(read_video(tmp_path / "video.mp4")) == 6


def test_writing_to_a_full_device_is_one_paragraph() -> None:
    writer = VideoWriter(Path("/dev/full"), 8)
    with pytest.raises(VidgenError, match="cannot be written"):
        for _ in range(40):
            writer.write(clip())
        writer.close()


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path) -> None:
    import tracemalloc

    writer = VideoWriter(tmp_path / "long.mp4", 8)
    writer.write(clip(50))
    tracemalloc.start()
    for _ in range(6):
        writer.write(clip(50))
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    writer.close()
    assert grown < 200_000


def test_a_gif_and_a_folder_of_pictures_hold_every_frame(tmp_path) -> None:
    from PIL import Image

    for sink in (Gif(tmp_path / "video.gif", 8), FrameFolder(tmp_path / "frames")):
        sink.write(clip()[:5])
        sink.write(clip()[5:])
        sink.close()
    assert Image.open(tmp_path / "video.gif").n_frames == 12
    pictures = sorted((tmp_path / "frames").iterdir())
    assert [picture.name for picture in pictures] == [f"{i:05d}.png" for i in range(12)]
    assert np.array_equal(np.asarray(Image.open(pictures[9])), clip()[9])
