"""Folded layout: layers in boustrophedon rows, so that a deep network fits a page. Pixels, no SVG.

Every second row runs from right to left and has its lanes upside down: what leaves one row at its top comes in at the
bottom of the next, and tensors that turn together do not cross.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.pictures.layers import Layers

_WIDTHS = (640, 760, 880, 1000, 1120, 1240, 1360)
_ASPECT = 1.35
_SHORTEST_ROW, _LAST_ROW = 0.6, 1.12
"""Parts of the width: the first of any row but the last, the second at most of the last."""


@dataclass(frozen=True, slots=True)
class Spacing:
    """Pixels: from lane to lane, from row to row, least between layers, of a turn's first line and to each next."""

    lane: float
    row: float
    gap: float
    turn: float
    turn_step: float


@dataclass(frozen=True, slots=True)
class Column:
    """A layer's place along its row, in the direction of the data: its boxes stand in [start, end), and from `end` to
    `bend` all lines run straight, which leaves room for labels.
    """

    row: int
    start: float
    end: float
    bend: float


@dataclass(frozen=True, slots=True)
class FoldedLayout:
    """The folded layers: coordinates of each point, from the top left of what is drawn, turns included."""

    width: float
    height: float
    columns: tuple[Column, ...]
    y: tuple[float, ...]
    margin: float
    length: float
    turns: tuple[tuple[float, ...], ...]
    """For each layer after which a row ends, how far out each point's line turns; empty for all others."""
    layers: Layers

    def x(self, layer: int, along: float) -> float:
        """The pixel that lies `along` the row of this layer."""
        return self.margin + (along if self.forwards(layer) else self.length - along)

    def forwards(self, layer: int) -> bool:
        """True if this layer's row runs from left to right."""
        return self.columns[layer].row % 2 == 0

    def centre(self, layer: int) -> float:
        """The middle of a layer's boxes."""
        column = self.columns[layer]
        return self.x(layer, (column.start + column.end) / 2)

    def path(self, parent: int, point: int, *, out: float, into: float, shift: float = 0.0) -> str:
        """SVG path data from `out` off the parent's middle to `into` before the point's; `shift` moves its start."""
        layer, after = self.layers.layer[parent], self.layers.layer[point]
        sign, sign_after = (1 if self.forwards(at) else -1 for at in (layer, after))
        x, y = self.centre(layer) + sign * out, self.y[parent] + shift
        x_end, y_end = self.centre(after) - sign_after * into, self.y[point]
        bend = self.x(layer, self.columns[layer].bend)
        if sign == sign_after:
            settled = self.x(after, self.columns[after].start)
            middle = (bend + settled) / 2
            curve = f"C{middle:.1f},{y:.1f} {middle:.1f},{y_end:.1f} {settled:.1f},{y_end:.1f}"
            return f"M{x:.1f},{y:.1f} H{bend:.1f} {curve} H{x_end:.1f}"
        turn = self.x(layer, self.length + self.turns[layer][self.layers.order[layer].index(parent)])
        radius = min(6.0, abs(turn - bend), (y_end - y) / 2)
        return (
            f"M{x:.1f},{y:.1f} H{turn - sign * radius:.1f} Q{turn:.1f},{y:.1f} {turn:.1f},{y + radius:.1f} "
            f"V{y_end - radius:.1f} Q{turn:.1f},{y_end:.1f} {turn - sign * radius:.1f},{y_end:.1f} H{x_end:.1f}"
        )

    def arrow(self, point: int, into: float, size: float) -> str:
        """SVG path data of an arrow's head whose tip is where a path ends."""
        layer = self.layers.layer[point]
        sign = 1 if self.forwards(layer) else -1
        x, y = self.centre(layer) - sign * into, self.y[point]
        return f"M{x:.1f},{y:.1f} l{-sign * size:.1f},{-size / 2:.1f} v{size:.1f}z"


def fold(layers: Layers, boxes: Sequence[float], labels: Sequence[float], spacing: Spacing) -> FoldedLayout:
    """Fold into rows of a page that is wider than high. `boxes` and `labels` are the widest of each layer."""
    gaps = _gaps(layers, spacing)
    lengths = [sum(parts) for parts in zip(boxes, labels, gaps, strict=True)]
    lines = _lines(layers)
    folded = None
    for width in _WIDTHS:
        rows = _rows(lengths, lines, max(width, *lengths))
        folded = _folded(layers, boxes, labels, gaps, rows, spacing)
        if len(rows) == 1 or folded.width >= _ASPECT * folded.height:
            break
    assert folded is not None
    return folded


