"""The videos that were asked for, from ``prompt``, from ``prompts_file`` or from the model's example."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidgen_core.errors import BadRequest
from vidgen_core.request import VideoRequest

_FORMS = (
    "a .txt file (a scene per line), a .json file (a list of scenes, or name -> scenes) "
    "or a .jsonl file (a video per line)"
)
_RESERVED = ("run.yaml", "journal", "journal.old", "preview.png")


def scenes_of(text: str) -> str | list[str]:
    """A JSON list of texts is a list of scenes; anything else is the text itself. Raises BadRequest for other lists."""
    if not text.lstrip().startswith("["):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not all(isinstance(item, str) for item in value):
        raise BadRequest(f"The prompt {text[:60]} is a list that holds more than texts. Every scene is a text.")
    return list(value)


def looks_like_a_list(prompt: object) -> bool:
    """Whether a literal prompt was probably meant as a list of scenes, but is no JSON."""
    text = prompt.strip() if isinstance(prompt, str) else ""
    return text.startswith(("['", '["')) and text.endswith("]")


def is_writable(text: str) -> bool:
    """Whether a text can stand in the record of a run: no lone surrogate (bytes that are no UTF-8), no NUL."""
    return "\0" not in text and text == text.encode("utf-8", "replace").decode("utf-8")


def read_videos(config: Mapping[str, Any]) -> tuple[VideoRequest, ...]:
    """The videos of a configuration; empty where nothing says what to show. Raises BadRequest for a bad file."""
    if config["prompt"] is not None and config["prompts_file"] is not None:
        raise BadRequest("prompt and prompts_file were both given. Leave one out.")
    negative = _texts(config["negative_prompt"]) if config["negative_prompt"] is not None else ("",)
    if config["prompts_file"] is not None:
        named = read_prompts_file(Path(config["prompts_file"]))
    elif config["prompt"] is not None:
        named = {"": _texts(config["prompt"])}
    else:
        return ()
    return tuple(VideoRequest(texts, negative, index, name) for index, (name, texts) in enumerate(named.items()))


def read_prompts_file(path: Path) -> dict[str, tuple[str, ...]]:
    """Name -> scenes, in the order of the file; a file of one video gives it the name ``""``."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise BadRequest(f"prompts_file={path} does not exist.") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise BadRequest(f"prompts_file={path} cannot be read: {reason}. Give {_FORMS}.") from error
    # Only "\n" ends a line: JSON and captions may hold U+2028 and its like.
    lines = {number: line.strip() for number, line in enumerate(text.split("\n"), 1) if line.strip()}
    if not lines:
        raise BadRequest(f"prompts_file={path} is empty. Give {_FORMS}.")
    readers = {".txt": _read_txt, ".json": _read_json, ".jsonl": _read_jsonl}
    if path.suffix.lower() not in readers:
        raise BadRequest(f"prompts_file={path}: the ending '{path.suffix}' is not known. Give {_FORMS}.")
    try:
        videos = readers[path.suffix.lower()](text, lines)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"prompts_file={path} cannot be read: {error}. Give {_FORMS}.") from error
    return videos


def _read_txt(text: str, lines: Mapping[int, str]) -> dict[str, tuple[str, ...]]:
    return {"": _scenes(list(lines.values()), "the file")}


def _read_json(text: str, lines: Mapping[int, str]) -> dict[str, tuple[str, ...]]:
    value = json.loads(text, object_pairs_hook=_no_name_twice)
    if isinstance(value, dict):
        if not value:
            raise ValueError("it names no video")
        _check_names(list(value))
        return {name: _scenes(scenes, f"'{name}'") for name, scenes in value.items()}
    return {"": _scenes(value, "the file")}


def _read_jsonl(text: str, lines: Mapping[int, str]) -> dict[str, tuple[str, ...]]:
    videos: list[tuple[str, tuple[str, ...]]] = []
    for number, line in lines.items():
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number}: {error.msg} at column {error.colno}") from error
        name = f"{len(videos):04d}"
        if isinstance(value, dict):
            name = value.get("name", name)
            value = next((value[key] for key in ("prompts", "captions", "prompt") if key in value), None)
        if not isinstance(name, str):
            raise ValueError(f"line {number}: the name is no text")
        videos.append((name, _scenes(value, f"line {number}")))
    _check_names([name for name, _ in videos])
    return dict(videos)


def _check_names(names: list[str]) -> None:
    """Every name is to be a folder of its own inside the run's folder, on any file system."""
    seen: dict[str, str] = {}
    for name in names:
        if not name.strip(" .") or any(c in '/\\:*?"<>|' or ord(c) < 32 for c in name) or not is_writable(name):
            raise ValueError(f"the name '{name}' cannot name a folder; use letters, digits, - and _")
        if name.casefold() in _RESERVED:
            raise ValueError(f"the name '{name}' is that of something else in the folder of a run")
        if len(name) > 120 or len(name.encode()) > 240:
            raise ValueError(f"the name '{name[:40]}...' is longer than 120 characters")
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise ValueError(f"the names '{other}' and '{name}' differ only by case")
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two videos are named '{name}'")


def _scenes(value: Any, where: str) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{where} does not hold a list of texts")
    if not all(text.strip() for text in texts):
        raise ValueError(f"{where} holds an empty text")
    if not all(map(is_writable, texts)):
        raise ValueError(f"{where} holds a lone surrogate or a NUL, which is no text")
    return tuple(texts)


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two videos are named '{name}'")
    return dict(pairs)


def _texts(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
