"""How installed plugins are found without importing anything heavy, and what they bring; see ``card.py``."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Collection, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vidgen_core.card import Plugin, check_card, check_name
from vidgen_core.catalog import CORE_CONF, Option, read_catalog, read_options
from vidgen_core.commands import VERBS
from vidgen_core.errors import BadRequest, Unusable, nearest

GROUP = "vidgen"
"""The entry-point group; each entry names a light module that holds ``plugin = Plugin(...)``."""

HOUSE = ("core", "hydra", "method", "methods", "progress", "collector", "on_step")
"""Names that the core uses beside its keys and groups, so that no plugin can have them."""

CIRCLE = "plugins need each other in a circle"


@dataclass(frozen=True)
class Found:
    """One entry of the group: a working plugin, or a broken one with its reason; or a method that no package brings."""

    name: str
    distribution: str
    version: str
    plugin: Plugin | None
    error: str = ""  # one line
    traceback: str = ""
    build: Callable[..., object] | None = None  # makes the method that no package brings: see unpackaged.py
    options: Mapping[str, Any] = field(default_factory=dict)  # what it is called with: key -> default


def discover() -> dict[str, Found]:
    """Every installed plugin by name. One that cannot be used is listed as broken; the others work."""
    found: dict[str, Found] = {}
    taken, brought = taken_names(), Brought()
    # Our own first, so that no name of theirs is taken from them.
    entries = {entry: _distribution(entry) for entry in entry_points(group=GROUP)}
    for entry in sorted(entries, key=lambda e: (entries[e][0] != "vidgen", e.name)):
        try:
            _check_alone(entry, entries)
            card = _card(entry, taken)
            brought.take(entry.name, card)
            found[entry.name] = Found(entry.name, *entries[entry], card)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # any plugin may fail in any way; it must not take the others down
            reason = str(error)
            if not isinstance(error, Unusable):
                reason = f"{type(error).__name__}: {error}; mend or reinstall it"
            line = " ".join(reason.split())
            found[entry.name] = Found(entry.name, *entries[entry], None, line, traceback.format_exc())
    return with_needs(dict(sorted(found.items())))


def _distribution(entry: EntryPoint) -> tuple[str, str]:
    """Name and version of the distribution that brings an entry."""
    return (entry.dist.name, entry.dist.version) if entry.dist else ("?", "?")


class Brought:
    """Who brings which option, such as ``model=tiny``, and which command: each is one plugin's or the core's."""

    def __init__(self) -> None:
        self._owners = {("command", verb): ("vidgen", "") for verb in VERBS}
        self._owners |= {(option.group, option.name): ("vidgen", "") for option in read_options(CORE_CONF)}

    def take(self, name: str, card: Plugin) -> None:
        """Note what a plugin brings. Raises Unusable for what another has, or what is no configuration."""
        options = read_options(f"{card.package}.conf") if _carries_conf(card.package) else ()
        wanted = [("command", verb) for verb in card.commands]
        for option in options:
            _check_yaml(option)
            wanted.append((option.group, option.name))
        for what in wanted:
            owner, package = self._owners.get(what, (name, card.package))
            if package != card.package:  # one package may hold several plugins
                raise Unusable(f"it brings {'='.join(what)}, which '{owner}' brings already; give it another name")
        if card.is_method and ("method", name) not in wanted:
            raise Unusable(f"it brings no conf/method/{name}.yaml; one that is no method says is_method=False")
        self._owners |= dict.fromkeys(wanted, (name, card.package))


def with_needs(found: Mapping[str, Found]) -> dict[str, Found]:
    """The plugins, those as broken that need one which is not there, is broken, or needs them in turn."""
    together = dict(found)
    for name in found:
        reason = _unmet(name, together, ())
        if reason:
            together[name] = replace(together[name], plugin=None, error=reason)
    return together


def _unmet(name: str, found: Mapping[str, Found], asking: tuple[str, ...]) -> str:
    """Why a plugin's needs are not met; empty where they are."""
    card = found[name].plugin
    for needed in card.needs if card else ():
        if needed in (name, *asking):
            circle = " needs ".join(f"'{each}'" for each in (*asking, name, needed))
            return f"{CIRCLE}: {circle}; one of them must do without, or they are one plugin"
        if needed not in found:
            return f"it needs the plugin '{needed}', which is not installed; install it"
        reason = found[needed].error or _unmet(needed, found, (*asking, name))
        if reason:
            in_circle = reason.startswith(CIRCLE) and f"'{name}'" in reason
            return reason if in_circle else f"it needs the plugin '{needed}', which is broken: {reason}"
    return ""


