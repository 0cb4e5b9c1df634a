"""Methods that no package brings: a Python file named by ``plugin=``, an object handed over from Python.

Each becomes an entry beside the installed plugins and is held to the same contract: a card, options with defaults,
hooks. A file's code runs because the user named the file.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from vidgen_core.card import Plugin, check_card
from vidgen_core.errors import BadRequest, Unusable
from vidgen_core.hookspecs import marked
from vidgen_core.overrides import FILES, Override, plain_value
from vidgen_core.plugin import Found, taken_names, with_needs


def files_of(asked: Iterable[Override]) -> list[str]:
    """The files that ``plugin=`` names."""
    return [path for override in asked if override.key == FILES for path in override.value]


def of_file(path: str, hashes: Collection[str] | None = None) -> Found:
    """The method of a Python file: what its function ``build`` returns, else its one class with hooks.

    Its name is that on its card (``plugin = Plugin(...)``), else the file's. Its options are the parameters of the
    function or class, with their defaults. The entry's ``distribution`` is the file, its ``version`` the sha256.

    Args:
        hashes: The sha256 of files that may run, where a record says which; None is any.

    Raises:
        BadRequest: the file is not there, is another, cannot be read or run, or holds no method.
    """
    file = Path(path).expanduser().absolute()
    source = _source(path, file)
    digest = hashlib.sha256(source).hexdigest()
    if hashes is not None and digest not in hashes:
        raise BadRequest(
            f"plugin={path}: the file is not the one that was recorded; it has changed since. Put it back as it was, "
            "say where the old one lies (plugin=path), or write a new command."
        )
    module = _module(path, file, source, digest)
    make = _maker(path, module)
    card = _card(module, f"plugin={path}", file.stem, inspect.getdoc(make), module.__name__)
    return Found(card.name, str(file), digest, card, build=make, options=_options(path, make))


def of_object(method: object) -> Found:
    """The entry of an object with hooks; its name is that on its card (``plugin``), else its own (``name``), else its
    class's, in snake_case.

    Raises BadRequest for what has no hooks.
    """
    kind = type(method)
    if inspect.isclass(method):
        raise BadRequest(f"method={method.__name__}: this is a class. Hand over an object of it: {method.__name__}().")
    if not marked(method):
        raise BadRequest(
            f"method={method}: an object of type {kind.__name__} has no hooks. Give names of methods, or objects of "
            "classes whose hooks are marked with @vidgen_core.hookimpl."
        )
    own = getattr(method, "name", None)
    name = own if isinstance(own, str) else _snake(kind.__name__)
    card = _card(method, f"method={kind.__name__}()", name, inspect.getdoc(kind), kind.__module__)
    return Found(card.name, f"{kind.__module__}.{kind.__qualname__}", "", card, build=lambda: method)


def apart(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[Found]]:
    """Keyword arguments with each object of ``method`` as its name, and the entries of those objects."""
    written = values.get("method")
    if isinstance(written, str | Mapping | None):
        return dict(values), []
    listed = list(written) if isinstance(written, Sequence) else [written]
    entries = [item if isinstance(item, str) else of_object(item) for item in listed]
    names = [entry if isinstance(entry, str) else entry.name for entry in entries]
    return {**values, "method": names}, [entry for entry in entries if isinstance(entry, Found)]


def joined(found: Mapping[str, Found], more: Iterable[Found]) -> dict[str, Found]:
    """The installed plugins and those beside them. Raises BadRequest for a name that cannot be, or is there twice."""
    together, taken = dict(found), taken_names()
    for entry in more:
        other = together.get(entry.name)
        if other is not None and (other.distribution, other.build) != (entry.distribution, entry.build):
            raise BadRequest(
                f"Two plugins have the name '{entry.name}': {entry.distribution} and {other.distribution}. Give one of "
                "them another: rename the file or the class, or write plugin = vidgen_core.Plugin('another_name', "
                "'what it does', __name__) in it."
            )
        assert entry.plugin is not None
        try:
            check_card(entry.name, entry.plugin, taken)
        except Unusable as error:
            raise BadRequest(f"{entry.distribution} cannot be used: {error}.") from error
        together[entry.name] = entry
    for name, entry in with_needs(together).items():
        if entry.plugin is None and together[name].plugin is not None:
            raise BadRequest(f"{entry.distribution} cannot be used: {entry.error}.")
    return together


def refuse_unchosen(files: Iterable[Found], methods: Collection[str]) -> None:
    """Raise BadRequest for a file whose method is not among those that are chosen."""
    for entry in files:
        if entry.name not in methods:
            chosen = f"[{','.join([*methods, entry.name])}]" if methods else entry.name
            raise BadRequest(
                f"{FILES}={entry.distribution} brings the method '{entry.name}', which is not chosen. Choose it: "
                f"method={chosen}."
            )


def hashes_of(files: Iterable[Found]) -> dict[str, str] | None:
    """File -> sha256, for the record: a replay runs only the very same files."""
    return {entry.distribution: entry.version for entry in files} or None


def put_options(tree: Any, found: Mapping[str, Found], methods: Iterable[str]) -> None:
    """The options of the chosen methods that no package brings, in the composed tree.

    ``_target_`` records what they are; they are built by their entries.
    """
    from omegaconf import OmegaConf

    for name in methods:
        if found[name].build is not None:
            options = {"_target_": found[name].distribution, **found[name].options}
            OmegaConf.update(tree, f"methods.{name}", options, force_add=True)


# ------------------------------------------------------------------------------------------------ a file


def _source(path: str, file: Path) -> bytes:
    if file.is_dir():
        raise BadRequest(f"plugin={path} is a folder. Name a Python file; a package is installed: pip install {path}.")
    if file.suffix != ".py":
        raise BadRequest(f"plugin={path} is no Python file. Its name must end in .py.")
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise BadRequest(f"plugin={path}: there is no such file.") from error
    except OSError as error:
        raise BadRequest(f"plugin={path} cannot be read: {error.strerror}.") from error


def _module(path: str, file: Path, source: bytes, digest: str) -> ModuleType:
    # Named by its content: the same file is the same module, and one that was changed is another.
    name = f"vidgen_plugin_{digest[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    try:
        exec(compile(source, file, "exec"), vars(module))
    except BaseException as error:  # a file may fail in any way
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        if isinstance(error, SyntaxError) and error.filename == str(file):
            raise BadRequest(f"plugin={path} is no Python: line {error.lineno}: {error.msg}.") from error
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        where = f" in its line {lines[-1]}" if lines else ""
        beside = " It sees no files beside it; several belong in a package." * isinstance(error, ImportError)
        raise BadRequest(f"plugin={path} fails{where}: {type(error).__name__}: {error}.{beside}") from error
    return module


def _maker(path: str, module: ModuleType) -> Callable[..., object]:
    """The function or class that makes the method of a file."""
    own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
    build = getattr(module, "build", None)
    if inspect.isfunction(build) and build in own:
        return build
    classes = [value for value in own if inspect.isclass(value) and marked(value)]
    methods = [kind for kind in classes if not any(issubclass(c, kind) and c is not kind for c in classes)]
    if len(methods) == 1:
        return methods[0]
    if methods:
        names = ", ".join(kind.__name__ for kind in methods)
        raise BadRequest(f"plugin={path} holds several methods: {names}. Keep one, or write a function build(...).")
    raise BadRequest(
        f"plugin={path} holds no method: a class whose hooks are marked with @vidgen_core.hookimpl, or a function "
        "build(...) that makes an object with some."
    )


def _options(path: str, make: Callable[..., object]) -> dict[str, Any]:
    """The parameters of a method with their defaults, as plain data."""
    options = {}
    for parameter in inspect.signature(make).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.default is parameter.empty:
            raise BadRequest(
                f"plugin={path}: the parameter '{parameter.name}' of {make.__name__} has no default. Parameters are "
                "the method's options; give each a default."
            )
        value = plain_value(f"plugin={path}: {parameter.name}", parameter.default)
        # The default's type is the option's, and 1 is a fine default of a number.
        options[parameter.name] = float(value) if parameter.annotation in (float, "float") else value
    return options


# ------------------------------------------------------------------------------------------------- a card


def _card(holder: object, what: str, name: str, doc: str | None, package: str) -> Plugin:
    card = getattr(holder, "plugin", None)
    if card is None:
        return Plugin(name, (doc or "").partition("\n")[0], package)
    if not isinstance(card, Plugin):
        raise BadRequest(f"{what}: its `plugin` is no card. Write plugin = vidgen_core.Plugin(...).")
    return card


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
