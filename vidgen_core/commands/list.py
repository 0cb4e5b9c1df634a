"""vidgen list    The methods, models, experiments, metrics, judges ... that are installed, and plugins that are broken.

vidgen list --why <plugin>    The traceback of a broken plugin.
"""

from __future__ import annotations

from collections.abc import Sequence

from vidgen_core.errors import BadRequest, nearest
from vidgen_core.plugin import catalog_of, commands_of, discover

GROUPS = {
    "Models": "model",
    "Data": "data",
    "Objectives": "objective",
    "Schedulers": "scheduler",
    "Noise": "noise",
    "Experiments": "experiment",
    "Metrics": "metric",
    "Judges": "judge",
    "Optical flow": "flow",
}
"""Title of a table -> the group of configuration files that it lists."""


def main(arguments: Sequence[str]) -> int:
    """Print the tables; imports nothing heavy."""
    found = discover()
    if arguments:
        if arguments[0] != "--why" or len(arguments) != 2:
            raise BadRequest("Write `vidgen list`, or `vidgen list --why <plugin>` for a broken plugin's traceback.")
        name = arguments[1]
        if name not in found:
            raise BadRequest(f"There is no plugin '{name}'.{nearest(name, found)}")
        print(found[name].traceback or found[name].error or f"The plugin '{name}' is not broken.")
        return 0
    working = [entry for entry in found.values() if entry.plugin is not None]
    tables = ("Methods", *GROUPS, "Commands", "Other plugins", "Broken plugins")
    rows: dict[str, list[tuple[str, str]]] = {title: [] for title in tables}
    for entry in working:
        assert entry.plugin is not None
        paper = f"\n{entry.plugin.paper}" if entry.plugin.paper else ""
        kind = "Methods" if entry.plugin.is_method else "Other plugins"
        rows[kind].append((entry.name, entry.plugin.summary + paper))
    catalog = catalog_of(found)
    for title, group in GROUPS.items():
        rows[title] = [(name, option.summary) for name, option in catalog.get(group, {}).items() if name != "none"]
    rows["Commands"] = [(verb, summary) for verb, (_, summary) in commands_of(found).items()]
    rows["Broken plugins"] = [
        (entry.name, f"{entry.error.splitlines()[0]}\n`vidgen list --why {entry.name}` shows where")
        for entry in found.values()
        if entry.plugin is None
    ]
    width = max(len(name) for table in rows.values() for name, _ in table)
    for title, table in rows.items():
        if table:
            print(title)
            for name, text in table:
                print(f"  {name:<{width}}  " + text.replace("\n", "\n" + " " * (width + 4)))
    return 0
