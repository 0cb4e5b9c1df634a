"""Two trainings in one folder: the second is refused while the first one runs, and no longer."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from trainings import composed

from vidgen_core.errors import BadRequest
from vidgen_core.run_folder import is_resumed
from vidgen_core.train import train
from vidgen_core.training.lock import lock

fcntl = pytest.importorskip("fcntl")


def test_a_training_is_refused_while_another_writes_to_its_folder(stories: Path, tmp_path: Path) -> None:
    wanted = composed(stories, tmp_path / "run", "trainer.max_steps=1")
    (tmp_path / "run").mkdir()
    with ExitStack() as other:
        lock(tmp_path / "run", other, pytest.fail)
        with pytest.raises(BadRequest, match=r"Another training is writing to '.*run'\. Wait until it has ended"):
            train(wanted)
    train(wanted)  # what is left of the lock is no run
    with ExitStack() as later:
        lock(tmp_path / "run", later, pytest.fail)


def test_a_killed_training_leaves_its_folder_free(tmp_path: Path) -> None:
    code = (
        "import sys, time, contextlib, pathlib; from vidgen_core.training.lock import lock\n"
        "with contextlib.ExitStack() as stack:\n"
        "    lock(pathlib.Path(sys.argv[1]), stack, print); print('locked', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    with ExitStack() as stack:
        with pytest.raises(BadRequest):
            lock(tmp_path, stack, pytest.fail)
        process.kill()
        process.communicate()
        lock(tmp_path, stack, pytest.fail)


def test_a_file_system_without_locks_is_warned_of_and_stops_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*args: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    warnings: list[str] = []
    with ExitStack() as stack:
        lock(tmp_path, stack, warnings.append)
    assert len(warnings) == 1 and "cannot be locked ([Errno 37] No locks available)" in warnings[0]


def test_a_training_that_ended_before_it_began_leaves_no_run(tmp_path: Path) -> None:
    with ExitStack() as stack:
        lock(tmp_path, stack, pytest.fail)
    assert not is_resumed(tmp_path, {"output": {"overwrite": False}, "resume": False})
