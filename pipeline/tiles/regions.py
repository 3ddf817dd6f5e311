"""The arithmetic of regions: which inputs an operation reads for a span of its outputs, one axis at a time.

Spans are half-open. Source: D3's VSM, with each tile's own padding at the map's borders and none inside.
"""

from __future__ import annotations

from typing import NamedTuple

from pipeline.graph import Axis


class Span(NamedTuple):
    """Positions from `start` up to, not including, `stop` along one axis of a map."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of positions."""
        return self.stop - self.start

    def clipped(self, size: int) -> Span:
        """The part that lies on a map of this size; empty if none does."""
        start = min(max(self.start, 0), size)
        return Span(start, max(start, min(self.stop, size)))

    def union(self, other: Span) -> Span:
        """The least span with both in it."""
        return Span(min(self.start, other.start), max(self.stop, other.stop))


class Region(NamedTuple):
    """A rectangle of a feature map."""

    rows: Span
    columns: Span

    @property
    def area(self) -> int:
        """Number of places: rows times columns."""
        return self.rows.size * self.columns.size

    def union(self, other: Region) -> Region:
        """The least region with both in it."""
        return Region(self.rows.union(other.rows), self.columns.union(other.columns))


class Fit(NamedTuple):
    """Steps from a tile's part of a map to the input of an operation without padding, along one axis.

    Take `start:stop` of what the tile holds, repeat each `scale` times, take `first:last` of that, put `before` and
    `after` of the filling around it. All relative to the tile: tiles of one shape and border have equal fits.
    """

    start: int
    stop: int
    before: int = 0
    after: int = 0
    scale: int = 1
    first: int = 0
    last: int = 0


def read_span(axis: Axis, made: Span) -> Span:
    """The (repeated) inputs under a span of outputs; it may reach over the map's edges, into the padding."""
    if not made.size:
        return Span(0, 0)
    start = made.start * axis.stride - axis.before
    last = (made.stop - 1) * axis.stride - axis.before + axis.dilation * (axis.kernel - 1)
    return Span(start, last + 1)


def needed(axis: Axis, made: Span, size: int) -> Span:
    """The real inputs, of a map of this size, that a span of outputs hangs on: one even under mere padding."""
    real = read_span(axis, made).clipped(size * axis.scale)
    start = min(real.start // axis.scale, size - 1)
    return Span(start, max(start + 1, -(-real.stop // axis.scale)))


def fit(axis: Axis, made: Span, held: Span, size: int) -> Fit:
    """The steps from the inputs `held` (of a map of this size) to the inputs of the outputs `made`.

    `held` must cover `needed(axis, made, size)`.
    """
    read = read_span(axis, made)
    real = read.clipped(size * axis.scale)
    start, stop = real.start // axis.scale, -(-real.stop // axis.scale)
    stop = max(start, stop) if real.size else start
    start, stop = (min(max(at, held.start), held.stop) for at in (start, stop))
    first = real.start - start * axis.scale if real.size else 0
    padding = read.size - real.size
    before = min(max(0, -read.start), padding)
    return Fit(start - held.start, stop - held.start, before, padding - before, axis.scale, first, first + real.size)


def placed(axis: Axis, one: Fit, held: int) -> tuple[int, int, int, int]:
    """For averages of real inputs only: rows to put around what a tile holds, and the outputs that then are its own.

    Under `same` the windows' positions depend on the size of the map modulo the stride, which follows from the padding.
    """
    count = (held + one.before + one.after - axis.kernel) // axis.stride + 1
    padding = axis.before + axis.after
    if one.before:
        skipped, before = (axis.before - one.before) // axis.stride, 0
    else:
        skipped = -(-axis.before // axis.stride)
        before = skipped * axis.stride - axis.before
    after = 0 if one.after or not padding else (axis.kernel - padding - before - held) % axis.stride
    return before, after, skipped, skipped + count
