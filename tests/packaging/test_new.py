"""What `vidgen new` writes is a package that installs, passes its own tests as written, and does what it says."""

from __future__ import annotations

import configparser
import runpy
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from vidgen_core import HOOK_API_VERSION, cli
from vidgen_core.commands.new import FAMILIES, package_files, read_arguments
from vidgen_core.matrix import REFUSED, RUNS, Matrix
from vidgen_core.plugin import discover
from vidgen_core.testing import request, video

CHANGES: dict[str, dict[str, Any]] = {
    "conditioning": {"caption": "a cat sleeps"},
    "attention": {"strength": 1.0},
    "sampling": {"strength": 1.0},
    "memory": {"chunk": 2},
    "training": {},  # before it has learnt, the model is as it was
}
"""Family -> options with which its method makes another video than the plain model."""


def written(folder: Path, family: str) -> Path:
    """The package of a method that is called after its family."""
    for path, text in package_files(f"{family}_idea", family).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_a_package_of_each_family_passes_its_own_tests(family: str, tmp_path: Path, monkeypatch) -> None:
    folder = written(tmp_path, family)
    setup = configparser.ConfigParser()
    setup.read(folder / "setup.cfg")
    info = folder / "idea.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {setup['metadata']['name']}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[vidgen]\n{setup['options.entry_points']['vidgen'].strip()}\n")
    monkeypatch.syspath_prepend(str(folder))
    tests = runpy.run_path(str(folder / "tests" / f"test_{family}_idea.py"))
    for name in ("test_the_contract_is_kept", "test_at_no_strength_the_video_is_the_models_own"):
        tests[name]()
    method = getattr(import_module(f"vidgen_{family}_idea.method"), f"{family.capitalize()}Idea")
    changed = not torch.equal(video(request()), video(request(), {f"{family}_idea": method(**CHANGES[family])}))
    assert changed == bool(CHANGES[family])
    assert import_module(f"vidgen_{family}_idea").plugin.hook_api == HOOK_API_VERSION
    verdict = Matrix(discover(), ["talc", f"{family}_idea"]).tried(("talc", f"{family}_idea"))
    assert verdict.outcome == (REFUSED if family == "conditioning" else RUNS), verdict.told


@pytest.mark.parametrize("written", ["my_idea --family=training", "--family training my_idea"])
def test_the_files_are_named_and_hold_the_methods_own_name(written: str, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["new", *written.split()]) == 0
    names = capsys.readouterr().out.splitlines()[1:]
    assert sorted(map(Path, names)) == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    for wanted in ("setup.cfg", "README.md", "vidgen_my_idea/conf/method/my_idea.yaml", ".github/workflows/test.yml"):
        assert f"my_idea/{wanted}" in names
    texts = [Path(name).read_text() for name in names]
    assert not any("my_method" in text or "MyMethod" in text or "my-method" in text for text in texts)
    jobs = yaml.safe_load(Path("my_idea/.github/workflows/test.yml").read_text())["jobs"]
    assert jobs["test"]["steps"][-1] == {"run": "pytest"}


def test_a_method_that_only_conditions_takes_thirty_lines_with_its_card_and_options() -> None:
    files = package_files("idea", "conditioning")
    parts = ("vidgen_idea/__init__.py", "vidgen_idea/method.py", "vidgen_idea/conf/method/idea.yaml")
    assert sum(bool(line.strip()) for part in parts for line in files[part].splitlines()) <= 30


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Say what the method is called: vidgen new my_method [--family conditioning|"),
        (["a", "b"], "Say what the method is called"),
        (["idea", "--family", "atention"], "no such family. Did you mean 'attention'"),
        (["idea", "--family"], "no such family. There are: attention, conditioning"),
        (["My-Idea"], "cannot be a method's name. Write small letters"),
        (["class"], "cannot be a method's name"),
        (["talc"], "There is a plugin 'talc' already, of vidgen"),
        (["prompt"], "'prompt' is a key of vidgen's own configuration"),
        (["there"], "'there' is there already"),
        (["group", "--family", "memory"], "'group' cannot be its name: its module has another class 'Group'"),
    ],
)
def test_what_cannot_be_written_is_told_in_one_paragraph(arguments, words, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    assert cli.main(["new", *arguments]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_name_that_the_documentation_takes_can_be_taken(family: str) -> None:
    assert read_arguments(["my_method", "--family", family]) == ("my_method", family)
