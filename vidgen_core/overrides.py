"""What the user wrote, key by key: ``key=value`` in Hydra's grammar, but a prompt or a path is taken literally."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from vidgen_core.catalog import Key
from vidgen_core.errors import BadRequest, nearest

PROMPTS = ("prompt", "negative_prompt")
PATHS = ("prompts_file", "image", "video", "tuned", "output.dir", "model.path")
"""Keys whose value is text as it stands: it never reaches Hydra's parser or OmegaConf's interpolation."""

TYPES: dict[str, type] = {
    "num_frames": int,
    "height": int,
    "width": int,
    "fps": int,
    "num_inference_steps": int,
    "guidance_scale": float,
}
"""The types of request keys that are null in ``config.yaml``; other keys take the type of their default."""

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list: [a,b]"}


@dataclass(frozen=True)
class Override:
    """One ``key=value``; ``raw`` is the value as it was written, for messages and literal keys."""

    key: str
    value: Any
    raw: str

    def __str__(self) -> str:
        raw = self.raw if len(self.raw) <= 60 else f"{self.raw[:57]}..."
        return f"{self.key}={raw}"


def parse(argument: str) -> Override:
    """Read one command-line argument. Raises BadRequest with the mend."""
    key, equals, raw = argument.partition("=")
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
        return Override(key, scenes_of(raw), raw)
    if key in PATHS:
        return Override(key, None if raw in ("", "null") else raw, raw)
    return Override(key, _hydra_value(key, raw), raw)


def from_python(values: Mapping[str, Any]) -> Iterator[Override]:
    """Read keyword arguments: nested dictionaries become dotted keys, values stay as they are."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from from_python({f"{key}.{inner}": v for inner, v in value.items()})
        else:
            plain = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, PurePath) else value
            plain = plain.item() if hasattr(plain, "item") else plain  # numpy's numbers
            if key in PROMPTS and isinstance(plain, str):
                plain = scenes_of(plain)
            yield Override(key, str(plain) if key in PATHS and plain is not None else plain, str(value))


def scenes_of(text: str) -> str | list[str]:
    """A JSON list of strings is a list of scenes; anything else is the text itself."""
    if text.lstrip().startswith("["):
        try:
            value = json.loads(text)
        except ValueError:
            return text
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return value
    return text


def looks_like_a_list(prompt: object) -> bool:
    """Whether a literal prompt was probably meant as a list of scenes, but is no JSON."""
    text = prompt.strip() if isinstance(prompt, str) else ""
    return text.startswith(("['", '["')) and text.endswith("]")


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


def full_key(key: str, plugin_methods: Sequence[str], chosen: Sequence[str]) -> str:
    """``name.key`` of a method -> ``methods.name.key``. Raises BadRequest for an option of a method not chosen."""
    first, dot, rest = key.removeprefix("methods.").partition(".")
    if not dot or (first not in plugin_methods and not key.startswith("methods.")):
        return key
    if first not in plugin_methods:
        raise BadRequest(f"{key}: there is no method '{first}'.{nearest(first, plugin_methods)}")
    if first not in chosen:
        both = f"[{','.join([*chosen, first])}]" if chosen else first
        raise BadRequest(f"{key} is an option of the method '{first}', which is not chosen. Choose it: method={both}.")
    return f"methods.{first}.{rest}"


def check_value(override: Override, default: Any, key: Key | None) -> Any:
    """The value of the right type, or BadRequest. The type is that of the default; null takes anything."""
    value = override.value
    if key is not None and key.choices:
        # YAML and Hydra both read a bare `true` or `null` as no text; compare as written.
        written = (
            {None: "null", True: "true", False: "false"}.get(value, value) if not isinstance(value, list) else value
        )
        if written not in key.choices:
            raise BadRequest(f"{override}: {override.key} is one of {', '.join(key.choices)}.")
        return value
    wanted = TYPES.get(override.key) or (type(default) if default is not None else None)
    if wanted is None or (value is None and default is None):
        return value
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return override.raw
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        about = f" ({key.comment})" if key is not None and key.comment else ""
        raise BadRequest(
            f"{override}: {override.key} takes {_WORDS.get(wanted, 'keys of its own: key.name=value')}{about}."
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRequest(f"{override}: {override.key} takes a finite number.")
    return value
