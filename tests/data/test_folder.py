"""A folder or a list of videos and images: captions, clips, and what is left out."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from little_data import batch_draw, shown, write_image, write_lines, write_video

from vidgen_core.data.clips import read_image
from vidgen_core.data.folder import Folder
from vidgen_core.data.sample import Sample
from vidgen_core.errors import BadRequest, VidgenError


def source(path: Path, **keys: Any) -> Folder:
    return Folder(str(path), **{"frames": 4, "size": 16, "caption": "a clip", **keys})


def samples(data: Any, count: int, **draw: Any) -> list[Sample]:
    return [data.draw(batch_draw(n, **draw)).samples[0] for n in range(count)]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two videos of 12 frames in a folder and one below it, beside files that are none."""
    folder = tmp_path / "clips"
    for name in ("a.mp4", "b.mp4", "more/c.MP4"):
        write_video(folder / name)
    (folder / "._a.mp4").write_bytes(b"a file system's own")
    (folder / "notes.md").write_text("no clip")
    write_image(folder / "still.png")
    return folder


def test_the_videos_of_a_folder_are_its_items_in_the_order_of_names(clips: Path) -> None:
    found = samples(source(clips, shuffle=False), 3)
    assert [sample.name for sample in found] == ["a.mp4", "b.mp4", "more/c.MP4"]
    assert all(sample.captions == ("a clip",) and sample.scene_frames == (4,) for sample in found)
    assert all(sample.frames.shape == (4, 3, 16, 16) and sample.frames.dtype == torch.uint8 for sample in found)


def test_images_are_samples_of_one_frame(clips: Path) -> None:
    write_image(clips / "other.jpg", grey=5)
    batch = source(clips, kind="images", shuffle=False).draw(batch_draw(0, 2))
    assert [sample.name for sample in batch.samples] == ["other.jpg", "still.png"]
    assert [shown(sample.frames) for sample in batch.samples] == [[5], [0]]
    assert batch.num_frames == 1 and batch.samples[0].frames.shape == (1, 3, 16, 16)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_an_image_of_16_bits_keeps_its_shades(tmp_path: Path, ending: str) -> None:
    shades = np.array([[0, 257, 32896, 65535]], np.uint16)
    Image.fromarray(shades).save(tmp_path / f"a.{ending}")
    assert read_image(tmp_path / f"a.{ending}")[0, 0].tolist() == [[0] * 3, [1] * 3, [128] * 3, [255] * 3]


def test_a_transparent_image_lies_on_black(tmp_path: Path) -> None:
    Image.new("RGBA", (16, 16), (255, 255, 255, 0)).save(tmp_path / "clear.png")
    assert samples(source(tmp_path, kind="images"), 1)[0].frames.max() == 0


@pytest.mark.parametrize(
    ("keys", "frames"),
    [
        ({"start": "first"}, [0, 1, 2, 3]),
        ({"start": "middle"}, [4, 5, 6, 7]),
        ({"start": "first", "stride": 3}, [0, 3, 6, 9]),
        ({"start": "first", "fps": 4}, [0, 2, 4, 6]),
        ({"start": "first", "fps": 16}, [0, 0, 1, 2]),
        ({"start": "first", "fps": 4, "stride": 2, "frames": 3}, [0, 4, 8]),
        ({"start": "random", "frames": 12}, list(range(12))),
    ],
)
def test_a_clip_takes_the_frames_that_were_asked_for(clips: Path, keys: dict[str, Any], frames: list[int]) -> None:
    assert shown(samples(source(clips, **keys), 1)[0].frames) == frames


def test_random_clips_begin_anywhere_and_follow_the_number(clips: Path) -> None:
    data, other = source(clips), pickle.loads(pickle.dumps(source(clips)))
    found = samples(data, 24)
    assert {shown(sample.frames)[0] for sample in found} >= {0, 8}
    assert len({shown(sample.frames)[0] for sample in found}) > 6
    assert [sample.cache_keys for sample in samples(other, 6)] == [sample.cache_keys for sample in found[:6]]


def test_a_video_that_is_too_short_is_left_out_or_its_last_frame_held(clips: Path) -> None:
    write_video(clips / "a.mp4", frames=3)
    batch = source(clips, shuffle=False).draw(batch_draw())
    assert batch.samples[0].name == "b.mp4"
    assert batch.skipped == (
        ("a.mp4", "it has 3 frames of the 4 that a clip needs (data.short=hold repeats the last)"),
    )
    assert shown(samples(source(clips, shuffle=False, short="hold"), 1)[0].frames) == [0, 1, 2, 2]


