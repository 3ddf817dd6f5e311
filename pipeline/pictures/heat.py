"""Decision map: the kind of the best plan over the bandwidths of both links."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from types import MappingProxyType

from pipeline.pictures.svg import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    YELLOW,
    Key,
    LogAxis,
    document,
    legend,
    line,
    rect,
    seconds_text,
    text,
    text_width,
    three_digits,
)

COLOURS: Mapping[str, str] = MappingProxyType(
    {
        "device": GREEN,
        "device+edge": SKY,
        "device+edge+cloud": RED,
        "device+cloud": YELLOW,
        "edge": BLUE,
        "edge+cloud": PURPLE,
        "cloud": ORANGE,
    }
)
"""One for each kind of plan, a single tier's as in the other pictures; any other kind is grey."""

_LEFT, _RIGHT = 70.0, 24.0
_WIDTH, _HEIGHT = 520.0, 400.0
_MBIT = 1e6 / 8
_DARK = (BLUE, RED)
_CLOSE = 16.0


def heat_map(
    *,
    title: str,
    device_edge: Sequence[float],
    edge_cloud: Sequence[float],
    kinds: Sequence[Sequence[str]],
    values: Sequence[Sequence[float]],
    here: tuple[float, float] | None,
    value_text: Callable[[float], str] = seconds_text,
) -> str:
    """The SVG document; a cell's title has bandwidths, kind and the plan's value, in seconds by default.

    Bandwidths are in bytes per second, ascending. `kinds[i][j]` and `values[i][j]` are of the best plan at
    `device_edge[i]` and `edge_cloud[j]`. `here` marks the present bandwidths, at the border if beyond it. Raises
    ValueError when the bandwidths do not ascend from above 0 or the rows are not as many or as long.
    """
    shown, below = legend(_keys(kinds, values, value_text), _LEFT, 30, _WIDTH)
    if here is not None:
        present = Key(f"now: {_mbit(here[0])} and {_mbit(here[1])} Mbit/s", "white")
        parts_here, below = legend([present], _LEFT, below, _WIDTH)
        shown += [*parts_here, _mark(_LEFT + 5.5, below - 11)]
    top = below + 12
    plane = _Plane(_borders(device_edge), _borders(edge_cloud), top)
    mark = (plane.across.at(here[0]), plane.up.at(here[1])) if here is not None else None
    parts = [text(_LEFT, 20, title, size=14), *shown]
    parts += [
        '<g shape-rendering="crispEdges">',
        *_cells(device_edge, edge_cloud, kinds, values, plane, value_text),
        "</g>",
    ]
    parts += _scales(plane)
    parts += ['<g pointer-events="none">', *_names(kinds, plane, mark), "</g>"]
    if mark is not None:
        parts += [*_pointers(*mark, plane), _mark(*mark)]
    return document(_LEFT + _WIDTH + _RIGHT, top + _HEIGHT + 46, parts)


class _Plane:
    """The plane of bandwidths: both axes, and the pixels of the cells' borders."""

    def __init__(self, device_edge: Sequence[float], edge_cloud: Sequence[float], top: float) -> None:
        self.across = LogAxis(device_edge[0], device_edge[-1], _LEFT, _LEFT + _WIDTH)
        self.up = LogAxis(edge_cloud[0], edge_cloud[-1], top + _HEIGHT, top)
        self.x = [self.across.at(value) for value in device_edge]
        self.y = [self.up.at(value) for value in edge_cloud]


def _borders(bandwidths: Sequence[float]) -> list[float]:
    """Borders between cells: halfway between neighbours by logarithm."""
    ascending = all(a < b for a, b in pairwise(bandwidths))
    if not bandwidths or not ascending or bandwidths[0] <= 0 or not math.isfinite(bandwidths[-1]):
        raise ValueError(f"bandwidths must ascend from above 0 and be finite, not {list(bandwidths)}")
    between = [math.sqrt(a) * math.sqrt(b) for a, b in pairwise(bandwidths)]
    if not between:
        return [bandwidths[0] / math.sqrt(10), bandwidths[0] * math.sqrt(10)]
    return [bandwidths[0] ** 2 / between[0], *between, bandwidths[-1] ** 2 / between[-1]]