def _gaps(layers: Layers, spacing: Spacing) -> list[float]:
    """Gaps after each layer in pixels, wider where a line goes to a distant lane."""
    gaps = [spacing.gap] * len(layers.order)
    for edge_path in layers.edge_paths:
        for parent, point in edge_path.parents:
            rise = abs(layers.lane[parent] - layers.lane[point]) * spacing.lane
            at = layers.layer[parent]
            gaps[at] = max(gaps[at], min(0.3 * rise, 2.5 * spacing.gap))
    return gaps


def _lines(layers: Layers) -> list[int]:
    """For each layer, the number of points joined to the next one."""
    parents = {parent for edge_path in layers.edge_paths for parent, _ in edge_path.parents}
    return [sum(point in parents for point in points) for points in layers.order]


def _rows(lengths: Sequence[float], lines: Sequence[int], width: float) -> list[range]:
    """Rows no longer than `width`, each ending where the fewest tensors pass, the later the better."""
    rows, first = [], 0
    while sum(lengths[first:]) > _LAST_ROW * width:
        ends, along = [], 0.0
        for layer in range(first, len(lengths)):
            along += lengths[layer]
            if along > width and layer > first:
                break
            ends.append((layer + 1, along))
        ends = [end for end in ends if end[1] >= _SHORTEST_ROW * width] or ends[-1:]
        stop = min(ends, key=lambda end: (lines[end[0] - 1], -end[0]))[0]
        rows.append(range(first, stop))
        first = stop
    return [*rows, range(first, len(lengths))]


def _folded(
    layers: Layers,
    boxes: Sequence[float],
    labels: Sequence[float],
    gaps: Sequence[float],
    rows: Sequence[range],
    spacing: Spacing,
) -> FoldedLayout:
    length = max(sum(boxes[k] + labels[k] + gaps[k] for k in row) - gaps[row[-1]] for row in rows)
    columns: list[Column] = []
    for number, row in enumerate(rows):
        taken = sum(boxes[k] + labels[k] for k in row)
        between = sum(gaps[k] for k in row[:-1])
        stretch = (length - taken) / between if between and number < len(rows) - 1 else 1.0
        along = 0.0
        for k in row:
            bend = along + boxes[k] + labels[k]
            columns.append(Column(number, along, along + boxes[k], bend))
            along = bend + gaps[k] * stretch
    y, height = _heights(layers, rows, spacing)
    turns = _turns(layers, rows, y, spacing)
    margin = max((out for row in turns for out in row), default=0.0) + 4
    return FoldedLayout(length + 2 * margin, height, tuple(columns), tuple(y), margin, length, turns, layers)


def _heights(layers: Layers, rows: Sequence[range], spacing: Spacing) -> tuple[list[float], float]:
    y = [0.0] * len(layers.layer)
    top = 0.0
    for number, row in enumerate(rows):
        points = [point for layer in row for point in layers.order[layer]]
        least = min(layers.lane[point] - layers.size[point] / 2 for point in points)
        most = max(layers.lane[point] + layers.size[point] / 2 for point in points)
        for point in points:
            lane = most - layers.lane[point] if number % 2 else layers.lane[point] - least
            y[point] = top + lane * spacing.lane
        top += (most - least) * spacing.lane + spacing.row
    return y, top - spacing.row


def _turns(
    layers: Layers, rows: Sequence[range], y: Sequence[float], spacing: Spacing
) -> tuple[tuple[float, ...], ...]:
    turns: list[tuple[float, ...]] = [()] * len(layers.order)
    parents = {parent for edge_path in layers.edge_paths for parent, _ in edge_path.parents}
    for row, _ in pairwise(rows):
        points = layers.order[row[-1]]
        inner_first = sorted((point for point in points if point in parents), key=lambda point: -y[point])
        rank = {point: i for i, point in enumerate(inner_first)}
        turns[row[-1]] = tuple(spacing.turn + spacing.turn_step * rank.get(point, 0) for point in points)
    return tuple(turns)
