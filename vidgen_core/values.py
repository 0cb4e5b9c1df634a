"""Single values set in the composed tree: each key must be there, and each value be what its YAML file allows."""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from vidgen_core.catalog import Key, Numbers
from vidgen_core.errors import BadRequest, nearest
from vidgen_core.overrides import PROMPTS, Override, is_literal

if TYPE_CHECKING:
    from omegaconf import DictConfig

FORMS = {"owner": "<hook>=<method>", "weights": "<method>=<path>", "model.method_defaults": "<method>.<key>=<value>"}
"""How keys are written below a free dictionary; below others they are as the user likes."""

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list: [a,b]"}


def set_values(
    tree: DictConfig,
    asked: Sequence[Override],
    groups: Collection[str],
    plugins: Sequence[str],
    methods: Sequence[str],
    documented: Mapping[str, Key],
) -> dict[str, Any]:
    """Set each value that chooses no group in the tree; returns full key -> value as given.

    Args:
        groups: Keys that were dealt with already.
        plugins: Methods that are installed.
        methods: Methods that are chosen.
        documented: Full key -> how its YAML file documents it.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    valid = flatten(OmegaConf.to_container(tree))
    free = [key for key, entry in documented.items() if entry.value == "{}"]
    given: dict[str, Any] = {}
    for override in asked:
        if override.key in groups:
            continue
        key = full_key(override.key, [name for name in plugins if name not in tree], methods)
        if key.rpartition(".")[2] == "_target_":
            raise BadRequest(f"{override}: what is built is chosen by model=, method= and their like, not by _target_.")
        parent = next((parent for parent in free if key.startswith(f"{parent}.")), None)
        if parent is not None:
            value = _free_value(override, parent, key.removeprefix(f"{parent}."))
        elif key in valid:
            value = check_value(override, valid[key], documented.get(key))
        elif (listed := documented.get(key.rpartition(".")[0])) and listed.comment.startswith("list of mappings"):
            name, _, inner = override.key.rpartition(".")
            raise BadRequest(f"{override}: {name} is a list, be it of one: {name}=[{{{inner}: {override.raw}}}].")
        else:
            raise BadRequest(f"There is no key '{override.key}'.{_nearest_key(override.key, valid)}")
        given[key] = value
        if not is_literal(key):
            try:
                OmegaConf.update(tree, key, value, merge=False, force_add=True)
            except OmegaConfBaseException as error:
                raise BadRequest(f"{override} cannot be read: {str(error).splitlines()[0]}") from error
    return given


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
    """The value of the right type and range, or BadRequest. Where the file does not say, the default's type holds."""
    value = override.value
    about = f" ({key.comment})" if key is not None and key.comment else ""
    if key is not None and key.choices:
        # YAML and Hydra both read a bare `true` or `null` as no text; compare as written.
        written = str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
        if not any(re.fullmatch(re.escape(choice).replace(":N", r":\d+"), written) for choice in key.choices):
            raise BadRequest(f"{override}: {override.key} is one of {', '.join(key.choices)}.")
        return value
    if isinstance(value, dict) or isinstance(default, dict):
        raise BadRequest(f"{override}: {override.key} takes keys of its own: key.name=value{about}.")
    if value is None and (default is None or (key is not None and key.nullable)):
        return value
    if key is not None and key.numbers is not None:
        return _number(override, key.numbers, about)
    if default is None or override.key in PROMPTS:
        return value
    if isinstance(default, str) and isinstance(value, (int, float)) and not isinstance(value, bool):
        return override.raw
    if isinstance(default, (int, float)) and not isinstance(default, bool):
        return _number(override, Numbers(type(default)), about)
    if not isinstance(value, type(default)):
        raise BadRequest(f"{override}: {override.key} takes {_WORDS[type(default)]}{about}.")
    return value


def _number(override: Override, allowed: Numbers, about: str) -> Any:
    value, key = override.value, override.key
    several = isinstance(value, list) and allowed.listed
    for number in value if several else [value]:
        whole = isinstance(number, int) and not isinstance(number, bool)
        if not whole and not (allowed.kind is float and isinstance(number, float)):
            words = _WORDS[allowed.kind] + (" or a list of them" if allowed.listed else "")
            raise BadRequest(f"{override}: {key} takes {words}{about}.")
        if not -sys.float_info.max <= number <= sys.float_info.max:
            raise BadRequest(f"{override}: {key} takes a finite number.")
        if number < allowed.low and allowed.high == math.inf:
            raise BadRequest(f"{override} must be at least {allowed.low:g}.")
        if not allowed.low <= number <= allowed.high:
            raise BadRequest(f"{override} must be from {allowed.low:g} to {allowed.high:g}.")
    return value if several else allowed.kind(value)


def _free_value(override: Override, parent: str, name: str) -> Any:
    form = FORMS.get(parent)
    if form and (name.count(".") != form.count(".") or not all(name.split("."))):
        raise BadRequest(f"There is no key '{override.key}'. Write {parent}.{form}.")
    if parent not in ("owner", "weights") or isinstance(override.value, str):
        return override.value
    if parent == "weights" and override.value is None and override.raw:  # null: not even those that the model brings
        return None
    raise BadRequest(f"{override}: {override.key} takes text. Write {parent}.{form}.")


def _nearest_key(key: str, valid: Mapping[str, Any]) -> str:
    """A hint for a wrong key: a close one, else those beside it, else those at the top."""
    keys = [name.removeprefix("methods.") for name in valid if "_target_" not in name] + ["method"]
    parent = key.rpartition(".")[0]
    beside = [name for name in keys if name.rpartition(".")[0] == parent]
    close = difflib.get_close_matches(key, keys, n=1, cutoff=0.6)
    return nearest(key, close or beside or [name for name in keys if "." not in name])


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value, of every level."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat[f"{prefix}{name}"] = value
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
    return flat


def plain(tree: DictConfig, literals: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved tree as plain data, with texts that were taken literally put in their places."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        config: Any = OmegaConf.to_container(tree, resolve=True)
    except OmegaConfBaseException as error:
        raise BadRequest(f"A value refers to what is not there: {str(error).splitlines()[0]}") from error
    return {"methods": {}, **put(config, literals)}


def put(tree: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a tree with values, by dotted key, in their places."""
    copied: dict[str, Any] = deepcopy(dict(tree))
    for key, value in values.items():
        *parents, name = key.split(".")
        node = copied
        for parent in parents:
            node = node[parent]
        node[name] = value
    return copied
