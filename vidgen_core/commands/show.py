"""vidgen show <method, model or plugin>    Its paper, hooks, and options with types, defaults and meanings."""

from __future__ import annotations

from collections.abc import Sequence

from vidgen_core.catalog import Option, read_catalog
from vidgen_core.config import Catalog, compose
from vidgen_core.errors import BadRequest, nearest
from vidgen_core.hookspecs import kinds
from vidgen_core.instantiate import instantiate
from vidgen_core.plugin import Found, Plugin, conf_packages, discover


def main(arguments: Sequence[str]) -> int:
    """Print what is known of each name."""
    found = discover()
    catalog = read_catalog(conf_packages(found))
    names = [*found, *catalog["model"]]
    if not arguments:
        raise BadRequest(f"Say what to show: vidgen show <name>.{nearest('', names)}")
    for name in arguments:
        if name not in names:
            raise BadRequest(f"There is no method, model or plugin '{name}'.{nearest(name, names)}")
        if name in found:
            _show_plugin(found[name], catalog)
        if name in catalog["model"]:
            _show_model(catalog["model"][name])
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


def _show_model(option: Option) -> None:
    print(f"model={option.name}: {option.summary}")
    _show_keys("model.", option)


def _show_keys(prefix: str, option: Option) -> None:
    rows = [
        (f"{prefix}{key}={entry.value}" if entry.value else f"{prefix}{key}", entry.comment)
        for key, entry in option.keys.items()
        if key != "_target_"
    ]
    width = max((len(left) for left, _ in rows), default=0)
    if rows:
        print("  options with their defaults")
    for left, comment in rows:
        print(f"    {left:<{width}}  {comment}".rstrip())
