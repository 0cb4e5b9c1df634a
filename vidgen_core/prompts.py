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
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise BadRequest(f"prompts_file={path} is empty. Give {_FORMS}.")
    readers = {".txt": _read_txt, ".json": _read_json, ".jsonl": _read_jsonl}
    if path.suffix.lower() not in readers:
        raise BadRequest(f"prompts_file={path}: the ending '{path.suffix}' is not known. Give {_FORMS}.")
    try:
        videos = readers[path.suffix.lower()](text, lines)
    except ValueError as error:
        raise BadRequest(f"prompts_file={path} cannot be read: {error}. Give {_FORMS}.") from error
    for name in videos:
        if name in (".", "..") or any(c in '/\\:*?"<>|' or ord(c) < 32 for c in name):
            raise BadRequest(
                f"prompts_file={path}: the name '{name}' cannot name a folder. Use letters, digits, - and _."
            )
    return videos


def _read_txt(text: str, lines: list[str]) -> dict[str, tuple[str, ...]]:
    return {"": tuple(lines)}


def _read_json(text: str, lines: list[str]) -> dict[str, tuple[str, ...]]:
    value = json.loads(text, object_pairs_hook=_no_name_twice)
    if isinstance(value, dict):
        if not value:
            raise ValueError("it names no video")
        return {name: _scenes(scenes, f"'{name}'") for name, scenes in value.items()}
    return {"": _scenes(value, "the file")}


def _read_jsonl(text: str, lines: list[str]) -> dict[str, tuple[str, ...]]:
    videos: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lines):
        value = json.loads(line)
        name = f"{number:04d}"
        if isinstance(value, dict):
            name = str(value.get("name", name))
            value = next((value[key] for key in ("prompts", "captions", "prompt") if key in value), None)
        if name in videos:
            raise ValueError(f"two videos are named '{name}'")
        videos[name] = _scenes(value, f"line {number + 1}")
    return videos


def _scenes(value: Any, where: str) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{where} does not hold a list of texts")
    if not all(text.strip() for text in texts):
        raise ValueError(f"{where} holds an empty text")
    return tuple(texts)


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two videos are named '{name}'")
    return dict(pairs)


def _texts(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
