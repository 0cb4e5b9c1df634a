"""Objects from configuration: ``_target_`` names a function or class of vidgen or of a plugin, no other."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vidgen_core.errors import BadRequest, VidgenError, nearest
from vidgen_core.hookspecs import marked
from vidgen_core.plugin import Found, discover

if TYPE_CHECKING:
    from vidgen_core.config import Composed

FACTS = (
    *(
        "_target_",
        "family",
        "request_defaults",
        "method_defaults",
        "trainer_defaults",
        "group_defaults",
        "method_paths",
        "method_options",
    ),
    *("example_prompt", "method_prompts", "weights", "weights_of", "untrained", "image_encoder"),
)
"""Keys that tell the house about an object; they are handed only to what takes them by name."""


def instantiate(config: Mapping[str, Any], **extra: Any) -> Any:
    """Call ``config["_target_"]`` with its other keys and ``extra`` as keyword arguments; parts are built first.

    Raises:
        BadRequest: the target is outside vidgen and the plugins, or takes no such key.
        VidgenError: the target's module fails to import.
    """
    return _build(config, extra, _Allowed())


def built_methods(composed: Composed) -> dict[str, Any]:
    """The objects of the chosen methods, in list order. Raises BadRequest for one that cannot be made."""
    return {name: _method(name, composed.found[name], settings) for name, settings in composed.methods.items()}


def _method(name: str, entry: Found, settings: Mapping[str, Any]) -> Any:
    try:
        if entry.build is None:
            method = _build(settings, {}, _Allowed(f"conf/method/{name}.yaml: _target_"))
        else:
            method = entry.build(**{key: settings[key] for key in entry.options})
    except VidgenError:
        raise
    except Exception as error:  # a method may fail in any way
        raise BadRequest(
            f"The method '{name}' cannot be made: {type(error).__name__}: {error}. Add debug=true to see where."
        ) from error
    if not marked(method):
        raise BadRequest(
            f"The method '{name}' has no hooks, so nothing would come of it: '{settings['_target_']}' makes an object "
            f"of type {type(method).__name__}. Mark its hooks with @vidgen_core.hookimpl."
        )
    return method


def _build(config: Mapping[str, Any], extra: Mapping[str, Any], allowed: _Allowed) -> Any:
    def part(value: Any) -> Any:
        return _build(value, {}, allowed) if isinstance(value, Mapping) and "_target_" in value else value

    if config.get("_target_") is None:
        raise BadRequest(f"{allowed.key} is missing. It names the class or function that makes the object.")
    target = _locate(str(config["_target_"]), allowed)
    parameters = inspect.signature(target).parameters
    keywords = {key: part(value) for key, value in config.items() if key not in FACTS or key in parameters}
    keywords |= extra
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


def named(path: str, key: str) -> Any:
    """The class or function of vidgen or a plugin that the value of a key names. Raises as ``instantiate``."""
    return _locate(path, _Allowed(key))


def _locate(path: str, allowed: _Allowed) -> Any:
    module, _, name = path.rpartition(".")
    if module not in allowed:
        raise BadRequest(
            f"{allowed.key}: '{path}' is refused: it must lie in vidgen_core or in an installed plugin's package. A "
            "configuration is data, and may name no other code."
        )
    try:
        target = getattr(importlib.import_module(module), name, None)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin's module may fail in any way
        raise VidgenError(f"'{path}' cannot be loaded: {type(error).__name__}: {error}") from error
    if not callable(target):
        raise BadRequest(f"{allowed.key}: '{module}' has no function or class '{name}'.")
    if getattr(target, "__module__", "") not in allowed:
        raise BadRequest(f"{allowed.key}: '{path}' is refused: '{name}' is only imported there.")
    return target


class _Allowed:
    """The modules that a target may come from: ``module in allowed``. Plugins are looked up once, when needed.

    Args:
        key: Where the target is written, for messages.
    """

    def __init__(self, key: str = "_target_") -> None:
        self.key = key

    def __contains__(self, module: str) -> bool:
        def within(package: str) -> bool:
            return module == package or module.startswith(f"{package}.")

        return within("vidgen_core") or any(map(within, self.plugins))

    @cached_property
    def plugins(self) -> list[str]:
        return [found.plugin.package for found in discover().values() if found.plugin is not None]
