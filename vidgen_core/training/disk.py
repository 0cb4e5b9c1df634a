"""A disk that refuses, told in one sentence that says what is left and how to go on."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from vidgen_core.errors import VidgenError

NEARLY_NOTHING = 1 << 24
"""Bytes free below which a write that failed is taken to have failed for want of space."""


@contextmanager
def disk_explained(
    path: Path, stays: str, mend: str = "free some space, then repeat the command with resume=true"
) -> Iterator[None]:
    """Turn what a full or failing disk raises while ``path`` is written into a VidgenError.

    Args:
        stays: What was written before and stays.
        mend: What the user can do.
    """
    try:
        yield
    except Exception as error:  # safetensors and torch each have a way of their own to say that a write failed
        text = str(error).lower()
        if not isinstance(error, OSError | SafetensorError) and "inline_container" not in text:
            raise
        parent = next(folder for folder in (path, *path.parents) if folder.is_dir())
        full = getattr(error, "errno", None) == errno.ENOSPC or "no space" in text
        full = full or shutil.disk_usage(parent).free < NEARLY_NOTHING
        raise VidgenError(
            f"'{path}' could not be written: {'the disk is full' if full else error}. {stays}; {mend}."
        ) from error


def to_disk(folder: Path) -> None:
    """Have what the folder holds on the disk itself, so that it is whole after a loss of power too."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("r+b") as file:
                os.fsync(file.fileno())


def put_whole(path: Path, write: Callable[[Path], None], *told: str) -> Path:
    """Have a folder written beside its place and put it there whole, or not at all; one that was there is replaced.

    Args:
        write: Makes the folder that it is given.
        told: As for ``disk_explained``.
    """
    fresh = path.with_name(f".{path.name}.unfinished")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        with disk_explained(path, *told):
            write(fresh)
            shutil.rmtree(path, ignore_errors=True)
            fresh.rename(path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return path
