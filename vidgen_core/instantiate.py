"""Objects from configuration: ``_target_`` names a function or class of vidgen or of a plugin, no other."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from vidgen_core.errors import BadRequest, VidgenError, nearest
from vidgen_core.plugin import discover

FACTS = ("_target_", "family", "request_defaults", "method_defaults", "example_prompt", "weights")
"""Keys that tell the house about an object; they are not handed to it."""


def instantiate(config: Mapping[str, Any], **extra: Any) -> Any:
    """Call ``config["_target_"]`` with its other keys and ``extra`` as keyword arguments; parts are built first.

    Raises:
        BadRequest: the target is outside vidgen and the plugins, or takes no such key.
        VidgenError: the target's module fails to import.
    """
    target = _locate(str(config.get("_target_")))
    keywords = {key: _part(value) for key, value in config.items() if key not in FACTS} | extra
    parameters = inspect.signature(target).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in keywords:
            if key not in parameters:
                raise BadRequest(f"'{config['_target_']}' takes no key '{key}'.{nearest(key, parameters)}")
    missing = [
        n for n, p in parameters.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD and n not in keywords
    ]
    if missing:
        raise BadRequest(f"'{config['_target_']}' needs the key '{missing[0]}', which the configuration does not give.")
    return target(**keywords)


def _part(value: Any) -> Any:
    return instantiate(value) if isinstance(value, Mapping) and "_target_" in value else value


def _locate(path: str) -> Any:
    module, _, name = path.rpartition(".")
    if not _allowed(module):
        raise BadRequest(
            f"_target_: '{path}' is refused: it must lie in vidgen_core or in an installed plugin's package."
        )
    try:
        target = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # a plugin's module may fail in any way
        raise VidgenError(f"'{path}' cannot be loaded: {type(error).__name__}: {error}") from error
    if not callable(target):
        raise BadRequest(f"_target_: '{module}' has no function or class '{name}'.")
    if not _allowed(getattr(target, "__module__", "")):
        raise BadRequest(f"_target_: '{path}' is refused: '{name}' is only imported there.")
    return target


def _allowed(module: str) -> bool:
    def within(package: str) -> bool:
        return module == package or module.startswith(f"{package}.")

    if within("vidgen_core"):
        return True
    return any(within(found.plugin.package) for found in discover().values() if found.plugin is not None)
