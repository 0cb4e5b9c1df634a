"""A page of documentation as its tests see it: fenced blocks, and how each is tested.

A comment of Markdown above a block, which no reader sees, says what its language does not::

    <!-- run: model=tiny num_inference_steps=1 -->  its commands really run, with these keys added or in the place of
                                                    those written; without the mark they are composed only
    <!-- given: clip.mp4 videos -->                 small stand-ins of these files and folders are there
    <!-- method: num_inference_steps=1 -->          the classes that it defines are methods: each makes a video on the
                                                    tiny model with these keys or, after `train`, is trained
    <!-- refused -->                                its commands, or its Python, are bad requests
    <!-- file: scenes.txt -->                       it is that file; a first line `# idea.py` says so as well

A block of commands has no language or ``bash``. A ``text`` block is what the commands before it print, among other
lines; a line ``...`` stands for any.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARKS = ("run", "given", "method", "refused", "file")

_MARK = re.compile(r"<!-- (\w+)(?:: (.*))? -->")
_FILE = re.compile(r"# ([\w./-]+\.\w+)")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        line: Of the page, of its first line, from 1.
        marks: Name -> what follows the colon, or "".
    """

    line: int
    language: str
    text: str
    marks: dict[str, str]

    @property
    def file(self) -> str | None:
        """The file that the block is, below the reader's folder."""
        first = _FILE.fullmatch(self.text.partition("\n")[0])
        return self.marks.get("file") or (first[1] if first else None)

    @property
    def commands(self) -> Iterator[tuple[int, str]]:
        """Line of the page and command; one that goes on after a backslash is one command."""
        begun = ""
        for number, line in enumerate(self.text.splitlines(), self.line):
            begun += line.removesuffix("\\")
            if not line.endswith("\\"):
                if begun.strip() and not begun.startswith("#"):
                    yield number, begun
                begun = ""


def blocks(page: Path) -> list[Block]:
    """Every fenced block of a page. Raises AssertionError for a mark that is none, or stands above no block."""
    found: list[Block] = []
    marks: dict[str, str] = {}
    begun: tuple[int, str] | None = None
    body: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if begun and line != "```":
            body.append(line)
        elif begun:
            found.append(Block(*begun, "".join(f"{line}\n" for line in body), marks))
            begun, body, marks = None, [], {}
        elif line.startswith("```"):
            begun = number + 1, line[3:].strip()
        elif match := _MARK.fullmatch(line):
            assert match[1] in MARKS, f"{page.name}:{number}: '{match[1]}' is no mark; there are {', '.join(MARKS)}"
            marks[match[1]] = match[2] or ""
        else:
            assert not (marks and line.strip()), f"{page.name}:{number}: the marks {marks} stand above no block"
    assert begun is None, f"{page.name}: a block is not closed"
    return found


def prose(page: Path) -> str:
    """The page without its fenced blocks and comments."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
