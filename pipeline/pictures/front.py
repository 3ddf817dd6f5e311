"""Pareto front: plans by two measures, coloured by kind."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.pictures.heat import COLOURS
from pipeline.pictures.svg import GREY, INK, Key, document, escaped, legend, line, text, three_digits

_LEFT, _RIGHT, _BELOW = 76.0, 24.0, 48.0
_WIDTH, _HEIGHT = 520.0, 340.0
_MARGIN = 0.06
"""Room around the points, as a share of their range."""
_TICKS = 5


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """A plan: the tiers that compute, and its two measures."""

    kind: str
    first: float
    second: float


def front_picture(points: Sequence[FrontPoint], first: str, second: str, title: str) -> str:
    """The SVG document; `first` and `second` name the measures with their units. Raises ValueError for no points."""
    if not points:
        raise ValueError("a front without points has no picture")
    kinds = dict.fromkeys(point.kind for point in points)
    shown, below = legend([Key(kind, COLOURS.get(kind, GREY)) for kind in kinds], _LEFT, 30, _WIDTH)
    top = below + 12
    across = _Axis.around([point.first for point in points], _LEFT, _LEFT + _WIDTH)
    up = _Axis.around([point.second for point in points], top + _HEIGHT, top)
    parts = [text(_LEFT, 20, title, size=14), *shown, *_grid(across, up, top)]
    placed = [(across.at(point.first), up.at(point.second)) for point in points]
    for (x, y), (next_x, next_y) in pairwise(placed):
        parts += [line(x, y, next_x, y, INK), line(next_x, y, next_x, next_y, INK)]
    for point, (x, y) in zip(points, placed, strict=True):
        said = escaped(f"{point.kind}: {three_digits(point.first)} {first}, {three_digits(point.second)} {second}")
        colour = COLOURS.get(point.kind, GREY)
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5" fill="{colour}" stroke="{INK}"><title>{said}</title></circle>'
        )
    parts.append(text(_LEFT + _WIDTH / 2, top + _HEIGHT + 38, first, anchor="middle"))
    parts.append(text(16, top + _HEIGHT / 2, second, anchor="middle", turned=-90))
    return document(_LEFT + _WIDTH + _RIGHT, top + _HEIGHT + _BELOW, parts)


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float
    start: float
    end: float

    @classmethod
    def around(cls, values: Sequence[float], start: float, end: float) -> _Axis:
        room = (max(values) - min(values)) * _MARGIN or abs(values[0]) * _MARGIN or 1.0
        return cls(min(values) - room, max(values) + room, start, end)

    def at(self, value: float) -> float:
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)

    def ticks(self) -> Iterator[float]:
        """Round values: multiples of 1, 2 or 5 of some decade, at most `_TICKS` of them."""
        least = (self.high - self.low) / _TICKS
        decade = 10.0 ** math.floor(math.log10(least))
        step = next(factor * decade for factor in (1, 2, 5, 10) if factor * decade >= least)
        for number in range(math.ceil(self.low / step), math.floor(self.high / step) + 1):
            yield number * step


def _grid(across: _Axis, up: _Axis, top: float) -> Iterator[str]:
    for tick in up.ticks():
        yield line(_LEFT, up.at(tick), _LEFT + _WIDTH, up.at(tick))
        yield text(_LEFT - 6, up.at(tick) + 4, f"{tick:.4g}", anchor="end")
    for tick in across.ticks():
        yield line(across.at(tick), top, across.at(tick), top + _HEIGHT)
        yield text(across.at(tick), top + _HEIGHT + 16, f"{tick:.4g}", anchor="middle")
