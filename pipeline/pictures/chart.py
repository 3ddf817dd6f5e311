"""Bars over a log axis of seconds, folded into rows when there are many. Knows neither tiers nor kinds of blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.pictures.svg import (
    FAINT,
    INK,
    LogAxis,
    bytes_text,
    line,
    rect,
    seconds_text,
    shortened,
    text,
    text_width,
)

LEFT, _RIGHT, _BYTES_RIGHT = 64.0, 16.0, 70.0
_LEAST_SECONDS = 1e-6
_LEAST_WIDTH = 560.0
_HEIGHTS = (300.0, 200.0, 150.0)
"""Of the rows, when there is one, two, more."""
_ROW_WIDTH = 1120.0
_MOST_NAMED = 68
_BLOCKS_WIDTH = 900.0
_NAMED_STEP, _NUMBERED_STEP, _MOST_STEP = 14.0, 6.0, 28.0
_ALONE = 56.0
_TURN, _NAME_SIZE, _LETTERS = 60.0, 9.5, 24
_LABEL_WIDTH = 26.0
_BAR = 0.84


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar. A block's has its index; one without stands alone between stages, outlined, its seconds above it.

    `name` stands below where there is room, `short` where there is not. `nbytes` are marked if the chart does that.
    """

    seconds: float
    fill: str
    name: str
    title: str
    index: int | None = None
    short: str = ""
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class _Slot:
    x: float
    width: float
    bar: Bar

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


@dataclass(frozen=True, slots=True)
class Chart:
    """The parts of a chart as SVG elements, and its extent to the right and down in pixels."""

    parts: list[str]
    width: float
    height: float


def chart(bars: Sequence[Bar], top: float, *, with_bytes: bool) -> Chart:
    """Draw the bars from `top` down, in order; `with_bytes` marks their bytes, on an axis at the right."""
    named = sum(bar.index is not None for bar in bars) <= _MOST_NAMED
    rows = _rows(bars, named)
    length = max([_LEAST_WIDTH, *(row[-1].x + row[-1].width for row in rows)])
    height = _HEIGHTS[min(len(rows), len(_HEIGHTS)) - 1]
    below = _names_height(bars) if named else 20.0
    parts: list[str] = []
    for row in rows:
        seconds = LogAxis.around((bar.seconds for bar in bars), top + height, top, least=_LEAST_SECONDS)
        parts += _grid(seconds, length)
        parts += [_bar(slot, seconds) for slot in row]
        parts += _names(row, top + height) if named else _numbers(row, top + height)
        if with_bytes:
            nbytes = LogAxis.around((bar.nbytes for bar in bars), top + height, top, least=1)
            parts += _bytes(row, nbytes, length)
        top += height + below + 16
    return Chart(parts, LEFT + length + (_BYTES_RIGHT if with_bytes else _RIGHT), top - 16)


def _rows(bars: Sequence[Bar], named: bool) -> list[list[_Slot]]:
    blocks = sum(bar.index is not None for bar in bars)
    step = min(max(_BLOCKS_WIDTH / max(blocks, 1), _NAMED_STEP if named else _NUMBERED_STEP), _MOST_STEP)
    widths = [_ALONE if bar.index is None else step for bar in bars]
    most = sum(widths) / math.ceil(sum(widths) / _ROW_WIDTH) + max(widths)
    rows: list[list[_Slot]] = [[]]
    x = 0.0
    for bar, width in zip(bars, widths, strict=True):
        if x + width > most:
            rows.append([])
            x = 0.0
        rows[-1].append(_Slot(x, width, bar))
        x += width
    return rows


def _grid(axis: LogAxis, length: float) -> Iterator[str]:
    for tick in axis.ticks():
        y = axis.at(tick)
        yield line(LEFT, y, LEFT + length, y)
        yield text(LEFT - 6, y + 4, seconds_text(tick), anchor="end")


def _bar(slot: _Slot, axis: LogAxis) -> str:
    bar, y = slot.bar, axis.at(slot.bar.seconds)
    alone = bar.index is None
    width = slot.width * (0.5 if alone else _BAR)
    look = 'class="transfer" stroke="#222"' if alone else 'class="block"'
    shape = rect(LEFT + slot.middle - width / 2, y, width, axis.start - y, bar.fill, title=bar.title, more=look)
    above = seconds_text(bar.seconds)
    return shape + (text(LEFT + slot.middle, y - 4, above, anchor="middle", size=10, bold=True) if alone else "")


def _names(row: Sequence[_Slot], base: float) -> Iterator[str]:
    for slot in row:
        name = shortened(slot.bar.name, _LETTERS)
        bold = slot.bar.index is None
        yield text(LEFT + slot.middle + 3, base + 11, name, anchor="end", size=_NAME_SIZE, bold=bold, turned=-_TURN)


def _names_height(bars: Sequence[Bar]) -> float:
    widths = (text_width(shortened(bar.name, _LETTERS), _NAME_SIZE) for bar in bars)
    return 14 + max(widths, default=0.0) * math.sin(math.radians(_TURN))


def _numbers(row: Sequence[_Slot], base: float) -> Iterator[str]:
    """The indices of every fifth, tenth, ... block, as far as they do not run into each other."""
    free = -math.inf
    for slot in row:
        if slot.bar.index is None:
            yield text(LEFT + slot.middle, base + 14, slot.bar.short, anchor="middle", size=10, bold=True)
        elif slot.bar.index % 5 == 0 and slot.middle >= free:
            yield line(LEFT + slot.middle, base, LEFT + slot.middle, base + 4, FAINT)
            yield text(LEFT + slot.middle, base + 14, str(slot.bar.index), anchor="middle", size=10)
            free = slot.middle + _LABEL_WIDTH


def _bytes(row: Sequence[_Slot], axis: LogAxis, length: float) -> Iterator[str]:
    """A mark as wide as its slot for each block, so that equal neighbours make a line."""
    data = " ".join(f"M{LEFT + slot.x:.1f},{axis.at(slot.bar.nbytes):.1f}h{slot.width:.1f}" for slot in row)
    for stroke, width in (("white", 4), (INK, 1.8)):
        yield f'<path class="bytes" d="{data}" stroke="{stroke}" stroke-width="{width}" pointer-events="none"/>'
    for tick in axis.ticks():
        yield text(LEFT + length + 6, axis.at(tick) + 4, bytes_text(tick))
