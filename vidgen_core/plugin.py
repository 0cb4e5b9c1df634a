"""What a plugin says of itself, and how installed plugins are found without importing anything heavy."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vidgen_core.catalog import CORE_CONF, Option, read_catalog, read_options
from vidgen_core.commands import VERBS
from vidgen_core.errors import BadRequest, Conflict, nearest
from vidgen_core.hookspecs import HOOK_API_VERSION, OLDEST_HOOK_API, kinds

GROUP = "vidgen"
"""The entry-point group; each entry names a light module that holds ``plugin = Plugin(...)``."""

READS = ("image", "video", "tuned", "weights")
"""Request keys that do something only where a chosen method reads them."""

HOUSE = ("core", "hydra", "method", "methods", "progress", "collector", "on_step")
"""Names that the core uses beside its keys and groups, so that no plugin can have them."""

CIRCLE = "plugins need each other in a circle"


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
    composes_with: str = ""  # one sentence for `vidgen show`
    remembers: str = ""  # what of a video the method remembers, where that lives and for how long
    converter: str = ""  # "module.function" that knows a published layout, for `vidgen convert`: see convert.py
    excludes: Mapping[str, str] = field(default_factory=dict)  # method that it cannot run with -> why, and the mend
    claims: tuple[str, ...] = ()  # what only one method can have, as <hook>.<what>: ("condition.text",)
    trial: Mapping[str, Any] = field(default_factory=dict)  # keys that it needs to be tried with on a tiny model
    needs: tuple[str, ...] = ()  # plugins that must be installed beside it
    commands: Mapping[str, str] = field(default_factory=dict)  # verb of <package>/commands/<verb>.py -> what it does
    hook_api: int | None = None  # the HOOK_API_VERSION that it was written for; None is this one


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
        except (Exception, SystemExit) as error:  # any plugin may fail in any way; it must not take the others down
            line = " ".join(f"{type(error).__name__}: {error}".split())
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
        """Note what a plugin brings. Raises ValueError for what another has, or what is no configuration."""
        options = read_options(f"{card.package}.conf") if _carries_conf(card.package) else ()
        wanted = [("command", verb) for verb in card.commands]
        for option in options:
            _check_yaml(option)
            wanted.append((option.group, option.name))
        for what in wanted:
            owner, package = self._owners.get(what, (name, card.package))
            if package != card.package:  # one package may hold several plugins
                raise ValueError(f"it brings {'='.join(what)}, which '{owner}' brings already; give it another name")
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


def check_name(name: str, taken: Collection[str]) -> None:
    """Raise ValueError for a name that no plugin can have."""
    if name in taken:
        raise ValueError(f"the name '{name}' is a key of vidgen's own configuration; the plugin needs another")
    if not re.fullmatch(r"[A-Za-z][\w-]*", name):
        raise ValueError(f"the name '{name}' is not made of letters, digits, - and _")


def check_card(name: str, plugin: Plugin, taken: Collection[str]) -> None:
    """Raise ValueError or TypeError for a plugin that cannot be used under this name, or with this vidgen."""
    check_name(name, taken)
    written = HOOK_API_VERSION if plugin.hook_api is None else plugin.hook_api
    if not OLDEST_HOOK_API <= written <= HOOK_API_VERSION:
        mend = "update vidgen" if written > HOOK_API_VERSION else "update the plugin"
        raise TypeError(f"it was written for hook API {written}, this vidgen serves {_served()}; {mend}")
    for part in ("families", "reads", "claims", "needs"):
        value = getattr(plugin, part)
        if isinstance(value, str):
            raise TypeError(f"its card's {part}='{value}' is one text, not a tuple of them: write {part}=('{value}',)")
    for key in plugin.reads:
        if key not in READS:
            raise ValueError(f"its card reads '{key}'.{nearest(key, READS)}")
    for verb in plugin.commands:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", verb):
            raise ValueError(f"its command '{verb}' is not made of small letters, digits and _")
    for claim in plugin.claims:
        hook, _, what = claim.partition(".")
        if hook not in kinds() or not what:
            raise ValueError(f"its card claims '{claim}', which is not <hook>.<what>.{nearest(hook, kinds())}")


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
    for claim in first.claims:
        if claim in second.claims:
            hook, _, what = claim.partition(".")
            refuse(hook, f"both own '{what}' in their hook '{hook}', which can have one owner. Leave one of them out.")


def _check_alone(entry: EntryPoint, entries: Mapping[EntryPoint, tuple[str, str]]) -> None:
    same = [f"'{e.value}' of {of}" for e, (of, _) in entries.items() if e.name == entry.name]
    if len(same) > 1:
        raise ValueError(f"{len(same)} plugins have the name '{entry.name}': {', '.join(same)}; uninstall all but one")


def _card(entry: EntryPoint, taken: Collection[str]) -> Plugin:
    """The card of an entry point whose plugin can be used; any exception is the reason why it cannot."""
    check_name(entry.name, taken)
    plugin = getattr(entry.load(), "plugin", None)
    if not isinstance(plugin, Plugin):
        raise TypeError(f"module '{entry.value}' has no `plugin = vidgen_core.Plugin(...)`")
    check_card(entry.name, plugin, taken)
    if find_spec(plugin.package) is None:
        raise ModuleNotFoundError(f"its package '{plugin.package}' is not there")
    return plugin


def _check_yaml(option: Option) -> None:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is several times as fast, where it is there
    try:
        tree = yaml.load(option.text, loader)
    except yaml.YAMLError as error:
        raise ValueError(f"conf/{option.group}/{option.name}.yaml is no YAML: {error}") from error
    if not isinstance(tree, dict | None):
        raise ValueError(f"conf/{option.group}/{option.name}.yaml holds no keys")


def method_plugin(name: str, found: dict[str, Found]) -> Plugin:
    """The card of the method ``name``. Raises BadRequest for an unknown or broken one."""
    if name not in found:
        methods = [n for n, f in found.items() if f.plugin is not None and f.plugin.is_method]
        raise BadRequest(f"There is no method '{name}'.{nearest(name, methods)}")
    plugin = found[name].plugin
    if plugin is None:
        raise BadRequest(
            f"The plugin '{name}' ({found[name].distribution}) is installed but broken: {found[name].error}. "
            "Mend or reinstall it; the other plugins work."
        )
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
