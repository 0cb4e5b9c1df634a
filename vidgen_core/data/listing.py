"""Text files that list data: lines, and tables of a path and a caption."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vidgen_core.errors import BadRequest
from vidgen_core.prompts import is_writable

PATHS = ("path", "file_name", "file", "video", "image", "name")
CAPTIONS = ("caption", "text", "prompt")
"""Names of columns in common use; the first that a table has is taken."""
BAR = "|||"
"""Between the path and the caption of a line of text."""


def given_file(key: str, value: str | None, what: str) -> Path:
    """The file that a key names. Raises BadRequest where it is not given or not there."""
    if not value:
        raise BadRequest(f"The data is not given: {key}=... is {what}. Other sources: data=folder, data=shards.")
    file = Path(value).expanduser()
    if not file.is_file():
        raise BadRequest(f"{key}={value} does not exist. Give {what}.")
    return file


def text_of(file: Path) -> str:
    """The text of a file. Raises BadRequest for what cannot be read or, with the line, is not UTF-8."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadRequest(f"'{file}' cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line = len(error.object[: error.start + 1].splitlines())
        raise BadRequest(f"'{file}', line {line} is not UTF-8 text. Save the file as UTF-8.") from error


def lines_of(file: Path) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of each line that is not blank. Raises BadRequest for what is not UTF-8."""
    for number, line in enumerate(
        text_of(file).split("\n"), 1
    ):  # captions may hold U+2028 and its like, which end no line
        if line.strip():
            yield number, line.strip()


def texts_of(value: Any, key: str, where: str) -> tuple[str, ...]:
    """A list of texts, one or more. Raises BadRequest for anything else."""
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise BadRequest(f"{where}: '{key}' is no list of texts.")
    if not value:
        raise BadRequest(f"{where}: '{key}' is an empty list. Give one text or more, or leave the line out.")
    if not all(map(is_writable, value)):
        raise BadRequest(f"{where}: '{key}' holds a lone surrogate or a NUL, which is no text.")
    return tuple(value)


def read_listing(file: Path) -> list[tuple[str, str | None]]:
    """Paths as written, each with its caption where the table has one.

    A ``.txt`` file has a path per line, or ``path|||caption``; a ``.csv`` file (with a header) or a ``.jsonl`` file has
    columns for both.
    Raises BadRequest that names the file, and the line of the first mistake.
    """
    readers = {".txt": _read_txt, ".csv": _read_csv, ".jsonl": _read_jsonl}
    if file.suffix.lower() not in readers:
        raise BadRequest(f"'{file}' is no list: give a .txt file (a path per line), a .csv or a .jsonl file.")
    rows = readers[file.suffix.lower()](file)
    if not rows:
        raise BadRequest(f"'{file}' lists nothing.")
    return rows


def _read_txt(file: Path) -> list[tuple[str, str | None]]:
    rows = [line.partition(BAR) for _, line in lines_of(file)]
    return [(path.strip(), caption.strip() or None) for path, _, caption in rows]


def _read_csv(file: Path) -> list[tuple[str, str | None]]:
    reader = csv.DictReader(io.StringIO(text_of(file), newline=""))
    try:
        return [_row(row, f"'{file}', line {reader.line_num}") for row in reader]
    except csv.Error as error:
        raise BadRequest(f"'{file}' cannot be read as csv: {error}.") from error


def _read_jsonl(file: Path) -> list[tuple[str, str | None]]:
    return [_row(value, where) for _, value, where in json_lines(file)]


def json_lines(file: Path, form: str = "") -> Iterator[tuple[int, dict[str, Any], str]]:
    """The line number, the object, and what messages call the line, for every line of a file of JSON lines.

    Args:
        form: What a line should look like, for the message.

    Raises:
        BadRequest: a line is no JSON object.
    """
    mend = f" Every line is {form}." if form else ""
    for number, line in lines_of(file):
        where = f"'{file}', line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
            raise BadRequest(f"{where} is no JSON: {reason}.{mend}") from error
        if not isinstance(value, dict):
            raise BadRequest(f"{where} is no JSON object.{mend}")
        yield number, value, where


def _row(row: Mapping[str, Any], where: str) -> tuple[str, str | None]:
    path, caption = caption_in(row, PATHS), caption_in(row, CAPTIONS)
    if path is None:
        raise BadRequest(f"{where} names no file: it has none of the columns {', '.join(PATHS)}.")
    return path, caption


def caption_in(row: Mapping[str, Any], columns: Sequence[str] = CAPTIONS) -> str | None:
    """The text of the first of the columns that a row has."""
    value = next((row[column] for column in columns if row.get(column)), None)
    return value if isinstance(value, str) and is_writable(value) else None
