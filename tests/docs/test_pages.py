"""What the pages say can be done: every block, every command, every name of a key, every link."""

from __future__ import annotations

from pathlib import Path

import pytest
from page import PAGES, blocks
from reader import Reader

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@pages
def test_what_a_page_says_works_as_it_is_written(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(tmp_path, monkeypatch)
    try:
        for block in blocks(page):
            try:
                reader.do(block)
            except Exception as error:
                raise AssertionError(f"{page.name}, the block at line {block.line}: {error}") from error
    finally:
        reader.forget()
    assert not reader.unused, f"{page.name} writes files that nothing uses: {reader.unused}"
