"""vidgen show <method, model, metric ...>    Its paper, hooks, and options with types, defaults and meanings.

vidgen show <method> plugin=<file.py>    The same of the method in a Python file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vidgen_core.card import Plugin, check_pair
from vidgen_core.catalog import Option
from vidgen_core.config import Catalog, compose
from vidgen_core.errors import BadRequest, Conflict, VidgenError, nearest
from vidgen_core.hookspecs import claims_of, kinds, marked
from vidgen_core.instantiate import built_methods
from vidgen_core.overrides import FILES, parse
from vidgen_core.plugin import Found, broken, catalog_of, discover
from vidgen_core.unpackaged import files_of, joined, of_file

PREFIXES = {
    **{group: f"{group}." for group in ("model", "data", "objective", "scheduler", "noise")},
    "experiment": "",
    "metric": "metrics.{}.",
    "judge": "judge.",
    "flow": "flow.",
}
"""Groups whose options can be shown -> what the keys of an option begin with."""


def main(arguments: Sequence[str]) -> int:
    """Print what is known of each name."""
    files = [argument for argument in arguments if argument.startswith(f"{FILES}=")]
    arguments = [argument for argument in arguments if argument not in files]
    found = joined(discover(), map(of_file, files_of(map(parse, files))))
    catalog = catalog_of(found)
    options = [option for group in PREFIXES for option in catalog.get(group, {}).values()]
    names = [*found, *(option.name for option in options)]
    if not arguments:
        raise BadRequest(f"Say what to show: vidgen show <name>.{nearest('', names)}")
    for name in arguments:
        if name not in names:
            raise BadRequest(f"There is no method, model, plugin or metric '{name}'.{nearest(name, names)}")
        if name in found:
            _show_plugin(found[name], found, catalog)
        for option in options:
            if option.name == name:
                _show_option(option)
    return 0


def _show_plugin(entry: Found, found: Mapping[str, Found], catalog: Catalog) -> None:
    card = entry.plugin
    if card is None:
        raise broken(entry)
    print(f"{entry.name}: {card.summary or 'its docstring or card says nothing'}")
    where = entry.distribution if entry.build else f"{entry.distribution} {entry.version}, package {card.package}"
    print(f"  from      {where}")
    if card.paper:
        print(f"  paper     {card.paper}")
    if card.is_method:
        _show_method(entry, card, found, catalog)
    for group, options in catalog.items():
        brought = [o.name for o in options.values() if o.package == f"{card.package}.conf"]
        if brought and group != "method":
            print(f"  brings    {group}={', '.join(brought)}")
    for verb, summary in card.commands.items():
        print(f"  command   vidgen {verb}: {summary}")
    if card.needs:
        print(f"  needs     {', '.join(card.needs)}")


def _show_method(entry: Found, card: Plugin, found: Mapping[str, Found], catalog: Catalog) -> None:
    option = catalog["method"].get(entry.name)
    models = [name for name, model in catalog["model"].items() if model.value("family") in card.families]
    print(f"  models    {', '.join(models) or 'none'} (the family {', '.join(card.families)})")
    if card.remembers:
        print(f"  remembers {card.remembers}")
    if card.composes_with:
        print(f"  composes  {card.composes_with}")
    fitting, conflicts = _others(entry.name, card, found)
    if fitting:
        tries = f"vidgen matrix {entry.name}" + f" {FILES}={entry.distribution}" * bool(entry.build)
        print(f"  fits      {', '.join(fitting)}, as their cards say; `{tries}` tries them")
    if conflicts:
        print(f"  conflicts {', '.join(f'{name} ({over})' for name, over in conflicts.items())}")
    if option is None:
        return
    named = [f"{FILES}={entry.distribution}"] if entry.build else []
    try:
        method = built_methods(compose([f"method={entry.name}", *named]))[entry.name]
        own = [(hook, kind) for hook, kind in kinds().items() if hook in marked(method)]
        print(f"  hooks     {', '.join(f'{hook} ({kind})' for hook, kind in own)}")
        claims = [f"{claim} ({hook})" for hook, _ in own for claim in claims_of(method, hook)]
        if claims:
            print(f"  claims    {', '.join(claims)}: one method of a run can have each, or of a training what trains")
    except VidgenError as error:  # its options can be told all the same
        print(f"  hooks     not to be seen: {error}")
    _show_keys(f"{entry.name}.", option)


def _others(name: str, card: Plugin, found: Mapping[str, Found]) -> tuple[list[str], dict[str, str]]:
    """The other methods: those that it runs with, and those that it cannot run with -> over what; by the cards only."""
    fitting: list[str] = []
    conflicts: dict[str, str] = {}
    for other, entry in found.items():
        if entry.plugin is not None and entry.plugin.is_method and other != name:
            try:
                check_pair(name, card, other, entry.plugin)
                fitting.append(other)
            except Conflict as conflict:
                conflicts[other] = conflict.over
    return fitting, conflicts


def _show_option(option: Option) -> None:
    print(f"{option.group}={option.name}: {option.summary}")
    # What an experiment does not explain is its making, and no option.
    _show_keys(PREFIXES[option.group].format(option.name), option, explained=option.group == "experiment")


def _show_keys(prefix: str, option: Option, explained: bool = False) -> None:
    rows = [
        (f"{prefix}{key}={entry.value}" if entry.value else f"{prefix}{key}", entry.told)
        for key, entry in option.keys.items()
        if key != "_target_" and (entry.comment or not explained)
    ]
    width = max((len(left) for left, _ in rows), default=0)
    if rows:
        print("  options with their defaults")
    for left, told in rows:
        print(f"    {left:<{width}}  {told}".rstrip())
