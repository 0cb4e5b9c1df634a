"""A file of JSON lines that grows, and outlives the process that was killed while it wrote one."""

from __future__ import annotations

from pathlib import Path


def add_line(file: Path, line: str) -> None:
    """Add a line, on a line of its own where a kill left the one before it torn; makes the file if it is not there."""
    with file.open("a+b") as lines:
        end = lines.seek(0, 2)
        lines.seek(max(end - 1, 0))
        torn = end > 0 and lines.read(1) != b"\n"
        lines.write(b"\n" * torn + line.encode() + b"\n")
