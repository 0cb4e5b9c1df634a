"""Which folder a run writes to: a new one, one that the user names, or one with an unfinished run to go on with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from vidgen_core import provenance
from vidgen_core.errors import BadRequest

FREE = (
    *("output", "resume", "trace", "debug", "given", "choices"),
    *("placement.device", "placement.offload", "placement.vae_slice", "placement.feed_forward_chunks"),
    *("placement.guidance", "placement.channels_last", "placement.compile"),
    *(f"trainer.{key}" for key in ("workers", "log_every", "trackers", "checkpoint_every", "keep", "export")),
    *(f"trainer.{key}" for key in ("mixed_precision", "cache", "cache_dir", "batch_size", "accumulation")),
    *(f"trainer.{key}" for key in ("export_dtype", "sample_every", "gradient_checkpointing")),
    *(f"trainer.{key}" for key in ("nonfinite_limit", "processes")),
)
"""Keys of a configuration that may differ when a run is resumed, so that one that ran out of memory can go on."""

BOUND = ("output.crf",)
"""Keys among them that may not: packets of two qualities cannot share the header of one file."""

LOCK = ".lock"
"""What a training holds while it writes to its folder; it stays there, empty."""


def choose_folder(config: Mapping[str, Any]) -> Path:
    """``output.dir``, or a folder under ``output.root`` that is not there yet, named by time and methods.

    Raises BadRequest for a resume that names no folder.
    """
    options = config["output"]
    if options["dir"]:
        return Path(options["dir"]).expanduser()
    if config["resume"]:
        raise BadRequest("resume=true needs the folder of the unfinished run: output.dir=...")
    what = "+".join(config["method"]) or config["choices"]["model"]
    first = Path(options["root"]).expanduser() / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{what}"
    return next(name for name in _names(first) if not name.exists())


def claim_folder(folder: Path, config: Mapping[str, Any]) -> tuple[Path, bool]:
    """Make the folder that ``choose_folder`` chose; returns it and whether this process made it.

    A folder that the user named may be there. A new one is made by this process alone: where another run took the name
    in between, the next free one is made.
    """
    if config["output"]["dir"]:
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        return folder, made
    folder.parent.mkdir(parents=True, exist_ok=True)
    for name in _names(folder):
        try:
            name.mkdir()
        except FileExistsError:
            continue
        return name, True
    raise FileExistsError(f"no name is free beside '{folder}'")


def _names(first: Path) -> Iterator[Path]:
    yield first
    for i in range(2, 10_000):
        yield first.with_name(f"{first.name}-{i}")


def is_resumed(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether the folder holds a run to go on with; raises BadRequest for one that must not be touched."""
    found, overwrite = folder / "run.yaml", config["output"]["overwrite"]
    if not found.is_file():
        if config["resume"]:
            raise BadRequest(f"resume=true, but '{folder}' holds no run. Leave resume out to start one there.")
        if folder.is_dir() and any(file.name != LOCK for file in folder.iterdir()) and not overwrite:
            raise BadRequest(f"The folder '{folder}' is not empty. Give another output.dir, or output.overwrite=true.")
        return False
    if config["resume"]:
        before = provenance.read_provenance(found)["config"]
        changed = differences(before, config)
        if changed:
            raise BadRequest(
                f"The run in '{folder}' was started with another {', '.join(changed)}. Repeat its command "
                "with resume=true, or give another output.dir."
            )
        return True
    if not overwrite:
        raise BadRequest(
            f"The folder '{folder}' already holds a run. Give another output.dir, resume=true to go on with it, or "
            "output.overwrite=true."
        )
    return False


def placements_of(folder: Path, config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Stage -> how the run in the folder was placed there, but for the keys that are asked for otherwise now."""
    record = provenance.read_provenance(folder / "run.yaml")
    before, now = record["config"]["placement"], config["placement"]
    chosen = {"base": record.get("placement") or {}, **(record.get("placements") or {})}
    return {
        stage: {key: value for key, value in placement.items() if before.get(key) == now.get(key)}
        for stage, placement in chosen.items()
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The keys, sorted, in which a recorded configuration differs from another so that it makes another video."""
    return sorted(key for key in _changed(before, json.loads(json.dumps(now))) if not _free(key))


def _changed(before: Any, now: Any, key: str = "") -> list[str]:
    """The dotted names of what differs between two configurations."""
    if before == now:
        return []
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        return [key]
    return [
        name
        for part in {**before, **now}
        for name in _changed(before.get(part), now.get(part), f"{key}.{part}" if key else part)
    ]


def _free(key: str) -> bool:
    return key not in BOUND and any(key == free or key.startswith(f"{free}.") for free in FREE)
