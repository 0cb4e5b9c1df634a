"""Runs that start together never share a folder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vidgen_core.run_folder import choose_folder, claim_folder


def config(folder: Path | None, root: Path) -> dict:
    output = {"dir": folder and str(folder), "root": str(root)}
    return {"output": output, "resume": False, "method": [], "choices": {"model": "tiny"}}


def test_parallel_starts_make_a_folder_each(tmp_path: Path) -> None:
    wanted = config(None, tmp_path / "not" / "there")
    chosen = choose_folder(wanted)
    assert not chosen.parent.exists()  # a request that is refused leaves no folder
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda _: claim_folder(chosen, wanted), range(24)))
    assert len({folder for folder, _ in claimed}) == 24
    assert all(made and folder.is_dir() for folder, made in claimed)


def test_a_named_folder_may_be_there(tmp_path: Path) -> None:
    wanted = config(tmp_path / "run", tmp_path)
    assert claim_folder(choose_folder(wanted), wanted) == (tmp_path / "run", True)
    assert claim_folder(choose_folder(wanted), wanted) == (tmp_path / "run", False)
