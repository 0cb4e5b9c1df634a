"""A disk that refuses, told in one sentence that says what is left and how to go on."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from vidgen_core.errors import VidgenError

NEARLY_NOTHING = 1 << 24
"""Bytes free below which a write that failed is taken to have failed for want of space."""


@contextmanager
def disk_explained(path: Path, stays: str) -> Iterator[None]:
    """Turn what a full or failing disk raises while ``path`` is written into a VidgenError.

    Args:
        stays: What was written before and stays.
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
            f"'{path}' could not be written: {'the disk is full' if full else error}. {stays}; free some space, then "
            "repeat the command with resume=true."
        ) from error
