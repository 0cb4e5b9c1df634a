"""Parity with the published implementations: every case under ``$VIDGEN_GOLDEN`` goes through one adapter per kind."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

DEFAULT = Path(__file__).parents[3] / "shared" / "golden"
ROOT = Path(os.environ.get("VIDGEN_GOLDEN") or DEFAULT)


def cases() -> list[Path]:
    """Every folder with a ``case.json`` below the golden folder, ``<method>/<case>``."""
    return sorted(path.parent for path in ROOT.glob("*/*/case.json"))


def golden() -> ModuleType:
    """The module that draws weights and inputs from their names, beside the cases or beside the default ones."""
    file = next(place for place in (ROOT / "golden.py", DEFAULT / "golden.py") if place.is_file())
    spec = importlib.util.spec_from_file_location("golden_cases", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawn(folder: Path) -> dict[str, Any]:
    """A case with what was ``expected``, its ``weights`` and its input ``tensors``."""
    module = golden()
    case: dict[str, Any] = module.load(folder)
    case["weights"] = module.weights(case["manifest"])
    case["tensors"] = module.inputs(case)
    return case


def layout(name: str) -> dict[str, Any] | None:
    """The names and shapes of a full-size published checkpoint, or None where the layouts are absent."""
    file = ROOT / "layouts" / f"{name}.json.gz"
    return json.loads(gzip.decompress(file.read_bytes())) if file.is_file() else None
