"""Whatever ends a run, what it made can be played and gone on with; a second run takes nothing but its own."""

from __future__ import annotations

import dataclasses
import errno
import json
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

from vidgen_core import journal, provenance
from vidgen_core.config import compose
from vidgen_core.errors import BadRequest, VidgenError
from vidgen_core.image_files import Gif
from vidgen_core.output import Output
from vidgen_core.request import single_scene
from vidgen_core.run import FrameBlock, Window
from vidgen_core.video import VideoReader, read_video
from vidgen_core.video_writer import VideoWriter, make_plain, whole_frames

FRAMES = 6


def composed(folder, *arguments: str, names: tuple[str, ...] = ("",)):
    made = compose(["model=tiny", "prompt=a dog", f"num_frames={FRAMES}", f"output.dir={folder}", *arguments])
    videos = tuple(dataclasses.replace(made.request.videos[0], index=i, name=name) for i, name in enumerate(names))
    made.config["videos"] = [{"name": name, "index": i} for i, name in enumerate(names)]
    return made, made.request.replace(videos=videos)


def write(folder, *arguments: str, names=("",), fail_at: int | None = None, load=lambda: None) -> Output:
    """What the loop does with an Output, two frames to a window, without a model; ``fail_at`` counts all frames."""
    made, request = composed(folder, *arguments, names=names)
    output = Output(made.config)
    passed = 0
    for video in request.videos:
        part = single_scene(request.replace(videos=(video,)))
        run = SimpleNamespace(request=part, config=made.config, provenance={}, notes=[], groups=[])
        run.latents_of = lambda window: window.latents
        if not output.open(run):
            continue
        try:
            load()
            output.begin(run)
            finished = output.finished()
            for i in range(FRAMES // 2):
                window = Window(range(2 * i, 2 * i + 2), range(2 * i, 2 * i + 2), index=i)
                window.latents = torch.zeros(1, 4, 2, 4, 4)
                for frame in window.keep:
                    if passed == fail_at:
                        raise KeyboardInterrupt
                    pixels = torch.full((1, 1, 3, 32, 32), frame / FRAMES)
                    output.deliver(FrameBlock(range(frame, frame + 1), pixels))
                    passed += 1
                output.window_done(window, i in finished)
        except BaseException as error:
            output.on_failure(error)
            raise
        finally:
            output.close(run)
    return output


def names_in(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("fail_at", [1, 2, 3, 5])
def test_a_run_stopped_anywhere_is_whole_after_a_resume(tmp_path, fail_at, capsys) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a", fail_at=fail_at)
    assert len(read_video(tmp_path / "a/video.mp4")) == fail_at
    assert f"output.dir={tmp_path / 'a'} resume=true" in capsys.readouterr().err
    write(tmp_path / "a", "resume=true")
    write(tmp_path / "b")
    assert np.abs(read_video(tmp_path / "a/video.mp4").astype(int) - read_video(tmp_path / "b/video.mp4")).max() <= 2
    assert names_in(tmp_path / "a") == {"video.mp4", "contact_sheet.png", "run.yaml"}


def test_a_run_stopped_before_its_second_video_keeps_the_first(tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, names=("one", "two"), fail_at=FRAMES)
    before = (tmp_path / "one/video.mp4").read_bytes()
    write(tmp_path, "resume=true", names=("one", "two"))
    assert (tmp_path / "one/video.mp4").read_bytes() == before
    assert len(read_video(tmp_path / "two/video.mp4")) == FRAMES


def test_a_resume_of_a_finished_run_names_its_files_and_makes_nothing(tmp_path) -> None:
    write(tmp_path)
    before = (tmp_path / "video.mp4").stat().st_mtime_ns
    assert [file.name for file in write(tmp_path, "resume=true").files] == ["video.mp4", "contact_sheet.png"]
    assert (tmp_path / "video.mp4").stat().st_mtime_ns == before


def test_a_run_that_was_out_of_memory_goes_on_with_another_placement_but_not_another_quality(tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, fail_at=2)
    with pytest.raises(BadRequest, match=r"another output\.crf"):
        write(tmp_path, "resume=true", "output.crf=30")
    with pytest.raises(BadRequest, match=r"another placement\.dtype"):
        write(tmp_path, "resume=true", "placement.dtype=bf16")
    write(tmp_path, "resume=true", "placement.vae_slice=1")
    assert len(read_video(tmp_path / "video.mp4")) == FRAMES


def test_overwriting_leaves_no_frame_of_the_older_run_and_touches_nothing_else(tmp_path) -> None:
    write(tmp_path, "output.frames=true", "output.gif=true", names=("one", "two"))
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames/2026 notes.png").touch()
    (tmp_path / "neighbour").mkdir()
    (tmp_path / "neighbour/video.mp4").touch()
    write(tmp_path, "output.overwrite=true")
    assert names_in(tmp_path) == {
        "video.mp4", "contact_sheet.png", "run.yaml", "frames/2026 notes.png", "neighbour/video.mp4",
    }  # fmt: skip


def test_a_run_whose_weights_do_not_load_takes_nothing_away(tmp_path) -> None:
    def missing():
        raise BadRequest("no such model")

    write(tmp_path)
    before = names_in(tmp_path)
    with pytest.raises(BadRequest, match="no such model"):
        write(tmp_path, "output.overwrite=true", load=missing)
    assert names_in(tmp_path) == before
    (tmp_path / "empty").mkdir()
    for folder in ("new", "empty"):
        with pytest.raises(BadRequest, match="no such model"):
            write(tmp_path / folder, load=missing)
    assert not (tmp_path / "new").exists() and not any((tmp_path / "empty").iterdir())


def test_a_full_disk_closes_every_file_and_is_told_once(tmp_path, monkeypatch) -> None:
    def full(self, frames):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("vidgen_core.contact_sheet.ContactSheet.write", full)
    with pytest.raises(VidgenError, match="The disk is full"):
        write(tmp_path)
    assert len(read_video(tmp_path / "video.mp4")) == 1


class Killed(BaseException):
    """What ends a process in these tests; nothing that would tidy up afterwards is let run."""


@pytest.mark.parametrize("gone", ["windows.jsonl", "window_00000.safetensors", "window_00002.safetensors"])
def test_a_run_killed_while_its_journal_is_deleted_is_a_finished_one(tmp_path, monkeypatch, gone) -> None:
    def half_way(folder, ignore_errors=False):
        for file in folder.rglob(gone):
            file.unlink()
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("shutil.rmtree", half_way)
        write(tmp_path)
    before = (tmp_path / "video.mp4").read_bytes()
    assert [file.name for file in write(tmp_path, "resume=true").files] == ["video.mp4", "contact_sheet.png"]
    assert (tmp_path / "video.mp4").read_bytes() == before
    assert names_in(tmp_path) == {"video.mp4", "contact_sheet.png", "run.yaml"}


def test_a_batch_killed_while_its_journal_is_deleted_is_a_finished_one(tmp_path, monkeypatch) -> None:
    unlink = Path.unlink

    def half_way(file, missing_ok=False):
        unlink(file, missing_ok)
        if file.suffix == ".safetensors":
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "unlink", half_way)
        write(tmp_path, names=("one", "two"))
    before = (tmp_path / "one/video.mp4").read_bytes()
    write(tmp_path, "resume=true", names=("one", "two"))
    assert (tmp_path / "one/video.mp4").read_bytes() == before
    assert len(read_video(tmp_path / "two/video.mp4")) == FRAMES


def test_a_fragment_that_is_not_whole_is_no_frame_to_keep(tmp_path) -> None:
    path = tmp_path / "video.mp4"
    writer = VideoWriter(path, 8)
    writer.write(moving(5))
    data = path.read_bytes()  # four frames and, in the muxer, a fifth
    writer.close()
    last = data.rindex(b"moof") - 4
    for size in (
        len(data),
        len(data) - 1,
        data.rindex(b"mdat") + 4,
        data.rindex(b"mdat") + 40,
        last + 20,
        last,
        100,
        0,
    ):
        path.write_bytes(data[:size])
        assert whole_frames(path) == (4 if size == len(data) else 3 if size >= last else 0), size
    assert whole_frames(tmp_path / "no.mp4") == 0


@pytest.mark.parametrize("left", ['{"window": 1, "ke', '{"window": 1, "keep": [0, 2], "frames": 4}'])
def test_half_a_line_of_the_journal_hides_no_later_one(tmp_path, left) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, fail_at=3)
    lines = tmp_path / "journal/000/windows.jsonl"
    lines.write_text(lines.read_text() + left)  # without the end of the line
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, "resume=true", fail_at=5)
    assert [json.loads(line)["window"] for line in lines.read_text().splitlines()] == [0, 1]


