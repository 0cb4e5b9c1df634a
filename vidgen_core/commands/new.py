"""vidgen new <name> [--family conditioning|attention|sampling|memory|training]    A package with a method of your own.

It works as it is written: once installed, its method makes videos and its tests pass. The family says which hooks it
begins with; conditioning where none is named.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from vidgen_core.card import check_name
from vidgen_core.errors import BadRequest, Unusable, nearest
from vidgen_core.plugin import discover, taken_names

FAMILIES = ("conditioning", "attention", "sampling", "memory", "training")
"""Kinds of methods, each a folder of templates beside those that all have in common."""

PLACES = {
    "card.py": "vidgen_my_method/__init__.py",
    "method.py": "vidgen_my_method/method.py",
    "method.yaml": "vidgen_my_method/conf/method/my_method.yaml",
    "test.py": "tests/test_my_method.py",
    "ci.yml": ".github/workflows/test.yml",
}
"""Template -> its place in the package; the others keep their names."""


def main(arguments: Sequence[str]) -> int:
    """Write the package into a new folder of the method's name, and say what comes next."""
    name, family = read_arguments(arguments)
    folder = Path(name)
    if folder.exists():
        raise BadRequest(f"'{folder}' is there already. Choose another name, or another folder to stand in.")
    files = package_files(name, family)
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    print(f'Next: cd {name}; pip install -e ".[dev]"; pytest; vidgen method={name} model=tiny')
    for path in files:
        print(folder / path)
    return 0


def package_files(name: str, family: str) -> dict[str, str]:
    """Path -> text of every file of a package for the method ``name``."""
    templates = resources.files("vidgen_core") / "templates"
    files = {"vidgen_my_method/conf/__init__.py": ""}
    for part in ("common", family):
        there = [file for file in (templates / part).iterdir() if file.is_file()]
        files |= {PLACES.get(file.name, file.name): file.read_text(encoding="utf-8") for file in there}
    return {_named(path, name): _named(text, name) for path, text in sorted(files.items())}


def _named(text: str, name: str) -> str:
    named = text.replace("my_method", name).replace("my-method", name.replace("_", "-"))
    return named.replace("MyMethod", _class_name(name))


def _class_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def read_arguments(arguments: Sequence[str]) -> tuple[str, str]:
    """The name and the family. Raises BadRequest for a name that no method can have, or an unknown family."""
    words = " ".join(arguments).replace("--family=", "--family ").split()
    family = FAMILIES[0]
    if "--family" in words:
        at = words.index("--family")
        family = " ".join(words[at + 1 : at + 2])
        del words[at : at + 2]
    if len(words) != 1:
        raise BadRequest(f"Say what the method is called: vidgen new my_method [--family {'|'.join(FAMILIES)}].")
    if family not in FAMILIES:
        raise BadRequest(f"--family {family}: there is no such family.{nearest(family, FAMILIES)}")
    (name,) = words
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise BadRequest(f"'{name}' cannot be a method's name. Write small letters, digits and _, as in my_method.")
    kind, template = _class_name(name), resources.files("vidgen_core") / "templates" / family / "method.py"
    # The template's own class is the one that gets the name.
    if re.search(rf"\b{kind}\b", template.read_text(encoding="utf-8").replace("MyMethod", "")):
        raise BadRequest(f"'{name}' cannot be its name: its module has another class '{kind}'. Choose another name.")
    found = discover()
    if name in found:
        raise BadRequest(f"There is a plugin '{name}' already, of {found[name].distribution}. Choose another name.")
    try:
        check_name(name, taken_names())
    except Unusable as error:
        raise BadRequest(f"vidgen new {name}: {error}.") from error
    return name, family
