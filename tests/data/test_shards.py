"""WebDataset shards, written by the library itself and read at random."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
from little_data import batch_draw, shown, write_image, write_video
from trainings import curve, interrupt_after, last, same

from vidgen_core import train as loop
from vidgen_core.config import compose
from vidgen_core.data.joint import from_files
from vidgen_core.data.sample import draw_of
from vidgen_core.data.shards import Shards
from vidgen_core.errors import BadRequest, VidgenError

webdataset = pytest.importorskip("webdataset")


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards of three samples each: a video, an image, and a caption as text or as json."""
    folder = tmp_path / "shards"
    folder.mkdir()
    number = 0
    for shard in range(2):
        with webdataset.TarWriter(str(folder / f"world-{shard:02d}.tar")) as writer:
            for _ in range(3):
                clip = write_video(tmp_path / "clip.mp4", frames=6 + number)
                image = write_image(tmp_path / "image.png", grey=number)
                told = {"txt": f"clip {number}"} if number % 2 else {"json": {"caption": f"clip {number}", "width": 1}}
                writer.write(
                    {"__key__": f"part/{number}", "mp4": clip.read_bytes(), "thumb.png": image.read_bytes(), **told}
                )
                number += 1
    return folder


def source(path: Any, **keys: Any) -> Shards:
    return Shards(str(path), **{"frames": 4, "size": 16, "start": "first", **keys})


def test_samples_are_read_by_number_in_any_order(shards: Path) -> None:
    data = pickle.loads(pickle.dumps(source(shards, shuffle=False)))
    assert len(data) == 6
    for number in (5, 0, 3, 4, 1, 2):
        sample = data.draw(batch_draw(number)).samples[0]
        assert sample.captions == (f"clip {number}",)
        assert sample.name == f"world-0{number // 3}.tar/part/{number}"
        assert shown(sample.frames) == [0, 1, 2, 3]


def test_the_library_reads_the_same_samples(shards: Path) -> None:
    streamed = webdataset.WebDataset([str(file) for file in sorted(shards.iterdir())], shardshuffle=False)
    data = source(shards)
    assert [sample["__key__"] for sample in streamed] == [packed.key for packed in data.items]


def test_images_of_shards_are_samples_of_one_frame(shards: Path) -> None:
    batch = source(shards, kind="images", shuffle=False).draw(batch_draw(0, 6))
    assert [shown(sample.frames) for sample in batch.samples] == [[n] for n in range(6)]


def test_shards_are_named_by_braces(shards: Path) -> None:
    assert len(source(f"{shards}/world-{{00..01}}.tar")) == 6
    held_out = source(f"{shards}/world-00.tar", validation=f"{shards}/world-01.tar").held_out()
    assert held_out is not None
    assert held_out.draw(batch_draw(0, seed=9)).samples[0].captions == ("clip 3",)


def test_an_epoch_shows_every_sample_once(shards: Path) -> None:
    names = [source(shards).draw(batch_draw(n)).samples[0].name for n in range(6)]
    assert len(set(names)) == 6 and names != sorted(names)


def test_a_damaged_member_is_replaced_and_named_without_its_temporary_copy(shards: Path, tmp_path: Path) -> None:
    with webdataset.TarWriter(str(shards / "world-00.tar")) as writer:
        writer.write({"__key__": "bad", "mp4": b"no video", "txt": "bad"})
        writer.write({"__key__": "mute", "mp4": (tmp_path / "clip.mp4").read_bytes()})
    batch = source(shards, shuffle=False).draw(batch_draw())
    assert batch.samples[0].captions == ("clip 3",)
    assert [name for name, _ in batch.skipped] == ["world-00.tar/bad", "world-00.tar/mute"]
    assert batch.skipped[0][1].startswith("'bad.mp4' cannot be read as video")
    assert "it has no caption" in batch.skipped[1][1]
    assert source(shards, shuffle=False, caption="any").draw(batch_draw(1)).samples[0].captions == ("any",)


def test_samples_without_a_usable_member_are_left_out_and_named(shards: Path, capsys: pytest.CaptureFixture) -> None:
    with webdataset.TarWriter(str(shards / "world-00.tar")) as writer:
        writer.write({"__key__": "b", "txt": "only text"})
        writer.write({"__key__": "c", "avif": b"no kind that is read", "txt": "a picture"})
    assert len(source(shards)) == 3
    said = capsys.readouterr().err
    assert "'world-00.tar': 2 samples hold no videos (.mp4" in said and "left out: b, c" in said
    assert "world-01.tar" not in said


def test_a_shard_that_is_cut_gives_what_comes_before_the_cut(shards: Path, capsys: pytest.CaptureFixture) -> None:
    data = source(shards)
    file = shards / "world-01.tar"
    file.write_bytes(file.read_bytes()[: data.items[5].media.offset + 10])
    assert [packed.key for packed in source(shards).items] == [f"part/{number}" for number in range(5)]
    assert "'world-01.tar' is cut (unexpected end of data): its first 2 samples are used" in capsys.readouterr().err
    file.write_bytes(file.read_bytes()[:600])
    with pytest.raises(BadRequest, match=r"world-01.tar' cannot be read \("):
        source(shards)


