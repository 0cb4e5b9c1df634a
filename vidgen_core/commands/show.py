"""vidgen show <method, model, metric ...>    Its paper, hooks, and options with types, defaults and meanings."""

from __future__ import annotations

from collections.abc import Sequence

from vidgen_core.catalog import Option, read_catalog
from vidgen_core.config import Catalog, compose
from vidgen_core.errors import BadRequest, nearest
from vidgen_core.hookspecs import kinds
from vidgen_core.instantiate import instantiate
from vidgen_core.plugin import Found, Plugin, conf_packages, discover

PREFIXES = {"model": "model.", "experiment": "", "metric": "metrics.{}.", "judge": "judge.", "flow": "flow."}
"""Groups whose options can be shown -> what the keys of an option begin with."""


def main(arguments: Sequence[str]) -> int:
    """Print what is known of each name."""
    found = discover()
    catalog = read_catalog(conf_packages(found))
    options = [option for group in PREFIXES for option in catalog.get(group, {}).values()]
    names = [*found, *(option.name for option in options)]
    if not arguments:
        raise BadRequest(f"Say what to show: vidgen show <name>.{nearest('', names)}")
    for name in arguments:
        if name not in names:
            raise BadRequest(f"There is no method, model, plugin or metric '{name}'.{nearest(name, names)}")
        if name in found:
            _show_plugin(found[name], catalog)
        for option in options:
            if option.name == name:
                _show_option(option)
    return 0


def _show_plugin(entry: Found, catalog: Catalog) -> None:
    card = entry.plugin
    if card is None:
        raise BadRequest(
            f"The plugin '{entry.name}' is broken: {entry.error}. `vidgen list --why {entry.name}` shows where."
        )
    print(f"{entry.name}: {card.summary}")
    print(f"  from      {entry.distribution} {entry.version}, package {card.package}")
    if card.paper:
        print(f"  paper     {card.paper}")
    if card.is_method:
        _show_method(entry.name, card, catalog["method"].get(entry.name))
    for group, options in catalog.items():
        brought = [o.name for o in options.values() if o.package == f"{card.package}.conf"]
        if brought and group != "method":
            print(f"  brings    {group}={', '.join(brought)}")


def _show_method(name: str, card: Plugin, option: Option | None) -> None:
    print(f"  models    of the family {', '.join(card.families)}")
    if card.composes_with:
        print(f"  composes  {card.composes_with}")
    if option is None:
        return
    method = instantiate(compose([f"method={name}"]).methods[name])
    hooks = [
        f"{hook} ({kind})" for hook, kind in kinds().items() if hasattr(getattr(method, hook, None), "vidgen_impl")
    ]
    print(f"  hooks     {', '.join(hooks) or 'none'}")
    _show_keys(f"{name}.", option)


def _show_option(option: Option) -> None:
    print(f"{option.group}={option.name}: {option.summary}")
    # What an experiment does not explain is its making, and no option.
    _show_keys(PREFIXES[option.group].format(option.name), option, explained=option.group == "experiment")


def _show_keys(prefix: str, option: Option, explained: bool = False) -> None:
    rows = [
        (f"{prefix}{key}={entry.value}" if entry.value else f"{prefix}{key}", entry.comment)
        for key, entry in option.keys.items()
        if key != "_target_" and (entry.comment or not explained)
    ]
    width = max((len(left) for left, _ in rows), default=0)
    if rows:
        print("  options with their defaults")
    for left, comment in rows:
        print(f"    {left:<{width}}  {comment}".rstrip())
