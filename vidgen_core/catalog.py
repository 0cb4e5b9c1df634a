"""Every configuration file that the core and the plugins bring, read as text: names, values and their comments.

No YAML library and no Hydra here: ``vidgen list`` must answer at once. The trailing comment of a key is its
documentation. One that begins with words between bars (``# a | b | c``) lists the values that are allowed, and one that
begins with a kind of number (``# int >= 1``, ``# number, 0 to 1: ...``, ``# int >= 1 or a list of them``) its range.
One that says what ``null is`` allows it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import resources

from vidgen_core.errors import Unusable

CORE_CONF = "vidgen_core.conf"

_LINE = re.compile(r"""^(\s*)([\w.-]+):[ \t]*("[^"]*"|'[^']*'|[^#]*?)[ \t]*(?:(?<=\s)\#\s*(.*))?$""")
_CHOICES = re.compile(r"^([\w.+-]+(?::N)?(?: \| [\w.+-]+(?::N)?)+)(?=$|[;:,] )")
_NUMBERS = re.compile(r"^(int|number)(?: >= (-?[\d.]+)|, (-?[\d.]+) to (-?[\d.]+))?( or a list of them)?(?=$|[;:,])")

_TYPED = r"(int|number|text|path|list|true|false|null|file|frames of)\b"
_KINDS = {
    "true or false": "true|false",
    "int": r"-?\d+",
    "number": r"-?[\d.]+(e[-+]?\d+)?",
    "list": r"\[.*",
    "keys": r"\{.*",
}
"""Type -> how a default of it is written; anything else is a text."""


@dataclass(frozen=True)
class Numbers:
    """Which numbers a key takes."""

    kind: type  # int or float
    low: float = -math.inf
    high: float = math.inf
    listed: bool = False  # a list of such numbers is allowed too


@dataclass(frozen=True)
class Key:
    """One key of a YAML file as it is written there."""

    value: str
    comment: str

    @property
    def choices(self) -> tuple[str, ...]:
        """The only values allowed, or empty; ``:N`` stands for a whole number, as in ``cuda:N``."""
        match = _CHOICES.match(self.comment)
        return tuple(match.group(1).split(" | ")) if match else ()

    @property
    def numbers(self) -> Numbers | None:
        """The numbers allowed; None where the comment does not say."""
        match = _NUMBERS.match(self.comment)
        if match is None:
            return None
        kind, at_least, low, high, listed = match.groups()
        low = at_least or low or -math.inf
        return Numbers(int if kind == "int" else float, float(low), float(high or math.inf), bool(listed))

    @property
    def nullable(self) -> bool:
        """Whether null is a value: it is the default, or the comment says what it means."""
        return self.value == "null" or re.search(r"\bnull is\b", self.comment) is not None

    @property
    def names_files(self) -> bool:
        """Whether values of the key name files or folders, or hold mappings that may."""
        return re.match(r"path|folder|list of mappings", self.comment) is not None

    @property
    def told(self) -> str:
        """What is allowed and what it means: the comment, behind the default's type where it says none."""
        if not self.value or self.choices or self.numbers or re.match(_TYPED, self.comment):
            return self.comment
        kind = next((kind for kind, pattern in _KINDS.items() if re.fullmatch(pattern, self.value)), "text")
        return "; ".join(filter(None, [kind if self.value != "null" else "", self.comment]))


@dataclass(frozen=True)
class Option:
    """One option of a group, as ``model=tiny``: the file ``model/tiny.yaml`` of a ``conf`` package."""

    group: str
    name: str
    package: str
    text: str

    @property
    def summary(self) -> str:
        """The comment at the head of the file."""
        lines: list[str] = []
        for line in self.text.splitlines():
            if not line.startswith("#"):
                break
            if not line.startswith("# @"):
                lines.append(line.lstrip("# "))
        return " ".join(lines)

    @cached_property
    def keys(self) -> dict[str, Key]:
        """Each key by its dotted name inside the file, in order."""
        keys: dict[str, Key] = {}
        parents: list[tuple[int, str]] = []
        for line in self.text.splitlines():
            match = _LINE.match(line)
            if match is None:
                continue
            indent, name, value, comment = len(match.group(1)), match.group(2), match.group(3), match.group(4)
            while parents and parents[-1][0] >= indent:
                parents.pop()
            parents.append((indent, name))
            keys[".".join(part for _, part in parents)] = Key(value.strip("\"'"), comment or "")
        keys.pop("defaults", None)  # Hydra's list of groups is no key
        return keys

    def value(self, key: str) -> str | None:
        """What the file says for a key; None where it is absent or null."""
        found = self.keys.get(key)
        return found.value if found and found.value != "null" else None


def read_catalog(plugin_confs: Iterable[str]) -> dict[str, dict[str, Option]]:
    """Group -> name -> option, over the core's files (group ``""`` holds ``config``) and the plugins'.

    As on Hydra's search path, the first package that brings an option wins.
    """
    catalog: dict[str, dict[str, Option]] = {}
    for package in (CORE_CONF, *plugin_confs):
        for option in read_options(package):
            catalog.setdefault(option.group, {}).setdefault(option.name, option)
    return catalog


def read_options(package: str) -> Iterator[Option]:
    """Every YAML file of one ``conf`` package. Raises Unusable for one that is not UTF-8."""
    for folder in sorted(resources.files(package).iterdir(), key=lambda f: f.name):
        files = sorted(folder.iterdir(), key=lambda f: f.name) if folder.is_dir() else [folder]
        group = folder.name if folder.is_dir() else ""
        for file in files:
            if file.name.endswith(".yaml"):
                try:
                    text = file.read_text(encoding="utf-8")
                except UnicodeDecodeError as error:
                    raise Unusable(f"'{file}' is not UTF-8 text") from error
                yield Option(group, file.name.removesuffix(".yaml"), package, text)