@pytest.mark.parametrize("place", ["the tensors", "the list", "the record at the end"])
def test_a_disk_that_is_full_for_the_journal_or_the_record_loses_nothing(tmp_path, monkeypatch, place) -> None:
    whole_bytes, whole_line, whole_yaml = Path.write_bytes, journal._line, provenance.write_yaml
    written = 0

    def half(self, data):
        whole_bytes(self, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    def second(original, failed):
        def call(*arguments):
            nonlocal written
            written += 1
            return failed(*arguments) if written == 2 else original(*arguments)

        return call

    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(VidgenError, match=r"The disk is full: free some space.*resume"):
        if place == "the tensors":
            patch.setattr(Path, "write_bytes", second(whole_bytes, half))
        elif place == "the list":
            patch.setattr(journal, "_line", second(whole_line, no_space))
        else:
            patch.setattr(provenance, "write_yaml", second(whole_yaml, no_space))
        write(tmp_path / "a")
    assert len(read_video(tmp_path / "a/video.mp4")) == (FRAMES if place == "the record at the end" else 4)
    write(tmp_path / "a", "resume=true")
    write(tmp_path / "b")
    assert np.abs(read_video(tmp_path / "a/video.mp4").astype(int) - read_video(tmp_path / "b/video.mp4")).max() <= 2
    assert names_in(tmp_path / "a") == {"video.mp4", "contact_sheet.png", "run.yaml"}


def test_a_disk_that_is_full_for_the_first_record_leaves_the_folder_free(tmp_path, monkeypatch) -> None:
    def full(self, text, **_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(VidgenError, match="The disk is full"):
        patch.setattr(Path, "write_text", full)
        write(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_finished_video_has_one_index_at_its_front_and_its_record(tmp_path) -> None:
    write(tmp_path)
    data = (tmp_path / "video.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat") and b"moof" not in data
    with av.open(str(tmp_path / "video.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.frames, float(stream.duration * stream.time_base)) == (FRAMES, FRAMES / 8)
    assert provenance.read_provenance(tmp_path / "video.mp4")["config"]["prompt"] == "a dog"


def test_a_video_stays_as_it_grew_where_there_is_no_space_for_a_copy(tmp_path, monkeypatch) -> None:
    path = tmp_path / "video.mp4"
    writer = VideoWriter(path, 8)
    writer.write(np.zeros((4, 32, 32, 3), np.uint8))
    writer.close()
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        make_plain(path)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["video.mp4"]


def moving(frames: int = 30) -> np.ndarray:
    pixels = np.full((frames, 64, 64, 3), (40, 90, 200), np.uint8)
    for i in range(frames):
        pixels[i, 20:40, i : i + 20] = (215, 40, 40)
    return pixels


@pytest.mark.parametrize("name", ["b.mp4", "b.mkv", "b.avi", "b.ts"])
@pytest.mark.parametrize("backend", [None, "pyav"])
def test_frames_of_any_container_are_those_of_decoding_it_through(tmp_path, name, backend) -> None:
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)  # with frames out of order, as files of others have them
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for picture in moving():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        through = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    reader = VideoReader(path, backend)
    assert np.array_equal(reader.frames(range(30)), through)
    assert np.array_equal(reader.frames([20, 3, 20]), through[[20, 3, 20]])


def test_a_gif_keeps_flat_colours(tmp_path) -> None:
    from PIL import Image

    gif = Gif(tmp_path / "video.gif", 8)
    gif.write(moving(3))
    gif.close()
    assert np.array_equal(np.asarray(Image.open(tmp_path / "video.gif").convert("RGB")), moving(1)[0])
