"""Packages of strangers, installed into a fresh environment, work there as ours do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from vidgen_core.commands.new import package_files

QUIETLY = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index")


def fresh_python(folder: Path) -> str:
    """The python of a new environment, which sees this one's packages, installed or editable."""
    venv.create(folder, with_pip=False)
    python = str(folder / "bin" / "python")
    program = "import site; print(site.getsitepackages()[0])"
    site = subprocess.run([python, "-c", program], capture_output=True, text=True).stdout.strip()
    here = sysconfig.get_paths()["purelib"]
    Path(site, "parent.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    return python


def test_what_vidgen_new_writes_and_a_plugin_with_one_of_everything(tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).with_name("example_plugin"), tmp_path / "example")
    for path, text in package_files("my_idea", "memory").items():
        (tmp_path / "my_idea" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "my_idea" / path).write_text(text)
    python = fresh_python(tmp_path / "venv")
    packages = [str(tmp_path / name) for name in ("example", "my_idea")]
    pip = [sys.executable, "-m", "pip", "--python", python, "install", *QUIETLY, *packages]
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tests = [f"{packages[0]}/tests/check_example.py", f"{packages[1]}/tests/test_my_idea.py"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    (tmp_path / "elsewhere").mkdir()  # so that what is imported is what was installed
    pytests = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(pytests, capture_output=True, text=True, cwd=tmp_path / "elsewhere", env=environment)
    assert done.returncode == 0 and "7 passed" in done.stdout, done.stdout + done.stderr
