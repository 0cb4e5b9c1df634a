"""How a video was made: the record in ``run.yaml`` and inside the mp4, from which it can be made again."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from vidgen_core.errors import BadRequest

PACKAGES = ("vidgen", "torch", "diffusers", "transformers")

command_line: ContextVar[Sequence[str] | None] = ContextVar("command_line", default=None)
"""The arguments of the ``vidgen`` command that is running; None where a Python program calls."""


def record(config: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a run: its command line, resolved configuration, versions, and what was found out (hashes)."""
    versions = {name: metadata.version(name) for name in PACKAGES if _installed(name)}
    versions["python"] = platform.python_version()
    command = command_line.get()
    return {"command": command and list(command), "config": dict(config), "versions": versions, **more}


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Write a record so that any prompt comes back as it was: plain data, no tags."""
    text = yaml.safe_dump(json.loads(json.dumps(content)), sort_keys=False, allow_unicode=True, width=100)
    part = path.with_suffix(".part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def read_provenance(path: Path) -> dict[str, Any]:
    """The record in a ``run.yaml`` or inside a video that vidgen wrote.

    Raises BadRequest for a file that holds none.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text("utf-8")) if path.suffix in (".yaml", ".yml") else _comment(path)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadRequest(f"'{path}' cannot be read: {error}") from error
    if not isinstance(content, dict) or "config" not in content:
        raise BadRequest(f"'{path}' holds no record of a vidgen run. Only files that vidgen wrote can be replayed.")
    return content


def record_of(video: Path) -> Path:
    """The file that holds a video's record, if any does: ``run.yaml`` beside it or a folder above, else itself."""
    beside = [place / "run.yaml" for place in (video.parent, video.parent.parent)]
    return next((place for place in beside if place.is_file()), video)


def _comment(path: Path) -> Any:
    import av

    try:
        with av.open(str(path)) as container:
            return json.loads(container.metadata.get("comment", "null"))
    except av.FFmpegError as error:
        raise ValueError(f"it is no video ({error})") from error


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
