"""What the pages name in passing is there: keys, verbs, links, files; and what they must name is named."""

from __future__ import annotations

import dataclasses
import re
from functools import cache
from pathlib import Path

import pytest
from page import PAGES, ROOT, prose

from vidgen_core.card import Plugin
from vidgen_core.catalog import read_catalog
from vidgen_core.cli import VERBS
from vidgen_core.plugin import catalog_of, discover

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)

FILES = (".txt", ".md", ".yaml", ".json")


@cache
def known_keys() -> dict[str, bool]:
    """Every key of every verb, as it is written on a command line -> whether the user names others below it."""
    keys = dict.fromkeys(("stages", "method", "plugin"), False)
    prefixes = {"": "", "experiment": "", "method": "{}.", "metric": "metrics.{}."}
    for group, options in catalog_of(discover()).items():
        keys[group] = False
        for name, option in options.items():
            prefix = prefixes.get(group, f"{group}.").format(name)
            keys |= {f"{prefix}{key}": entry.value == "{}" for key, entry in option.keys.items()}
    return keys


def spans(page: Path) -> list[str]:
    """What stands between backticks in the page's sentences and tables."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def named_keys(span: str) -> list[str]:
    """The keys that a span names: with a value behind them, or alone with dots inside."""
    written = re.findall(r"(?:^|\s)([a-z_]+(?:\.[\w<>]+)*)=", span)
    alone = re.findall(r"^([a-z_]+(?:\.[a-z_]+)+)$", span)
    heads = {key.partition(".")[0] for key in known_keys()}
    return [key for key in (*written, *alone) if key.partition(".")[0] in heads and not key.endswith(FILES)]


@pages
def test_every_key_that_is_named_is_one(page: Path) -> None:
    keys = {key for span in spans(page) if not re.search(r"[({]", span) for key in named_keys(span)}
    free = tuple(f"{key}." for key, others in known_keys().items() if others)
    assert {key for key in keys - known_keys().keys() if not key.startswith(free)} == set()


@pages
def test_every_command_that_is_named_has_a_verb(page: Path) -> None:
    words = {span.split()[1] for span in spans(page) if span.startswith("vidgen ")}
    assert {word for word in words if "=" not in word and word not in (*VERBS, "...", "--help", "--version")} == set()


@pages
def test_every_link_and_every_file_of_the_repository_is_there(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", prose(page))
    files = [span for span in spans(page) if re.fullmatch(r"(vidgen_core|benchmarks|plugins|docs)/[\w/.]*", span)]
    there = [page.parent / link for link in links] + [ROOT / file for file in files]
    assert [str(path) for path in there if not path.exists()] == []


def test_the_readme_leads_to_every_page() -> None:
    readme = PAGES[0].read_text(encoding="utf-8")
    assert [page.name for page in PAGES[1:] if f"(docs/{page.name})" not in readme] == []


@pytest.mark.parametrize(
    ("page", "group", "option"),
    [("training", "trainer", "default"), ("training", "objective", "denoising"), ("cluster", "placement", "auto")],
)
def test_every_key_of_a_group_is_told(page: str, group: str, option: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    keys = [key for key in read_catalog([])[group][option].keys if key != "_target_"]
    assert [key for key in keys if f"{group}.{key}" not in text] == []


def test_every_field_of_a_card_is_told() -> None:
    text = (ROOT / "docs" / "first_method.md").read_text(encoding="utf-8")
    table = "\n".join(line for line in text.splitlines() if line.startswith("| `"))
    assert [field.name for field in dataclasses.fields(Plugin) if f"`{field.name}`" not in table] == []
