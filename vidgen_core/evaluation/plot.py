"""The plot of an evaluation: every column a panel, every row a bar with its 95 % interval. Drawn with Pillow."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from vidgen_core.evaluation.results import Results, title_of

SCALE = 2
"""Everything is drawn this much larger and then reduced, which smooths the edges."""
BAR, GAP, PANEL, LEFT, TOP, BOTTOM = 22, 8, 170, 24, 64, 40
COLOURS = ("#9aa5b1", "#5b8fb9", "#e0a458", "#2a9d6f", "#b07aa1", "#d1605e", "#6b7785", "#c9b458")
INK, FAINT, PAPER = "#22303c", "#d9dee3", "#ffffff"


def draw(results: Results, path: Path) -> Path:
    """Write a PNG; returns its path."""
    from PIL import Image, ImageDraw

    rows = list(results.rows)
    label = max(_text_width(text, 14) for text in results.rows.values()) + 16
    width = LEFT + label + PANEL * len(results.columns) + 16
    height = TOP + len(rows) * (BAR + GAP) + BOTTOM
    width = max(width, LEFT + _text_width(results.title, 17) + 24)
    image = Image.new("RGB", (width * SCALE, height * SCALE), PAPER)
    pen = _Pen(ImageDraw.Draw(image))
    pen.text(LEFT, 12, results.title, 17)
    for number, row in enumerate(rows):
        pen.text(LEFT + label - 10, _middle(number), results.rows[row], 14, anchor="rm")
    for place, column in enumerate(results.columns):
        _panel(pen, results, column, LEFT + label + PANEL * place, height)
    image.resize((width, height), Image.Resampling.LANCZOS).save(path)
    return path


def _panel(pen: _Pen, results: Results, column: str, left: int, height: int) -> None:
    found = {row: results.mean(row, column) for row in results.rows}
    low, high = _range([v for value in found.values() if value for v in (value.low, value.high)])
    wide = PANEL - 44

    def x(value: float) -> float:
        return left + wide * (value - low) / (high - low)

    pen.text(left + wide / 2, TOP - 18, title_of(column), 14, anchor="mm")
    floor = height - BOTTOM
    for tick in (low, (low + high) / 2, high):
        pen.line((x(tick), TOP - 4, x(tick), floor), FAINT, 1)
        pen.text(x(tick), floor + 12, results.shown(column, tick, digits=0), 12, anchor="mm")
    for number, value in enumerate(found.values()):
        middle = _middle(number)
        if value is None:
            pen.text(left + 4, middle, "no score", 12, anchor="lm")
            continue
        colour = COLOURS[number % len(COLOURS)]
        pen.box((x(max(low, 0)), middle - BAR / 2, x(value.mean), middle + BAR / 2), colour)
        pen.line((x(value.low), middle, x(value.high), middle), INK, 1.5)
        for end in (value.low, value.high):
            pen.line((x(end), middle - 4, x(end), middle + 4), INK, 1.5)
        pen.text(
            max(x(value.high), x(value.mean)) + 5, middle, results.shown(column, value.mean, digits=0), 12, anchor="lm"
        )


def _range(values: list[float]) -> tuple[float, float]:
    """From 0 to 1 for shares; wider, by whole steps, where a score leaves that range."""
    return min([0.0, *(math.floor(v * 2) / 2 for v in values)]), max([1.0, *(math.ceil(v * 2) / 2 for v in values)])


def _middle(number: int) -> float:
    return TOP + number * (BAR + GAP) + BAR / 2


def _font(size: float) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size=size)


def _text_width(text: str, size: int) -> int:
    return int(_font(size).getlength(text)) + 1


class _Pen:
    """Draws in the units of the finished picture."""

    def __init__(self, draw: Any) -> None:
        self._draw = draw

    def text(self, x: float, y: float, text: str, size: int, anchor: str = "la") -> None:
        self._draw.text((x * SCALE, y * SCALE), text, fill=INK, font=_font(size * SCALE), anchor=anchor)

    def line(self, ends: tuple[float, float, float, float], colour: str, width: float) -> None:
        self._draw.line([value * SCALE for value in ends], fill=colour, width=round(width * SCALE))

    def box(self, corners: tuple[float, float, float, float], colour: str) -> None:
        x0, y0, x1, y1 = (value * SCALE for value in corners)
        self._draw.rectangle([min(x0, x1), y0, max(x0, x1), y1], fill=colour)
