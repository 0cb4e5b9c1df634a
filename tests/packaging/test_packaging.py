"""What is installed is what is here: packages, data, entry points, ranges; and the core names no method."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")
FOLDERS = {
    name.strip(): path.strip()
    for name, _, path in (line.partition("=") for line in SETUP["options"]["package_dir"].strip().splitlines())
}


def folder_of(package: str) -> Path:
    """Where a package lies in the tree."""
    top = max((name for name in FOLDERS if package == name or package.startswith(f"{name}.")), key=len)
    return ROOT / FOLDERS[top] / package.removeprefix(top).lstrip(".").replace(".", "/")


PACKAGES = SETUP["options"]["packages"].split()


def test_every_package_of_the_tree_is_installed() -> None:
    listed = {folder_of(package) for package in PACKAGES}
    roots = [ROOT / "vidgen_core", ROOT / "conf", *(p for p in (ROOT / "plugins").iterdir() if p.is_dir())]
    here = {init.parent for root in roots for init in root.rglob("__init__.py")}
    assert here == listed


def test_every_plugin_folder_is_an_entry_point() -> None:
    entries = dict(line.split(" = ") for line in SETUP["options.entry_points"]["vidgen"].strip().splitlines())
    folders = {p.name for p in (ROOT / "plugins").iterdir() if (p / "__init__.py").exists()}
    assert set(entries.values()) == folders


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    work = tmp_path_factory.mktemp("wheel")
    source = work / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in ("vidgen_core", "conf", "plugins"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    program = "from setuptools import build_meta; print(build_meta.build_wheel('..'))"
    done = subprocess.run([sys.executable, "-c", program], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(work / done.stdout.splitlines()[-1])


def test_the_wheel_holds_all_configuration_and_data(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for package in PACKAGES:
        inside = package.replace(".", "/")
        for file in folder_of(package).rglob("*"):
            data = file.suffix in (".yaml", ".safetensors", ".json", ".mp4", ".npz")
            data = data or file.name in ("py.typed", "__init__.py") or "templates" in file.parts
            data = data and file.is_file()
            if data and "__pycache__" not in file.parts:
                expected = f"{inside}/{file.relative_to(folder_of(package)).as_posix()}"
                assert expected in names, f"{expected} is not in the wheel"


def test_the_wheel_works_without_the_tree(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    program = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if '__editable__' not in str(f)];"
        f"sys.path = [{str(tmp_path / 'site')!r}, *(p for p in sys.path if p != {str(ROOT)!r})];"
        "from vidgen_core.config import compose; import vidgen_core;"
        f"assert vidgen_core.__file__.startswith({str(tmp_path)!r}), vidgen_core.__file__;"
        "c = compose(['method=talc', 'model=moving_shapes', 'prompt=x']); print(c.config['methods']['talc']['mode'])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "time_aligned\n"), done.stderr


def test_constraints_lie_within_the_ranges() -> None:
    from packaging.requirements import Requirement

    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pinned = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pinned.items()}
    required = [line for line in SETUP["options"]["install_requires"].splitlines() if line and line[0] != "#"]
    for line in required:
        requirement = Requirement(line)
        assert pinned[requirement.name.lower()] in requirement.specifier, line


def test_nothing_pulls_another_torch() -> None:
    text = (ROOT / "setup.cfg").read_text() + (ROOT / "constraints.txt").read_text()
    assert not re.search(r"torchvision|lpips|ptlflow|torch-fidelity|nvidia", text)


def test_the_core_names_no_method() -> None:
    names = re.compile(r"talc|streaming_?t2v|tune_?a_?video|tf_?t2v|moving_?shapes", re.IGNORECASE)
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in sorted((ROOT / "vidgen_core").rglob("*.py"))
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if names.search(line)
    ]
    assert found == []


def test_what_is_run_for_every_change_is_what_the_makefile_runs() -> None:
    assert re.search(r"^make .*\btest\b", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


def test_the_method_of_the_readme_takes_twelve_lines() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n(# idea.py\n.*?)```", readme, re.DOTALL)
    assert sum(bool(line.strip()) for line in source.splitlines()) <= 12


def test_the_package_of_the_first_page_is_the_one_that_is_written() -> None:
    from vidgen_core.commands.new import FAMILIES, package_files, read_arguments

    page = (ROOT / "docs" / "first_method.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^vidgen new (.*?) +#(.*)$", page, re.MULTILINE)
    assert sorted(FAMILIES) == sorted([*re.findall(r"--family (\w+)", line[0]), *re.findall(r"\b(?!or\b)\w+", line[1])])
    files = package_files(*read_arguments(line[0].split()))
    named = re.findall(r"^\| `calm/([\w./]+)` \|", page, re.MULTILINE)
    assert len(named) == 3 and files.keys() >= set(named)