def test_of_a_picture_and_its_depth_the_picture_is_the_sample(tmp_path: Path) -> None:
    depth, image = (write_image(tmp_path / f"{grey}.png", grey=grey).read_bytes() for grey in (3, 5))
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        writer.write({"__key__": "a", "depth.png": depth, "png": image, "txt": "a"})
    (sample,) = source(tmp_path / "a.tar", kind="images").draw(batch_draw()).samples
    assert shown(sample.frames) == [5]


def test_shards_without_any_caption_are_refused_before_one_is_read(tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "mute.tar")) as writer:
        for key in "ab":
            writer.write({"__key__": key, "mp4": write_video(tmp_path / "clip.mp4").read_bytes()})
    mute = str(tmp_path / "mute.tar")
    with pytest.raises(BadRequest, match=r"data.labelled_videos=.*mute.tar: none of the 2 samples .*'mute.tar/a'"):
        from_files(labelled_videos=mute)
    assert list(from_files(videos=mute).parts) == ["image_to_video"]  # whose captions nobody reads


def test_a_shard_cut_after_it_was_indexed_breaks_its_samples_only(shards: Path) -> None:
    data = source(shards, shuffle=False)
    (shards / "world-00.tar").write_bytes(b"")
    batch = data.draw(batch_draw())
    assert batch.samples[0].captions == ("clip 3",)
    assert {reason for _, reason in batch.skipped} == {"its shard ends before it does"}
    (shards / "world-01.tar").unlink()
    with pytest.raises(VidgenError, match="None of the 6 items"):
        data.draw(batch_draw())


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of a server of a folder's files on this machine, and what was asked of it."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()


def gigabytes(folder: Path, shards: float) -> float:
    """What so many of a folder's shards take."""
    return shards * max(file.stat().st_size for file in folder.glob("*.tar")) / 1e9


@pytest.mark.skipif(shutil.which("curl") is None, reason="webdataset fetches by curl")
class TestOnAServer:
    """Shards that a cache cannot hold all of."""

    @pytest.fixture(autouse=True)
    def no_proxy(self, monkeypatch) -> None:
        monkeypatch.setenv("no_proxy", "127.0.0.1")

    def test_they_hold_the_same_samples_and_no_more_are_kept_than_was_allowed(self, shards: Path, tmp_path) -> None:
        kept = {"shard_cache": str(tmp_path / "cache"), "shard_cache_gb": gigabytes(shards, 1.5)}
        with served(shards) as (address, asked):
            data = source(f"{address}/world-{{00..01}}.tar?token=secret", **kept)
            asked.clear()
            names = []
            for number in range(len(data)):
                sample = pickle.loads(pickle.dumps(data)).draw(batch_draw(number)).samples[0]
                names.append(sample.name)
                assert sample.captions == (f"clip {sample.name[-1]}",) and shown(sample.frames) == [0, 1, 2, 3]
                assert len(list((tmp_path / "cache/shards").iterdir())) == 1
        # An epoch takes one shard after the other, each once; the last of the index was there still.
        assert sorted(names) == sorted(source(shards).name(item) for item in range(6))
        assert len({name.partition("/")[0] for name in names[:3]}) == 1
        assert 1 <= len(asked) <= 2

    def test_their_index_is_made_once(self, shards: Path, tmp_path, capsys) -> None:
        kept = {"shard_cache": str(tmp_path / "cache"), "shard_cache_gb": gigabytes(shards, 1.2)}
        with served(shards) as (address, asked):
            first = source(f"{address}/world-{{00..01}}.tar", **kept)
            assert len(asked) == 2 and capsys.readouterr().err.count("to index it, once") == 2
            again = source(f"{address}/world-{{00..01}}.tar", **kept)
            assert len(asked) == 2
        assert list(first.items) == list(again.items)

    def test_the_index_of_local_ones_is_made_anew_where_they_changed(self, shards: Path, tmp_path) -> None:
        kept = {"shard_cache": str(tmp_path / "cache")}
        assert [list(source(shards, **kept).items) for _ in range(2)] == [list(source(shards).items)] * 2
        with webdataset.TarWriter(str(shards / "world-00.tar")) as writer:
            writer.write({"__key__": "new", "mp4": (tmp_path / "clip.mp4").read_bytes(), "txt": "new"})
        assert [packed.key for packed in source(shards, **kept).items][:2] == ["new", "part/3"]

    def test_one_that_cannot_be_fetched_is_named(self, shards: Path, tmp_path) -> None:
        kept = {"shard_cache": str(tmp_path / "cache"), "shuffle": False}
        with served(shards) as (address, _):
            with pytest.raises(BadRequest, match=r"/other.tar' cannot be read \(its shard cannot be fetched"):
                source(f"{address}/other.tar", **kept)
            with pytest.raises(BadRequest, match=r"GB, more than the copies of all may take, data.shard_cache_gb="):
                source(f"{address}/world-00.tar", **kept, shard_cache_gb=gigabytes(shards, 0.5))
            data = source(f"{address}/world-{{00..01}}.tar", **kept)
            (shards / "world-00.tar").unlink()
            next((tmp_path / "cache/shards").glob("*-world-00.tar")).unlink()
            batch = data.draw(batch_draw())
        assert batch.samples[0].captions == ("clip 3",)
        assert {reason.partition(" (")[0] for _, reason in batch.skipped} == {"its shard cannot be fetched"}


