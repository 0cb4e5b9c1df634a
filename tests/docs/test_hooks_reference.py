"""The hooks reference tells every hook, in the order of a run, with its kind, its arguments, and who implements it."""

from __future__ import annotations

import inspect
import pkgutil
import re
from functools import cache
from importlib import import_module

from page import ROOT

from vidgen_core import hookspecs
from vidgen_core.plugin import discover

TEXT = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")
HEADING = re.compile(r"^### `(\w+)\((.*)\)` · (\w+)$", re.MULTILINE)


def arguments(hook: str) -> list[str]:
    return list(inspect.signature(getattr(hookspecs, hook)).parameters)


def sections() -> dict[str, str]:
    """Hook -> what the page says of it."""
    found = list(HEADING.finditer(TEXT))
    ends = [match.start() for match in found[1:]] + [len(TEXT)]
    return {match[1]: TEXT[match.end() : end] for match, end in zip(found, ends, strict=True)}


def test_every_hook_stands_there_in_order_with_its_kind_and_its_arguments() -> None:
    wanted = [(hook, ", ".join(arguments(hook)), kind) for hook, kind in hookspecs.kinds().items()]
    assert HEADING.findall(TEXT) == wanted


def test_every_argument_is_explained() -> None:
    explained = re.findall(r"^\| `(\w+)` \|", TEXT.partition("## Once")[0], re.MULTILINE)
    assert sorted(explained) == sorted({name for hook in hookspecs.kinds() for name in arguments(hook)})


def test_every_hook_says_what_happens_where_nobody_implements_it() -> None:
    assert [hook for hook, said in sections().items() if "\nDefault: " not in said] == []


def test_the_bundled_methods_that_are_named_implement_the_hook() -> None:
    said = {hook: text.partition("\nBundled: ")[2].partition("\n\n")[0] for hook, text in sections().items()}
    named = {hook: set(re.findall(r"`(\w+)`", line)) & discover().keys() for hook, line in said.items()}
    assert {hook: names - implementers(hook) for hook, names in named.items() if names - implementers(hook)} == {}
    assert [hook for hook, names in named.items() if implementers(hook) and not names] == []


def implementers(hook: str) -> set[str]:
    """Installed plugins with a class that has the hook."""
    return {name for name in discover() if any(hasattr(getattr(k, hook, None), "vidgen_impl") for k in classes(name))}


@cache
def classes(plugin: str) -> list[type]:
    """Every class of a plugin's package."""
    card = discover()[plugin].plugin
    assert card is not None
    package = import_module(card.package)
    modules = [import_module(m.name) for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    found = [value for module in modules for value in vars(module).values() if inspect.isclass(value)]
    return [kind for kind in found if kind.__module__.startswith(f"{package.__name__}.")]
