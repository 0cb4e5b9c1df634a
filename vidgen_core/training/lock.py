"""One training at a time in a folder: two that wrote the same checkpoints would damage each other's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from vidgen_core.errors import BadRequest
from vidgen_core.run_folder import LOCK

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def lock(folder: Path, stack: ExitStack, warn: Callable[[str], None]) -> None:
    """Keep the folder for this process until the stack closes; the system lets go of it where the process is killed.

    Raises BadRequest where another process has it. A file system without locks is warned of and stops nothing.
    """
    if fcntl is None:
        return
    try:
        file = stack.enter_context((folder / LOCK).open("a"))
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BadRequest(
            f"Another training is writing to '{folder}'. Wait until it has ended or end it, or give another output.dir."
        ) from None
    except OSError as error:
        warn(f"'{folder}' cannot be locked ({error}): see to it that no other training writes to it")
        return
    # Processes that read data were forked with the file open; without this they would hold it until they have gone.
    stack.callback(fcntl.flock, file, fcntl.LOCK_UN)
