"""vidgen replay <video.mp4 or run.yaml> key=value ...    Repeat a run in a new folder, with some values changed."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from vidgen_core.commands import generate
from vidgen_core.config import RECORD, recompose
from vidgen_core.errors import BadRequest


def main(arguments: Sequence[str]) -> int:
    """Read the record, compose it again and run it."""
    if not arguments or "=" in arguments[0]:
        raise BadRequest("Say what to replay: vidgen replay <video.mp4 or run.yaml>.")
    path = Path(arguments[0])
    if not path.is_file():
        raise BadRequest(f"There is no file '{path}'. Give a video made by vidgen, or the run.yaml beside it.")
    from vidgen_core.provenance import read_provenance

    record = read_provenance(path)
    config = record.get("config")
    if not isinstance(config, Mapping) or any(key not in config for key in RECORD):
        raise BadRequest(f"'{path}' holds no record of a vidgen run. Only files that vidgen wrote can be replayed.")
    for line in changed_versions(record.get("versions") or {}):
        print(line, file=sys.stderr)
    return generate.run(recompose(_again(config, record.get("placement") or {}), arguments[1:]))


def _again(config: Mapping[str, Any], placement: Mapping[str, Any]) -> dict[str, Any]:
    # In a new folder and from the start; with the placement that was chosen then, which free memory may choose
    # otherwise now, and passes of another size round differently.
    output = {**config["output"], "dir": None}
    return {**config, "output": output, "placement": {**config["placement"], **placement}, "resume": False}


def changed_versions(recorded: Mapping[str, str]) -> list[str]:
    """One warning for each package that has another version than in the record."""
    lines = []
    for package, then in recorded.items():
        try:
            now = metadata.version(package)
        except metadata.PackageNotFoundError:
            now = "not installed"
        if now != then and package != "python":
            lines.append(f"Note: {package} was {then} when this was made and is {now}; the frames may differ slightly.")
    return lines