def _cells(
    device_edge: Sequence[float],
    edge_cloud: Sequence[float],
    kinds: Sequence[Sequence[str]],
    values: Sequence[Sequence[float]],
    plane: _Plane,
    value_text: Callable[[float], str],
) -> Iterator[str]:
    x, y = plane.x, plane.y
    for i, (first, column_kinds, column_values) in enumerate(zip(device_edge, kinds, values, strict=True)):
        cells = zip(edge_cloud, column_kinds, column_values, strict=True)
        for j, (second, kind, taken) in enumerate(cells):
            title = f"{_valued(kind, [taken], value_text)} at {_mbit(first)} and {_mbit(second)} Mbit/s"
            colour = COLOURS.get(kind, GREY)
            yield rect(x[i], y[j + 1], x[i + 1] - x[i], y[j] - y[j + 1], colour, title=title, more='class="cell"')


def _names(kinds: Sequence[Sequence[str]], plane: _Plane, mark: tuple[float, float] | None) -> Iterator[str]:
    """Each kind's name where its area is widest, if it is wide enough, and away from the mark."""
    runs: dict[str, list[tuple[float, float, float]]] = {}
    for j, row in enumerate(zip(*kinds, strict=True)):
        begin = 0
        for kind, run in groupby(row):
            end = begin + len(list(run))
            middle = (plane.x[begin] + plane.x[end]) / 2, (plane.y[j] + plane.y[j + 1]) / 2
            runs.setdefault(kind, []).append((plane.x[end] - plane.x[begin], *middle))
            begin = end
    for kind, found in runs.items():
        widest = max(width for width, _, _ in found)
        places = [(x, y) for width, x, y in found if width >= 0.9 * widest]
        x, y = places[len(places) // 2]
        if mark is not None and abs(y - mark[1]) < _CLOSE:
            x, y = max(places, key=lambda place: abs(place[1] - mark[1]))
        if text_width(kind) + 8 <= widest:
            yield text(x, y + 4, kind, anchor="middle", fill="white" if COLOURS.get(kind) in _DARK else INK)


def _keys(
    kinds: Sequence[Sequence[str]], values: Sequence[Sequence[float]], value_text: Callable[[float], str]
) -> list[Key]:
    """The kinds that occur, each with the least and largest value of its plans."""
    found: dict[str, list[float]] = {}
    for column_kinds, column_values in zip(kinds, values, strict=True):
        for kind, taken in zip(column_kinds, column_values, strict=True):
            found.setdefault(kind, []).append(taken)
    in_order = [kind for kind in COLOURS if kind in found] + sorted(found.keys() - COLOURS.keys())
    return [Key(_valued(kind, found[kind], value_text), COLOURS.get(kind, GREY)) for kind in in_order]


def _valued(kind: str, values: Sequence[float], value_text: Callable[[float], str]) -> str:
    """A kind with the least and largest value of its plans, if it has plans."""
    finite = [taken for taken in values if math.isfinite(taken)]
    if not finite:
        return kind
    least, most = value_text(min(finite)), value_text(max(finite))
    return f"{kind}: {least}" if least == most else f"{kind}: {least} to {most}"


def _scales(plane: _Plane) -> Iterator[str]:
    across, up = plane.across, plane.up
    left, bottom = across.start, up.start
    for tick in _mbit_axis(across).ticks():
        x = _mbit_axis(across).at(tick)
        yield line(x, bottom, x, bottom + 5, INK)
        yield text(x, bottom + 18, f"{tick:,g}", anchor="middle")
    for tick in _mbit_axis(up).ticks():
        y = _mbit_axis(up).at(tick)
        yield line(left - 5, y, left, y, INK)
        yield text(left - 8, y + 4, f"{tick:,g}", anchor="end")
    yield text((across.start + across.end) / 2, bottom + 36, "device → edge, Mbit/s", anchor="middle")
    yield text(18, (up.start + up.end) / 2, "edge → cloud, Mbit/s", anchor="middle", turned=-90)


def _mbit_axis(axis: LogAxis) -> LogAxis:
    return LogAxis(axis.low / _MBIT, axis.high / _MBIT, axis.start, axis.end)


def _mbit(bytes_per_s: float) -> str:
    return three_digits(bytes_per_s / _MBIT)


def _pointers(x: float, y: float, plane: _Plane) -> Iterator[str]:
    """Short lines from both axes towards the mark."""
    for ends in ((plane.across.start, y, plane.across.start + 12, y), (x, plane.up.start, x, plane.up.start - 12)):
        yield line(*ends, stroke="white", width=5)
        yield line(*ends, stroke=INK, width=2.2)


def _mark(x: float, y: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="white" stroke="{INK}" stroke-width="2.2"/>'