def taken_names() -> set[str]:
    """Names that no plugin can have: keys and groups of the core, and what it uses beside them."""
    core = read_catalog([])
    return {*HOUSE, *core, *(key.partition(".")[0] for key in core[""]["config"].keys)}


def _check_alone(entry: EntryPoint, entries: Mapping[EntryPoint, tuple[str, str]]) -> None:
    same = {other.value: of for other, (of, _) in entries.items() if other.name == entry.name}
    if len(same) > 1:
        each = " and ".join(f"'{module}' of {of}" for module, of in same.items())
        theirs = " or ".join(sorted({of for of in same.values() if of != "vidgen"}))
        raise Unusable(f"two plugins have this name, {each}; uninstall {theirs}, or have it choose another name")


def _card(entry: EntryPoint, taken: Collection[str]) -> Plugin:
    """The card of an entry point whose plugin can be used; any exception is the reason why it cannot."""
    check_name(entry.name, taken)
    with redirect_stdout(sys.stderr):  # what it prints on import is no part of what a command answers
        plugin = getattr(entry.load(), "plugin", None)
    if not isinstance(plugin, Plugin):
        raise Unusable(f"module '{entry.value}' has no `plugin = vidgen_core.Plugin(...)`")
    check_card(entry.name, plugin, taken)
    if find_spec(plugin.package) is None:
        raise Unusable(f"its package '{plugin.package}' is not there")
    return plugin


def _check_yaml(option: Option) -> None:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is several times as fast, where it is there
    try:
        tree = yaml.load(option.text, loader)
    except yaml.YAMLError as error:
        raise Unusable(f"conf/{option.group}/{option.name}.yaml is no YAML: {error}") from error
    if not isinstance(tree, dict | None):
        raise Unusable(f"conf/{option.group}/{option.name}.yaml holds no keys")
    head = f"# @package methods.{option.name}"
    if option.group == "method" and not option.text.startswith(f"{head}\n"):
        raise Unusable(f"conf/method/{option.name}.yaml must begin with the line '{head}'")


def broken(entry: Found) -> BadRequest:
    """What is told of a broken plugin that is asked for."""
    return BadRequest(
        f"The plugin '{entry.name}' ({entry.distribution}) is installed but broken: {entry.error}. `vidgen list --why "
        f"{entry.name}` shows where; the other plugins work."
    )


def method_plugin(name: str, found: dict[str, Found]) -> Plugin:
    """The card of the method ``name``. Raises BadRequest for an unknown or broken one."""
    if name not in found:
        methods = [n for n, f in found.items() if f.plugin is not None and f.plugin.is_method]
        raise BadRequest(f"There is no method '{name}'.{nearest(name, methods)}")
    plugin = found[name].plugin
    if plugin is None:
        raise broken(found[name])
    if not plugin.is_method:
        raise BadRequest(f"'{name}' is a plugin but not a method; it cannot be chosen with method=.")
    return plugin


def conf_packages(found: Mapping[str, Found]) -> list[str]:
    """The ``<package>.conf`` of every working plugin that carries one, for Hydra's search path."""
    cards = [f.plugin for f in found.values() if f.plugin is not None and f.build is None]
    return [f"{card.package}.conf" for card in cards if _carries_conf(card.package)]


def commands_of(found: Mapping[str, Found]) -> dict[str, tuple[str, str]]:
    """Verb -> (package, what it does), of all working plugins."""
    cards = [entry.plugin for entry in found.values() if entry.plugin is not None and entry.build is None]
    return {verb: (card.package, summary) for card in cards for verb, summary in card.commands.items()}


def catalog_of(found: Mapping[str, Found]) -> dict[str, dict[str, Option]]:
    """Every configuration file of the core and the working plugins; options of a method without one, as if it had."""
    catalog = read_catalog(conf_packages(found))
    for name, entry in found.items():
        if entry.build is not None:
            lines = [f"# @package methods.{name}", *(f"{key}: {json.dumps(v)}" for key, v in entry.options.items())]
            option = Option("method", name, entry.distribution, "".join(f"{line}\n" for line in lines))
            catalog.setdefault("method", {})[name] = option
    return catalog


def _carries_conf(package: str) -> bool:
    spec = find_spec(package)
    roots = (spec and spec.submodule_search_locations) or ()
    return any((Path(root) / "conf").is_dir() for root in roots)