def test_captions_come_from_the_table_then_from_beside_then_from_the_default(clips: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (clips / f"{name}.txt").write_text(f"{name} from beside\n", encoding="utf-8")
    table = tmp_path / "captions.csv"
    table.write_text('path,caption\na.mp4,"a, from the\ntable"\n', encoding="utf-8-sig")
    data = source(clips, shuffle=False, metadata=str(table))
    assert [s.captions[0] for s in samples(data, 3)] == ["a, from the\ntable", "b from beside", "a clip"]
    batch = source(clips, shuffle=False, caption=None).draw(batch_draw(2))
    assert batch.samples[0].name == "a.mp4"
    assert "no 'c.txt' beside it" in batch.skipped[0][1]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.txt", "b.mp4\nmore/c.MP4\n"),
        ("list.csv", "file_name,text\nb.mp4,one\nmore/c.MP4,two\n"),
        ("list.jsonl", '{"video": "b.mp4", "caption": "one"}\n\n{"video": "more/c.MP4", "caption": "two"}\n'),
    ],
)
def test_a_list_names_files_and_captions(clips: Path, tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    found = samples(source(tmp_path / name, root=str(clips), shuffle=False), 2)
    assert [sample.name for sample in found] == ["b.mp4", "more/c.MP4"]
    assert [s.captions[0] for s in found] == (["a clip"] * 2 if name.endswith("txt") else ["one", "two"])


def test_validation_takes_the_middle_of_files_of_its_own(clips: Path) -> None:
    data = source(clips, validation=str(clips / "more")).held_out()
    assert data is not None
    assert [(s.name, shown(s.frames)) for seed in (0, 1) for s in samples(data, 1, seed=seed)] == [
        ("c.MP4", [4, 5, 6, 7])
    ] * 2


def test_linked_folders_are_searched_and_links_in_circles_are_not_followed(clips: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    (linked / "inner").mkdir(parents=True)
    (linked / "inner/disk").symlink_to(clips, target_is_directory=True)
    (clips / "back").symlink_to(linked, target_is_directory=True)
    own = [entry.name for entry in Folder(str(clips)).items if not entry.name.startswith("back/")]
    assert [entry.name for entry in Folder(str(linked)).items] == [f"inner/disk/{name}" for name in own]


def test_a_path_with_a_nul_is_replaced(clips: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    listing = write_lines(tmp_path / "list.txt", "b\0.png|||broken", "a.png|||whole")
    batch = Folder(str(listing), kind="images", size=16, shuffle=False).draw(batch_draw())
    assert batch.samples[0].captions == ("whole",) and "null" in batch.skipped[0][1]


def test_a_damaged_image_is_replaced(clips: Path) -> None:
    (clips / "broken.png").write_bytes(b"no image")
    batch = source(clips, kind="images", shuffle=False).draw(batch_draw(0, 2))
    assert [sample.name for sample in batch.samples] == ["still.png", "still.png"]
    assert [name for name, _ in batch.skipped] == ["broken.png"]


def test_clips_that_are_all_too_short_are_an_error_that_says_the_mend(clips: Path) -> None:
    with pytest.raises(VidgenError, match=r"None of the 3 items.*12 frames of the 40.*data.short=hold"):
        source(clips, frames=40).draw(batch_draw())


@pytest.mark.parametrize(
    ("path", "keys", "message"),
    [
        ("nowhere", {}, r"data.path=.*nowhere does not exist. Give a folder, or a list"),
        ("clips/more", {"kind": "images"}, r"holds no images \(.png, .*data.kind"),
        ("clips", {"fps": 0.0}, r"data.fps=0 is no frame rate"),
        ("clips", {"root": "x"}, r"data.root=x is for the paths of a list"),
        ("clips", {"metadata": "list.csv"}, r"data.metadata=.*has a caption for none of the files, such as 'a.mp4'"),
        ("clips/notes.md", {}, r"notes.md' is no list"),
        ("list.csv", {"metadata": "list.csv"}, r"the list data.path=.* holds captions itself"),
        ("bad.csv", {}, r"bad.csv', line 2 names no file: it has none of the columns path, "),
        ("bad.jsonl", {}, r"bad.jsonl', line 2 is no JSON"),
        ("empty.txt", {}, r"empty.txt' lists nothing"),
    ],
)
def test_what_cannot_be_is_refused(clips: Path, path: str, keys: dict[str, Any], message: str, monkeypatch) -> None:
    monkeypatch.chdir(clips.parent)
    Path("list.csv").write_text("path,caption\nz.mp4,zed\n")
    Path("bad.csv").write_text("url,caption\nz.mp4,zed\n")
    Path("empty.txt").write_text("\n")
    write_lines(Path("bad.jsonl"), {"path": "a.mp4"}, "{")
    with pytest.raises(BadRequest, match=message):
        source(Path(path), **keys)
