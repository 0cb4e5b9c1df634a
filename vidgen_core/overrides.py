"""What the user wrote, key by key: ``key=value`` in Hydra's grammar, but a prompt or a path is taken literally."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vidgen_core.errors import BadRequest
from vidgen_core.prompts import is_writable, scenes_of

MEDIA = ("images", "videos", "labelled_videos")
PROMPTS = ("prompt", "negative_prompt")
PATHS = (
    *("prompts_file", "image", "video", "tuned", "output.dir", "output.root", "model.path"),
    *(
        "data.path",
        "data.validation",
        "data.root",
        "data.max_frames",
        "data.metadata",
        "data.shard_cache",
        "trainer.cache_dir",
    ),
)
PLACES = tuple(f"data.{held_out}{what}" for held_out in ("", "validation_") for what in MEDIA)
"""Paths as well; but a number is one: of different samples, where they are painted."""

FILES = "plugin"
"""The key that takes a path or a list of them; its value is a list."""

TEXT = "caption"
"""The last part of keys that take a text literally which is no list of scenes; it may be empty."""


@dataclass(frozen=True)
class Override:
    """One ``key=value``; ``raw`` is the value as it was written, for messages and literal keys."""

    key: str
    value: Any
    raw: str

    def __str__(self) -> str:
        raw = self.raw if len(self.raw) <= 60 else f"{self.raw[:57]}..."
        return f"{self.key}={raw}"


def is_path(key: str) -> bool:
    """Whether a key's value names a file or folder."""
    return key in PATHS or key in PLACES or key == "weights" or key.startswith("weights.")


def is_text(key: str) -> bool:
    """Whether a key's value is one text, such as ``data.caption``."""
    return key.rpartition(".")[2] == TEXT


def is_literal(key: str) -> bool:
    """Whether a key's value is text as it stands: it never reaches Hydra's parser or OmegaConf's interpolation."""
    return key in PROMPTS or is_text(key) or is_path(key)


def parse(argument: str) -> Override:
    """Read one command-line argument. Raises BadRequest with the mend."""
    key, equals, raw = argument.partition("=")
    if not is_writable(argument):
        raise BadRequest(f"{key}: the argument is not UTF-8 text, so no record could hold it.")
    if not equals:
        raise BadRequest(f"'{argument}' is not key=value. A prompt is written prompt='{argument}'.")
    key = key.strip()
    if not key:
        raise BadRequest(f"'{argument}' has no key before '='. An argument is key=value.")
    if key[0] in "+~-":
        raise BadRequest(
            f"'{argument}': write {key.lstrip('+~-')}=... without '{key[0]}'; keys are never added or removed."
        )
    if key in PROMPTS:
        return Override(key, _prompt(key, raw), raw)
    if key == FILES:
        return Override(key, _files(_hydra_value(key, raw) if raw.startswith("[") else raw), raw)
    if is_text(key):
        return Override(key, None if raw == "null" else raw, raw)
    if is_path(key):
        number = key in PLACES and re.fullmatch(r"-?\d+", raw)
        return Override(key, int(raw) if number else None if raw in ("", "null") else raw, raw)
    return Override(key, _hydra_value(key, raw), raw)


def spelled_out(asked: Iterable[Override]) -> Iterator[Override]:
    """A mapping that was written as one value, ``key={name: value}``, as a value of each of its keys."""
    for override in asked:
        if isinstance(override.value, dict) and override.value:
            yield from spelled_out(Override(f"{override.key}.{k}", v, str(v)) for k, v in override.value.items())
        else:
            yield override


def from_python(values: Mapping[str, Any]) -> Iterator[Override]:
    """Read keyword arguments: nested dictionaries become dotted keys, values stay as they are.

    Raises BadRequest for a value that is no plain data.
    """
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from from_python({f"{key}.{inner}": v for inner, v in value.items()})
            continue
        plain = plain_value(key, value)
        if key in PROMPTS:
            plain = _prompt(key, plain)
        if key == FILES:
            plain = _files(plain)
        if is_path(key):
            if not isinstance(plain, str | None) and not (key in PLACES and isinstance(plain, int)):
                raise BadRequest(f"{key}={value} is no path. Give a text or a pathlib.Path.")
            plain = None if plain == "" else plain
        yield Override(key, plain, str(value))


def _prompt(key: str, value: Any) -> Any:
    value = scenes_of(value) if isinstance(value, str) else value
    texts = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(text, str) for text in texts):
        raise BadRequest(f"{key}={value}: {key} takes a text, or a list with a text for each scene.")
    if not all(map(is_writable, texts)):
        raise BadRequest(f"{key} holds a lone surrogate or a NUL, which is no text.")
    return value


def _files(value: Any) -> list[str]:
    listed = value if isinstance(value, list) else [] if value in (None, "", "null") else [value]
    if not all(isinstance(path, str) and path for path in listed):
        raise BadRequest(f"{FILES}={value}: {FILES} takes the path of a Python file, or a list of them.")
    return listed


def plain_value(key: str, value: Any) -> Any:
    """The plain data that a Python value stands for: numbers and arrays of numpy and torch, paths, sequences."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str) and not is_writable(value):
        raise BadRequest(f"{key} holds a lone surrogate or a NUL, which is no text.")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [plain_value(key, item) for item in value]
    if isinstance(value, Mapping):  # inside a list: one of several settings that belong together
        return {str(name): plain_value(f"{key}.{name}", item) for name, item in value.items()}
    raise BadRequest(
        f"{key}={value}: a {type(value).__name__} is no value of a key. Give a text, a number, a truth or a list."
    )


def _hydra_value(key: str, raw: str) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    quote = f"Quote it inside the argument: '{key}=\"...\"'."
    try:
        override = OverridesParser.create().parse_override(f"{key}={raw}")
    except HydraException as error:
        reason = str(error).splitlines()[0].partition(" expecting ")[0]
        raise BadRequest(f"{key}={raw} cannot be read ({reason}). {quote}") from error
    if override.is_sweep_override():
        raise BadRequest(
            f"{key}={raw}: a list needs brackets, {key}=[{raw}]; "
            f"a text that holds a comma needs quotes: '{key}=\"{raw}\"'."
        )
    return override.value()
