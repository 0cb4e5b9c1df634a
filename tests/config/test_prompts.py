"""A prompt means itself, whatever its characters; scenes are a JSON list or a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidgen_core.config import compose
from vidgen_core.errors import BadRequest

NASTY = [
    "it's a dog, a cat (red): yes",
    'he said "hello", then left',
    "costs $5 and ${num_frames} or ${oc.env:HOME}",
    "a=b=c",
    "-5 degrees",
    "--help",
    "[red] a cat",
    "[not, json",
    "{a: 1}",
    "null",
    "true",
    "12",
    "line one\nline two\ttab",
    "größe 猫 🎈 مرحبا",
    "back\\slash \\n",
    "# no comment",
    "~tilde +plus @at !bang % per",
    "'quoted'",
    " spaces around ",
    "line\u2028separator",
]


@pytest.mark.parametrize("key", ["prompt", "negative_prompt"])
@pytest.mark.parametrize("text", NASTY)
def test_a_prompt_is_taken_literally(key: str, text: str) -> None:
    other = [] if key == "prompt" else ["prompt=x"]
    composed = compose([f"{key}={text}", *other])
    video = composed.request.videos[0]
    assert (video.prompts if key == "prompt" else video.negative_prompts) == (text,)
    assert composed.config[key] == text


def test_a_json_list_is_scenes() -> None:
    video = compose(['prompt=["one, 1","two: ${x}"]', 'negative_prompt=["a","b"]']).request.videos[0]
    assert video.prompts == ("one, 1", "two: ${x}")
    assert video.negative_prompts == ("a", "b")


def test_a_list_that_is_no_json_is_one_text_and_says_so() -> None:
    composed = compose(["prompt=['one','two']"])
    assert composed.request.videos[0].prompts == ("['one','two']",)
    assert "taken as one text" in composed.notes[0]


def test_the_example_of_the_model_is_used_and_said() -> None:
    composed = compose(["model=tiny"])
    assert composed.request.videos[0].prompts[0] == composed.config["model"]["example_prompt"]
    assert composed.request.videos[0].prompts[0] in composed.notes[0]


def test_a_model_without_example_refuses() -> None:
    with pytest.raises(BadRequest, match="No prompt"):
        compose(["model=modelscope"]).request.validate()


FILES = {
    "scenes.txt": ("first\n\n second \n", {"": ("first", "second")}),
    "bom.txt": ("\ufefffirst\n", {"": ("first",)}),
    "scenes.json": ('["first","second"]', {"": ("first", "second")}),
    "named.json": ('{"a":["1","2"],"b c":["3"]}', {"a": ("1", "2"), "b c": ("3",)}),
    "lines.jsonl": (
        '["1"]\n{"captions":["2"]}\n{"name":"n","prompt":"3"}',
        {"0000": ("1",), "0001": ("2",), "n": ("3",)},
    ),
    "separators.jsonl": ('["1\u2028a"]\n\n["2"]', {"0000": ("1\u2028a",), "0001": ("2",)}),
    "separators.txt": ("1\u2028a\n2", {"": ("1\u2028a", "2")}),
}


@pytest.mark.parametrize("name", FILES)
def test_prompts_files(name: str, tmp_path: Path) -> None:
    text, videos = FILES[name]
    path = tmp_path / "odd, ${name}"
    path.mkdir()
    (path / name).write_text(text, encoding="utf-8")
    request = compose([f"prompts_file={path / name}"]).request
    assert {video.name: video.prompts for video in request.videos} == videos
    assert [video.index for video in request.videos] == list(range(len(videos)))


BAD_FILES = {
    "missing.txt": (None, "does not exist"),
    "empty.txt": (b" \n", "is empty"),
    "binary.txt": (b"\xff\xfe\x00", "not UTF-8"),
    "cut.json": (b'["one', "cannot be read"),
    "number.json": (b"3", "list of texts"),
    "numbers.json": (b"[1,2]", "list of texts"),
    "none.json": (b"{}", "names no video"),
    "blank.json": (b'{"a":["one"," "]}', "empty text"),
    "twice.json": (b'{"a":["1"],"a":["2"]}', "two videos"),
    "escape.json": (b'{"../a":["1"]}', "cannot name a folder"),
    "cut.jsonl": (b'["one"]\n[', "cannot be read"),
    "line.jsonl": (b'["one"]\n\n["two"', "line 3: .* at column"),
    "scene.jsonl": (b'["one"]\n\n[2]', "line 3 does not hold a list of texts"),
    "null.jsonl": (b'{"name": null, "prompt": "a"}', "line 1: the name is no text"),
    "same.jsonl": (b'{"name": "a", "prompt": "a"}\n{"name": "a", "prompt": "b"}', "two videos are named 'a'"),
    "record.json": (b'{"run.yaml":["1"]}', "something else"),
    "journal.json": (b'{"Journal":["1"]}', "something else"),
    "long.json": (b'{"%s":["1"]}' % (b"a" * 121), "longer than 120"),
    "case.json": (b'{"Cat":["1"],"cat":["2"]}', "'Cat' and 'cat' differ only by case"),
    "dots.json": (b'{"..":["1"]}', "cannot name a folder"),
    "nameless.json": (b'{"":["1"]}', "cannot name a folder"),
    "half.json": (b'["\\ud800"]', "lone surrogate"),
    "deep.json": (b"[" * 100_000, "cannot be read"),
    "scenes.csv": (b"one", "'.csv' is not known"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_prompts_file_is_named_with_its_mend(name: str, tmp_path: Path) -> None:
    content, reason = BAD_FILES[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadRequest, match=reason) as caught:
        compose([f"prompts_file={tmp_path / name}"])
    assert name in str(caught.value)


def test_a_folder_is_no_prompts_file(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="cannot be read"):
        compose([f"prompts_file={tmp_path}"])


def test_prompt_and_file_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="Leave one out"):
        compose(["prompt=x", f"prompts_file={tmp_path}"])
