"""Experiments: recorded commands. ``experiment=<name>`` runs the stages of ``conf/experiment/<name>.yaml`` in order.

A stage holds the keys of one command; ``{other}`` inside a text stands for the folder of another stage. What the user
writes beside ``experiment=`` wins over the file in every stage; ``stages=[a,b]`` picks some.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidgen_core.errors import BadRequest, nearest
from vidgen_core.overrides import parse, spelled_out
from vidgen_core.plugin import catalog_of, discover
from vidgen_core.values import flatten

MARK = "finished.json"


@dataclass(frozen=True)
class Stage:
    """One command of an experiment: ``compose(stage.overrides, stage.values)``."""

    name: str
    overrides: list[str]
    values: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def _record(self) -> str:
        values = {key: value for key, value in self.values.items() if key != "resume"}
        return json.dumps({"overrides": self.overrides, "values": values}, sort_keys=True, default=str)

    @property
    def finished(self) -> bool:
        """Whether the very same stage was finished in its folder."""
        mark = self.folder / MARK if self.folder else None
        return mark is not None and mark.is_file() and mark.read_text() == self._record

    def finish(self) -> None:
        """Note that the stage is done."""
        if self.folder is not None and self.folder.is_dir():
            (self.folder / MARK).write_text(self._record)

    def as_command(self) -> str:
        """The stage as a user would write it."""
        return " ".join([*(f"{key}={value}" for key, value in self.values.items()), *self.overrides])


def stages_of(arguments: Sequence[str], command: str) -> list[Stage]:
    """The commands that the arguments stand for: themselves, or the stages of the experiment that they name.

    Raises BadRequest for an unknown experiment or stage, or one of another command.
    """
    named = [a for a in arguments if a.startswith("experiment=")]
    if not named:
        return [Stage("", list(arguments))]
    name = named[-1].partition("=")[2]
    picked = [a for a in arguments if a.startswith("stages=")]
    rest = [a for a in arguments if a not in (*named, *picked)]
    experiment = read_experiment(name, command)
    stages: Mapping[str, Mapping[str, Any]] = experiment["stages"]
    wanted = parse(picked[-1]).value if picked else list(stages)
    wanted = wanted if isinstance(wanted, list) else [wanted]
    for stage in wanted:
        if stage not in stages:
            raise BadRequest(f"The experiment '{name}' has no stage '{stage}'.{nearest(str(stage), stages)}")
    given = {override.key.removeprefix("methods."): override.raw for override in spelled_out(map(parse, rest))}
    root = Path(given.get("output.dir") or f"{given.get('output.root', 'outputs')}/{name}").expanduser()
    folders = {stage: root / stage for stage in stages}
    rest = [a for a in rest if not a.startswith(("output.dir=", "resume="))]
    made = []
    for stage in stages:
        if stage not in wanted:
            continue
        values = {k: _placed(v, folders) for k, v in flatten(stages[stage]).items() if not isinstance(v, Mapping)}
        values = {key: value for key, value in values.items() if key.removeprefix("methods.") not in given}
        values["output.dir"] = str(folders[stage])
        values["resume"] = (folders[stage] / "run.yaml").is_file()
        made.append(Stage(stage, rest, values, folders[stage]))
    return made


def read_experiment(name: str, command: str) -> dict[str, Any]:
    """The file of an experiment as plain data. Raises BadRequest for one that is not there or of another command."""
    import yaml

    options = catalog_of(discover()).get("experiment", {})
    read = {key: yaml.safe_load(option.text) for key, option in options.items()}
    fitting = [key for key, content in read.items() if content.get("command") == command]
    if name not in read:
        raise BadRequest(f"There is no experiment '{name}'.{nearest(name, fitting)}")
    if name not in fitting:
        raise BadRequest(f"experiment={name} belongs to `vidgen {read[name].get('command')}`, not `vidgen {command}`.")
    content: dict[str, Any] = read[name]
    return content


def _placed(value: Any, folders: Mapping[str, Path]) -> Any:
    if isinstance(value, str):
        for stage, folder in folders.items():
            value = value.replace(f"{{{stage}}}", str(folder))
    return value
