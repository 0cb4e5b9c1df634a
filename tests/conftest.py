"""What several test folders need."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

Install = Callable[..., None]


@pytest.fixture
def install_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """``install_plugin("name", card, {"conf/method/name.yaml": "..."})``: as pip would, for the time of one test."""
    site = tmp_path / "site"
    site.mkdir()

    def install(name: str, card: str, files: dict[str, str | bytes] | None = None) -> None:
        package = f"third_party_{name}"
        for module in [m for m in sys.modules if m == package or m.startswith(f"{package}.")]:
            monkeypatch.delitem(sys.modules, module)  # of another test
        sources = {"__init__.py": card, **(files or {})}
        if any(path.startswith("conf/") for path in sources):
            sources["conf/__init__.py"] = ""
        for path, text in sources.items():
            file = site / package / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        info = site / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[vidgen]\n{name} = {package}\n")
        monkeypatch.syspath_prepend(str(site))

    return install
