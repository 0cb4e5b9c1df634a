"""What a plugin says of itself on its card, and what a card must not say. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from vidgen_core.errors import Conflict, Unusable, nearest
from vidgen_core.hookspecs import HOOK_API_VERSION, OLDEST_HOOK_API

READS = ("image", "video", "tuned", "weights")
"""Request keys that do something only where a chosen method reads them."""


@dataclass(frozen=True)
class Plugin:
    """A plugin's card. Its module must import in milliseconds: no torch, no numpy.

    The package beside it may carry ``conf/`` (``conf/method/<name>.yaml``, ``conf/model/*.yaml``, ...).
    """

    name: str
    summary: str
    package: str  # the Python package that carries conf/, usually __name__ of the light module
    is_method: bool = True  # False: it only brings models, data, metrics
    paper: str = ""
    families: tuple[str, ...] = ("unet3d",)  # model families that a method runs on (model.family)
    reads: tuple[str, ...] = ()  # which of READS the method uses; one that no chosen method reads is refused
    shown_by: tuple[str, ...] = ()  # keys of which one, given, says what a video shows where there is no prompt
    composes_with: str = ""  # one sentence for `vidgen show`
    remembers: str = ""  # what of a video the method remembers, where that lives and for how long
    converter: str = ""  # "module.function" that knows a published layout, for `vidgen convert`: see convert.py
    excludes: Mapping[str, str] = field(default_factory=dict)  # method that it cannot run with -> why, and the mend
    trial: Mapping[str, Any] = field(default_factory=dict)  # keys that it needs to be tried with on a tiny model
    needs: tuple[str, ...] = ()  # plugins that must be installed beside it
    commands: Mapping[str, str] = field(default_factory=dict)  # verb of <package>/commands/<verb>.py -> what it does
    hook_api: int | None = None  # the HOOK_API_VERSION that it was written for; None is this one


_KINDS: dict[str, tuple[Any, str]] = {
    "str": (str, "a text"),
    "bool": (bool, "True or False"),
    "tuple": (tuple | list, "a tuple of texts"),
    "Mapping": (Mapping, "a dictionary"),
    "int | None": (int | None, "a whole number"),
}
"""Type of a field of a card -> what its value is an instance of, in words."""


def check_name(name: str, taken: Collection[str]) -> None:
    """Raise Unusable for a name that no plugin can have."""
    if name in taken:
        raise Unusable(f"the name '{name}' is a key of vidgen's own configuration; the plugin needs another")
    if not re.fullmatch(r"[A-Za-z][\w-]*", name):
        raise Unusable(f"the name '{name}' is not made of letters, digits, - and _")


def check_card(name: str, plugin: Plugin, taken: Collection[str]) -> None:
    """Raise Unusable for a plugin that cannot be used under this name, or with this vidgen."""
    check_name(name, taken)
    for part in fields(plugin):
        value, kind = getattr(plugin, part.name), str(part.type).partition("[")[0]
        if kind == "tuple" and isinstance(value, str):
            raise Unusable(f"its card's {part.name}='{value}' is one text; write a tuple, {part.name}=('{value}',)")
        if not isinstance(value, _KINDS[kind][0]):
            raise Unusable(f"its card's {part.name}={value!r} must be {_KINDS[kind][1]}")
    written = HOOK_API_VERSION if plugin.hook_api is None else plugin.hook_api
    if not OLDEST_HOOK_API <= written <= HOOK_API_VERSION:
        mend = "update vidgen" if written > HOOK_API_VERSION else "update the plugin"
        raise Unusable(f"it was written for hook API {written}, this vidgen serves {_served()}; {mend}")
    for key in plugin.reads:
        if key not in READS:
            raise Unusable(f"its card reads '{key}'.{nearest(key, READS)}")
    for verb in plugin.commands:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", verb):
            raise Unusable(f"its command '{verb}' is not made of small letters, digits and _")


def warning_of(name: str, plugin: Plugin) -> str:
    """What to tell of a plugin that was written for an earlier hook API that is still served; else empty."""
    if plugin.hook_api in (None, HOOK_API_VERSION):
        return ""
    return (
        f"The plugin '{name}' was written for hook API {plugin.hook_api}; this vidgen serves {_served()}. It runs, but "
        "a later vidgen may refuse it: look for a newer one."
    )


def _served() -> str:
    return str(HOOK_API_VERSION) if OLDEST_HOOK_API == HOOK_API_VERSION else f"{OLDEST_HOOK_API} to {HOOK_API_VERSION}"


def check_pair(one: str, first: Plugin, other: str, second: Plugin) -> None:
    """Raise Conflict for two methods that cannot run together, as far as their cards tell."""

    def refuse(over: str, why: str) -> None:
        raise Conflict(f"The methods '{one}' and '{other}' cannot be combined: {why}", over)

    told = first.excludes.get(other) or second.excludes.get(one)
    if told:
        refuse("excluded", told)
    if not set(first.families) & set(second.families):
        refuse(
            "model",
            f"'{one}' runs on models of the family {' or '.join(first.families)}, '{other}' on those of "
            f"{' or '.join(second.families)}, and no model is of both. Leave one of them out.",
        )
