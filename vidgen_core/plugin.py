"""What a plugin says of itself, and how installed plugins are found without importing anything heavy."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec

from vidgen_core.errors import BadRequest, nearest
from vidgen_core.hookspecs import HOOK_API_VERSION

GROUP = "vidgen"
"""The entry-point group; each entry names a light module that holds ``plugin = Plugin(...)``."""


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
    composes_with: str = ""  # one sentence for `vidgen show`
    hook_api: int = HOOK_API_VERSION


@dataclass(frozen=True)
class Found:
    """One entry of the group: a working plugin, or a broken one with its reason."""

    name: str
    distribution: str
    version: str
    plugin: Plugin | None
    error: str = ""  # one line
    traceback: str = ""


def discover() -> dict[str, Found]:
    """Every installed plugin by name. One that fails to import is listed as broken; the others work."""
    found: dict[str, Found] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name):
        dist = entry.dist.name if entry.dist else "?"
        version = entry.dist.version if entry.dist else "?"
        try:
            plugin = getattr(entry.load(), "plugin", None)
            if not isinstance(plugin, Plugin):
                raise TypeError(f"module '{entry.value}' has no `plugin = vidgen_core.Plugin(...)`")
            if plugin.hook_api != HOOK_API_VERSION:
                raise TypeError(
                    f"it was written for hook API {plugin.hook_api}, this is {HOOK_API_VERSION}; update the plugin"
                )
            found[entry.name] = Found(entry.name, dist, version, plugin)
        except Exception as error:  # any plugin may fail in any way; it must not take the others down
            line = f"{type(error).__name__}: {error}"
            found[entry.name] = Found(entry.name, dist, version, None, line, traceback.format_exc())
    return found


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


def conf_packages(found: dict[str, Found]) -> list[str]:
    """The ``<package>.conf`` of every working plugin that carries one, for Hydra's search path."""
    cards = [f.plugin for f in found.values() if f.plugin is not None]
    return [f"{card.package}.conf" for card in cards if _carries_conf(card.package)]


def _carries_conf(package: str) -> bool:
    spec = find_spec(package)
    roots = spec.submodule_search_locations if spec else None
    from pathlib import Path

    return any((Path(root) / "conf").is_dir() for root in roots or [])