class TestThroughJointData:
    """Shards of two shapes, with a damaged sample in the middle of one, as ``data.videos``."""

    @pytest.fixture
    def mixed(self, tmp_path: Path) -> Path:
        folder = tmp_path / "mixed"
        folder.mkdir()
        for shard in range(2):
            with webdataset.TarWriter(str(folder / f"{shard}.tar")) as writer:
                for number in range(3):
                    size = (32, 50) if number else (50, 32)
                    content = write_video(tmp_path / "clip.mp4", 6 + number, *size).read_bytes()
                    damaged = (shard, number) == (0, 1)
                    writer.write({"__key__": f"{shard}{number}", "mp4": b"no video" if damaged else content})
        return folder

    def test_processes_share_an_epoch_without_showing_a_sample_twice(self, shards: Path) -> None:
        mixture = from_files(videos=f"{shards}/world-{{00..01}}.tar", frames=2, size=16)
        cut: dict[str, Any] = {"accumulation": 1, "processes": 3, "batch_size": 1, "steps": 9, "seed": 0}
        names = [mixture.draw(draw_of(s, 0, rank, **cut)).samples[0].name for s in range(2) for rank in range(3)]
        assert len(set(names)) == 6
        assert {name.partition("/")[0] for name in names} == {"world-00.tar", "world-01.tar"}

    @pytest.mark.parametrize("place", ["disk", "server"])
    def test_a_training_resumed_in_the_middle_of_a_shard_is_the_same_and_names_what_is_broken(
        self, mixed: Path, tmp_path: Path, place: str, monkeypatch
    ) -> None:
        if place == "disk":
            self.resumed(tmp_path, {"data.videos": mixed})
            return
        if shutil.which("curl") is None:
            pytest.skip("webdataset fetches by curl")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with served(mixed) as (address, _):
            few = {"data.videos": f"{address}/{{0..1}}.tar", "data.shard_cache_gb": gigabytes(mixed, 1.2)}
            self.resumed(tmp_path, few)

    def resumed(self, tmp_path: Path, videos: dict[str, Any]) -> None:
        asked = {
            "model": "tiny",
            "data": "joint",
            **videos,
            "data.frames": 2,
            "data.sizes": "[[32,64],[64,32]]",
            "data.bucketing": "true",
            "data.shares": "{image_to_video: 1}",
            "trainer.trainable": "temporal",
            "trainer.max_steps": 5,
            "trainer.workers": 0,
            "trainer.log_every": 1,
            "trainer.checkpoint_every": 2,
            "trainer.learning_rate": "1e-3",
        }

        def train(out: str, *more: str) -> Path:
            arguments = [f"{key}={value}" for key, value in asked.items()]
            if "data.shard_cache_gb" in asked:
                arguments.append(f"data.shard_cache={tmp_path / f'cache of {out}'}")
            loop.train(compose([*arguments, f"output.dir={tmp_path / out}", *more], entry="train"))
            return tmp_path / out

        whole = train("whole")
        with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(loop, "optimise", interrupt_after(3))
            train("cut")
        cut = train("cut", "resume=true")
        assert same(last(cut), last(whole)) and curve(cut) == curve(whole)
        shown = {name for line in curve(whole) for name in line if name.startswith("loss ")}
        assert shown == {"loss image_to_video 32x64", "loss image_to_video 64x32"}
        skipped = [json.loads(line) for line in (whole / "skipped.jsonl").read_text().splitlines()]
        assert [line["item"] for line in skipped] == ["0.tar/01"] and "cannot be read" in skipped[0]["reason"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (None, r"data.path=\.\.\. is a folder of .tar files"),
        ("world-{00..02}.tar", r"there is no 'world-02.tar'"),
        ("..", r"it holds no .tar file"),
        ("https://example.org/world.tar", r"'world.tar' lies on a server. Give a folder .*: data.shard_cache=\.\.\."),
        ("pipe:cat world-00.tar", r"there is no 'pipe:cat world-00.tar'"),
        ("packed.tar", r"'packed.tar' cannot be read .*compressed"),
        ("texts.tar", r"data.path=texts.tar holds no videos \(.mp4"),
    ],
)
def test_what_is_no_shard_is_refused(shards: Path, path: str | None, message: str, monkeypatch) -> None:
    monkeypatch.chdir(shards)
    with tarfile.open("packed.tar", "w:gz") as packed:
        packed.add("world-00.tar")
    with webdataset.TarWriter("texts.tar") as writer:
        writer.write({"__key__": "a", "txt": "only text"})
    with pytest.raises(BadRequest, match=message):
        Shards(path)


def test_a_missing_library_is_named_with_the_command(shards: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(BadRequest, match=r"needs webdataset: pip install 'vidgen\[data\]'"):
        source(shards)
