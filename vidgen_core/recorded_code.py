"""What a record may name: a record comes with a video of anyone's, and is data, so it brings in no code of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from vidgen_core.catalog import Option
from vidgen_core.errors import BadRequest

_TARGET = re.compile(r"\b_target_:\s*([\w.]+)")


def refuse_other_code(config: Mapping[str, Any], catalog: Mapping[str, Mapping[str, Option]]) -> None:
    """Raise BadRequest for a ``_target_`` of a recorded configuration that no installed file of one names.

    That vidgen or a plugin holds it is not enough: they hold functions that write files and run others.
    """
    installed = {
        target for group in catalog.values() for option in group.values() for target in _TARGET.findall(option.text)
    }
    for key, target in _targets(config):
        if target not in installed:
            raise BadRequest(
                f"{key}={target}: the record names code that no installed configuration names, and is refused. If an "
                "earlier version of vidgen or of a plugin wrote it, install that version, or write a new command."
            )


def _targets(tree: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted place and the value of every ``_target_``."""
    children = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    for name, value in children:
        inside = f"{place}.{name}" if place else str(name)
        if name == "_target_":
            yield inside, value
        yield from _targets(value, inside)
