"""Stories of captioned segments: which scenes and frames are shown, what is refused, and what is replaced."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from little_data import batch_draw, shown, write_lines, write_video

from vidgen_core.data.captions import Captions
from vidgen_core.errors import BadRequest, VidgenError

TALC = Path(__file__).parents[3] / "shared" / "data" / "talc"
LENGTHS = (4, 1, 3, 2, 4, 1)


def story(name: str, segments: int) -> dict[str, list[str]]:
    """A line whose segments are ``name_0.mp4`` and so on."""
    return {
        "captions": [f"{name} scene {i}" for i in range(segments)],
        "video_segments": [f"{name}_{i}.mp4" for i in range(segments)],
    }


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    """Six stories of 4, 1, 3, 2, 4 and 1 segments of 12 frames."""
    lines = [story(f"s{n}", segments) for n, segments in enumerate(LENGTHS)]
    for name in [name for line in lines for name in line["video_segments"]]:
        write_video(tmp_path / name)
    return write_lines(tmp_path / "stories.jsonl", *lines)


def source(path: Path, **keys: object) -> Captions:
    return Captions(str(path), **{"frames_per_scene": 4, "size": 32, **keys})  # type: ignore[arg-type]


def numbers_of_scenes(data: Captions, count: int = 48) -> list[tuple[int, int]]:
    """Segments of the story, and scenes shown, of the first samples."""
    samples = [data.draw(batch_draw(n)).samples[0] for n in range(count)]
    return [(LENGTHS[int(s.name.split(":")[1]) - 1], len(s.captions)) for s in samples]


def test_a_sample_is_its_scenes_one_after_the_other(stories: Path) -> None:
    sample = source(stories, shuffle=False, fixed_scenes=3).draw(batch_draw()).samples[0]
    assert sample.captions == ("s0 scene 0", "s0 scene 1", "s0 scene 2")
    assert sample.scene_frames == (4, 4, 4)
    assert sample.frames is not None and sample.frames.shape == (12, 3, 32, 32) and sample.frames.dtype == torch.uint8
    assert shown(sample.frames) == [1, 4, 7, 9] * 3
    assert (sample.name, sample.number) == ("stories.jsonl:1", 0)


def test_a_story_shows_two_or_more_of_its_first_scenes_and_a_single_one_shows_itself(stories: Path) -> None:
    seen = set(numbers_of_scenes(source(stories)))
    assert seen == {(1, 1), (2, 2), (3, 2), (3, 3), (4, 2), (4, 3), (4, 4)}


@pytest.mark.parametrize(("keys", "most"), [({"max_scenes": 1}, 1), ({"fixed_scenes": 2}, 2), ({"max_scenes": 2}, 2)])
def test_the_number_of_scenes_can_be_bounded_and_fixed(stories: Path, keys: dict[str, int], most: int) -> None:
    assert all(scenes == min(segments, most) for segments, scenes in numbers_of_scenes(source(stories, **keys), 12))


def test_every_epoch_shows_every_story_once_in_an_order_of_its_own(stories: Path) -> None:
    data = source(stories)
    epochs = [[data.draw(batch_draw(n)).samples[0].name for n in range(e * 6, e * 6 + 6)] for e in range(3)]
    assert all(sorted(epoch) == sorted(epochs[0]) and len(set(epoch)) == 6 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_sample_is_a_function_of_its_number_and_the_seed(stories: Path) -> None:
    first, other = source(stories), pickle.loads(pickle.dumps(source(stories)))
    for number in (7, 3, 11):
        one, two = first.draw(batch_draw(number)).samples[0], other.draw(batch_draw(number)).samples[0]
        assert (one.captions, one.cache_keys) == (two.captions, two.cache_keys)
        assert torch.equal(one.frames, two.frames)
    orders = [[first.draw(batch_draw(n, seed=seed)).samples[0].name for n in range(6)] for seed in (0, 1)]
    assert orders[0] != orders[1]


def test_all_samples_of_a_step_show_one_number_of_scenes(stories: Path) -> None:
    data, seen = source(stories), set()
    for step in range(12):
        micros = [data.draw(batch_draw(step * 4 + 2 * micro, 2, step=step)) for micro in range(2)]
        scenes = {len(sample.captions) for batch in micros for sample in batch.samples}
        assert len(scenes) == 1
        assert all(sample.frames.shape == micros[0].samples[0].frames.shape for b in micros for sample in b.samples)
        seen |= scenes
    assert seen == {1, 2, 3, 4}


def test_validation_stories_keep_their_order_and_show_all_they_can(stories: Path) -> None:
    data = source(stories, validation=str(stories), max_scenes=3).held_out()
    assert data is not None
    samples = [data.draw(batch_draw(n, seed=seed)).samples[0] for n in range(6) for seed in (0, 1)]
    assert [len(sample.captions) for sample in samples[::2]] == [min(3, length) for length in LENGTHS]
    assert [s.cache_keys for s in samples[::2]] == [s.cache_keys for s in samples[1::2]]
    assert source(stories).held_out() is None


def test_a_side_file_bounds_the_frames_and_a_shorter_video_clamps_them(stories: Path, tmp_path: Path) -> None:
    counts = tmp_path / "max_frames.json"
    counts.write_text(json.dumps({"s0_0.mp4": 5, "s0_1.mp4": 900}))
    data = source(stories, max_frames=str(counts), shuffle=False, fixed_scenes=3)
    frames = data.draw(batch_draw()).samples[0].frames
    assert shown(frames) == [0, 1, 2, 3] + [1, 4, 7, 9] * 2


def test_parity_believes_the_side_file_and_replaces_what_has_fewer_frames(stories: Path, tmp_path: Path) -> None:
    counts = tmp_path / "max_frames.json"
    counts.write_text(json.dumps({"s0_0.mp4": 12, "s0_1.mp4": 900, "s0_2.mp4": 12, "s0_3.mp4": 12, "s1_0.mp4": 8}))
    data = source(stories, max_frames=str(counts), shuffle=False, parity=True)
    batch = data.draw(batch_draw())
    assert batch.samples[0].captions == ("s1 scene 0",)
    assert shown(batch.samples[0].frames) == [0, 2, 4, 5]
    assert [name for name, _ in batch.skipped] == ["stories.jsonl:1"]
    assert "s0_1.mp4" in batch.skipped[0][1]
    with pytest.raises(BadRequest, match=r"data.parity=true needs data.max_frames"):
        source(stories, parity=True)


def test_broken_stories_are_replaced_by_the_next_of_the_order_and_named(stories: Path) -> None:
    data = source(stories)
    order = [data.draw(batch_draw(n)).samples[0].name for n in range(6)]
    (stories.parent / f"s{int(order[2][-1]) - 1}_0.mp4").unlink()
    (stories.parent / f"s{int(order[3][-1]) - 1}_0.mp4").write_bytes(b"no video")
    batch = data.draw(batch_draw(2))
    assert batch.samples[0].name == order[4] and batch.samples[0].number == 2
    assert [name for name, _ in batch.skipped] == [order[2], order[3]]
    assert not data.draw(batch_draw(1)).skipped


def test_the_last_of_an_epoch_is_replaced_by_its_first(stories: Path) -> None:
    (stories.parent / "s5_0.mp4").unlink()
    assert source(stories, shuffle=False).draw(batch_draw(5)).samples[0].name == "stories.jsonl:1"


def test_data_of_which_all_is_broken_is_an_error_that_names_the_first(stories: Path) -> None:
    for file in stories.parent.glob("*.mp4"):
        file.unlink()
    with pytest.raises(VidgenError, match=r"None of the 6 items.*stories.jsonl:\d: .*_0.mp4'.*and 3 more"):
        source(stories).draw(batch_draw())
    with pytest.raises(VidgenError, match=r"None of the 6 items"):
        source(stories).draw(batch_draw(size=2))


def test_a_batch_takes_another_number_of_scenes_where_no_story_of_the_wanted_one_can_be_read(stories: Path) -> None:
    for number in (0, 4):
        (stories.parent / f"s{number}_3.mp4").unlink()
    data = source(stories)
    batches = [data.draw(batch_draw(2 * step, 2, step=step)) for step in range(10)]
    assert {tuple(len(sample.captions) for sample in batch.samples) for batch in batches} == {(1, 1), (2, 2), (3, 3)}
    assert {name for batch in batches for name, _ in batch.skipped} == {"stories.jsonl:1", "stories.jsonl:5"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'captions': ['a']}", r"line 3 is no JSON: Expecting property name enclosed in double quotes at column 2\. "),
        ("__import__('os').abort()", r"stories.jsonl', line 3 is no JSON"),
        ('["a"]', r"line 3 is no JSON object"),
        ('{"captions": ["a", "b"], "video_segments": ["a.mp4"]}', r"line 3 has 2 captions for 1 video_segments"),
        ('{"captions": "a", "video_segments": ["a.mp4"]}', r"line 3: 'captions' is no list of texts"),
        ('{"captions": ["a"]}', r"line 3: 'video_segments' is no list of texts"),
        ('{"captions": [true], "video_segments": ["a.mp4"]}', r"line 3: 'captions'"),
        ('{"captions": [], "video_segments": []}', r"line 3: 'captions' is an empty list. Give one text or more"),
        ('{"captions": ["a"], "video_segments": [" "]}', r"line 3: 'video_segments' holds an empty text, which names"),
        ('{"captions": ["\\ud800"], "video_segments": ["a.mp4"]}', r"line 3: 'captions' holds a lone surrogate"),
    ],
)
def test_a_bad_line_is_refused_by_its_number(tmp_path: Path, line: str, message: str) -> None:
    path = write_lines(tmp_path / "stories.jsonl", story("s", 1), "", line)
    with pytest.raises(BadRequest, match=message):
        source(path)


def test_an_empty_caption_is_one_that_says_nothing(stories: Path) -> None:
    data = source(write_lines(stories, {"captions": [""], "video_segments": ["s0_0.mp4"]}))
    assert data.draw(batch_draw()).samples[0].captions == ("",)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_a_line_that_is_not_utf_8_is_refused_by_its_number(tmp_path: Path, ending: bytes) -> None:
    path = tmp_path / "stories.jsonl"
    path.write_bytes(ending.join([b"\xef\xbb\xbf", b'{"captions": ["caf\xe9"]}', b""]))
    with pytest.raises(BadRequest, match=r"stories.jsonl', line 2 is not UTF-8 text"):
        source(path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"path": None}, r"data.path=\.\.\. is a file of JSON lines"),
        ({"path": "nowhere.jsonl"}, r"data.path=nowhere.jsonl does not exist"),
        ({"root": "nowhere"}, r"data.root=nowhere is no folder"),
        ({"validation": "nowhere.jsonl"}, r"data.validation=nowhere.jsonl does not exist"),
        ({"max_frames": "nowhere.json"}, r"data.max_frames=nowhere.json does not exist"),
        ({"size": [32, 32, 32]}, r"data.size=\[32, 32, 32\] is not a size"),
    ],
)
def test_what_is_missing_is_refused_with_its_key(stories: Path, keys: dict[str, object], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        Captions(**{"path": str(stories), **keys})  # type: ignore[arg-type]


@pytest.mark.parametrize("content", ["[1]", "{", '{"a": "open(1)"}', '{"a": 0}', '{"a": true}'])
def test_a_side_file_that_is_no_table_of_counts_is_refused(stories: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "counts.json").write_text(content)
    with pytest.raises(BadRequest, match=r"data.max_frames="):
        source(stories, max_frames=str(tmp_path / "counts.json"))


@pytest.mark.skipif(not TALC.is_dir(), reason=f"there is no {TALC}")
def test_the_published_lines_and_frame_counts_are_read() -> None:
    data = Captions(str(TALC / "train_200.jsonl"), str(TALC / "val.jsonl"), max_frames=str(TALC / "max_frames.json"))
    validation = data.held_out()
    assert validation is not None
    assert (len(data), len(validation)) == (200, 10)
    named = [name for s in (*data.stories, *validation.stories) for name in s.segments]
    assert len(named) == len(data.counts) == 656 and set(named) == set(data.counts)
    assert [sum(len(s.segments) == n for s in validation.stories) for n in (4, 3, 2, 1)] == [7, 1, 0, 2]


def test_workers_read_what_one_process_reads(stories: Path) -> None:
    from vidgen_core.data.loading import read_ahead

    (stories.parent / "s2_0.mp4").unlink()
    data, draws = source(stories), [batch_draw(2 * step, 2, step=step) for step in range(6)]
    alone, ahead = list(read_ahead(data, draws, 0)), list(read_ahead(data, draws, 2))
    for one, two in zip(alone, ahead, strict=True):
        assert (one.draw, one.skipped) == (two.draw, two.skipped)
        assert all(torch.equal(a.frames, b.frames) for a, b in zip(one.samples, two.samples, strict=True))
    assert any(batch.skipped for batch in alone)
