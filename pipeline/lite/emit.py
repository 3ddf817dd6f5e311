"""Write the operations of blocks for whole maps or for one kind of tile: each gets what its place asks for.

A block's operations are the same whatever stands around them in the file, so a cut changes no bit. Knows no weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from pipeline.errors import ModelError, TileError
from pipeline.graph import Axis, Window
from pipeline.lite.flatfile import Ref
from pipeline.lite.forms import Forms
from pipeline.lite.program import ARRAY, BINARY, REDUCTIONS, UNARY, WINDOWED, Op, Program
from pipeline.lite.windows import NO_PADS, Geometry, Pads
from pipeline.tiles.regions import Fit, placed
from pipeline.tiles.split import Tile

_MAP_RANK = 4
_HALVES = frozenset({"sigmoid", "silu"})
"""Activations that cost less over x / 2, which the products before them give for nothing."""
_CONVOLUTIONS = frozenset({"conv", "depthwise"})
_SCALABLE = frozenset({"conv", "depthwise", "dense"})


class Emitter:
    """Appends blocks of a program to a file, over whole tensors or, with a tile, over its regions."""

    def __init__(self, forms: Forms, program: Program, tile: Tile | None = None) -> None:
        self._forms, self._program, self._tile = forms, program, tile

    def block(self, index: int, tensors: dict[int, Ref]) -> None:
        """Add a block's outputs to `tensors`, by tensor id. Raises ModelError, TileError."""
        block, ops = self._program.graph.blocks[index], self._program.blocks[index]
        local = {i: tensors[i] for i in block.inputs}
        fits: tuple[tuple[Fit, Fit], ...] = ()
        if self._tile is not None:
            fits = self._tile.fits[index]
            if not block.windows:
                local = {i: self._taken(local[i], pair) for i, pair in zip(block.inputs, fits, strict=True)}
        halved = _halved(ops, block.outputs) if self._forms.everywhere else frozenset()
        pads = _Pads(ops, block.outputs)
        for position, op in enumerate(ops):
            try:
                made = self._op(op, local, fits, block.windows or (), pads, is_halved=position in halved)
            except (KeyError, TypeError, IndexError, ValueError) as error:
                what = f"{op.kind}: {type(error).__name__}: {str(error)[:120]}"
                raise ModelError(f"program of {self._program.graph.name!r}: block {block.name!r}: {what}") from error
            local.update(zip(op.outputs, made, strict=True))
        tensors.update({i: local[i] for i in block.outputs})

    def _taken(self, x: Ref, fits: tuple[Fit, Fit]) -> Ref:
        rows, columns = fits
        if len(x.shape) != _MAP_RANK:
            return x
        return self._forms.cut(x, (rows.start, rows.stop), (columns.start, columns.stop))

    def _op(
        self,
        op: Op,
        local: Mapping[int, Ref],
        fits: Sequence[tuple[Fit, Fit]],
        windows: Sequence[Window],
        pads: _Pads,
        *,
        is_halved: bool,
    ) -> list[Ref]:
        arrays = iter(op.arrays)
        given = [self._forms.array(next(arrays)) if i == ARRAY else local[i] for i in op.inputs]
        if op.kind in WINDOWED:
            fit = fits[op.window] if self._tile is not None and op.window is not None else None
            if self._tile is not None and fit is None and not self._forms.is_pointwise(op.arrays):
                raise TileError(f"{op.kind} cannot be tiled")
            window = windows[op.window] if fit is not None and op.window is not None else None
            return [self._windowed(op, given[0], fit, window, pads, is_halved=is_halved)]
        return _PLAIN[op.kind](self._forms, op, given, is_halved)

    def _windowed(
        self,
        op: Op,
        x: Ref,
        fits: tuple[Fit, Fit] | None,
        window: Window | None,
        around: _Pads,
        *,
        is_halved: bool,
    ) -> Ref:
        forms, options = self._forms, op.options
        pads = _pads(options.get("pads"))
        if fits is not None and window is not None:
            if any(fit.start == fit.stop for fit in fits):
                x, fits = self._padding_only(x, fits, lowest=op.kind == "max_pool")
            x = x if around.has_postponed(op) else self._taken(x, fits)  # a padded part is taken whole
            if op.kind == "average_pool" and any(fit.before or fit.after for fit in fits):
                return self._averaged(op, x, fits, window)
            pads = (fits[0].before, fits[0].after), (fits[1].before, fits[1].after)
        if op.kind == "pad":
            return x if around.postpone(op, pads) else forms.padded(x, pads, 0.0)
        if op.kind == "crop":
            return x if fits is not None else forms.cut(x, _pair(options["rows"]), _pair(options["columns"]))
        if op.kind == "upsample":
            x = forms.repeated(x, _pair(options["times"]))
            return x if fits is None else forms.cut(x, *((one.first, one.last) for one in fits))
        pads = around.with_postponed(op, pads)
        stride, scale = _pair(options.get("stride", (1, 1))), 0.5 if is_halved else 1.0
        geometry = Geometry(stride, _pair(options.get("dilation", (1, 1))), pads)
        if op.kind in {"max_pool", "average_pool"}:
            return forms.pool(x, op.kind, _pair(options["size"]), geometry)
        product = forms.conv if op.kind == "conv" else forms.depthwise
        return product(x, op.arrays, geometry, options.get("activation", "none"), scale=scale)

    def _padding_only(self, x: Ref, fits: tuple[Fit, Fit], *, lowest: bool) -> tuple[Ref, tuple[Fit, Fit]]:
        """Stand-ins for a part of a map that lies wholly in the padding: a row or column that holds its filling.

        Files have no empty tensors, so one real row is taken and filled, and counts as the first of the padding.
        """
        x = self._forms.filled(x, -math.inf if lowest else 0.0)
        rows, columns = (_one_kept(fit, size) for fit, size in zip(fits, x.shape[1:3], strict=True))
        return x, (rows, columns)

    def _averaged(self, op: Op, x: Ref, fits: tuple[Fit, Fit], window: Window) -> Ref:
        """Append the average pool of a map padded so that borders and strides fall where the whole map's would."""
        axes: tuple[Axis, Axis] = (window.rows, window.columns)
        rows, columns = (
            placed(axis, fit, x.shape[1 + i]) for i, (axis, fit) in enumerate(zip(axes, fits, strict=True))
        )
        x = self._forms.padded(x, (rows[:2], columns[:2]), 0.0)
        made = self._forms.same_average(x, _pair(op.options["size"]), _pair(op.options.get("stride", (1, 1))))
        return self._forms.cut(made, rows[2:], columns[2:])


class _Pads:
    """Paddings of a block that the convolution after them takes over: no map is copied for them."""

    def __init__(self, ops: Sequence[Op], outputs: Sequence[int]) -> None:
        self._waiting: dict[int, Pads] = {}
        self._taken = {
            op.outputs[0]
            for op, following in pairwise(ops)
            if op.kind == "pad"
            and following.kind in _CONVOLUTIONS
            and following.inputs == op.outputs
            and op.outputs[0] not in outputs
            and sum(one.inputs.count(op.outputs[0]) for one in ops) == 1
        }

    def postpone(self, op: Op, pads: Pads) -> bool:
        """Keep the padding for the operation after it, if that can take it over; returns True then."""
        if op.outputs[0] in self._taken:
            self._waiting[op.outputs[0]] = pads
        return op.outputs[0] in self._taken

    def has_postponed(self, op: Op) -> bool:
        """True when a padding was kept for this operation."""
        return op.inputs[0] in self._waiting

    def with_postponed(self, op: Op, pads: Pads) -> Pads:
        """The operation's padding and what waited for it."""
        rows, columns = self._waiting.get(op.inputs[0], NO_PADS)
        return (pads[0][0] + rows[0], pads[0][1] + rows[1]), (pads[1][0] + columns[0], pads[1][1] + columns[1])


def _halved(ops: Sequence[Op], outputs: Sequence[int]) -> frozenset[int]:
    """Positions of products and of the sigmoid or silu after them that are computed over half of the product."""
    found: set[int] = set()
    for position, (op, following) in enumerate(pairwise(ops)):
        feeds = op.kind in _SCALABLE and following.kind in _HALVES and following.inputs == op.outputs
        readers = sum(one.inputs.count(op.outputs[0]) for one in ops)
        if feeds and readers == 1 and op.outputs[0] not in outputs and op.options.get("activation", "none") == "none":
            found.update((position, position + 1))
    return frozenset(found)


def _one_kept(fit: Fit, size: int) -> Fit:
    if fit.start != fit.stop:
        return fit
    start = min(fit.start, size - 1)
    before, after = (fit.before - 1, fit.after) if fit.before else (fit.before, fit.after - 1)
    return fit._replace(start=start, stop=start + 1, before=before, after=after, first=0, last=fit.scale)


def _pair(value: Any) -> tuple[int, int]:
    first, second = value
    return int(first), int(second)


def _pads(value: Any) -> Pads:
    return NO_PADS if value is None else (_pair(value[0]), _pair(value[1]))


def _dense(forms: Forms, op: Op, given: Sequence[Ref], is_halved: bool) -> list[Ref]:
    scale = 0.5 if is_halved else 1.0
    return [forms.dense(given[0], op.arrays, op.options.get("activation", "none"), scale=scale)]


def _unary(forms: Forms, op: Op, given: Sequence[Ref], is_halved: bool) -> list[Ref]:
    if is_halved:
        return [forms.silu_of_half(given[0]) if op.kind == "silu" else forms.sigmoid_of_half(given[0])]
    return [forms.unary(op.kind, given[0], op.options)]


def _binary(forms: Forms, op: Op, given: Sequence[Ref], _: bool) -> list[Ref]:
    return [forms.binary(op.kind, given[0], given[1], op.options.get("activation", "none"))]


def _reduce(forms: Forms, op: Op, given: Sequence[Ref], _: bool) -> list[Ref]:
    return [forms.reduce(op.kind, given[0], [int(i) for i in op.options["axes"]], bool(op.options["keep"]))]


def _layer_norm(forms: Forms, op: Op, given: Sequence[Ref], _: bool) -> list[Ref]:
    scale, shift = (forms.array(op.arrays[at]) if at is not None else None for at in op.options["arrays_at"])
    return [forms.layer_norm(given[0], float(op.options["epsilon"]), scale, shift)]


def _matmul(forms: Forms, op: Op, given: Sequence[Ref], _: bool) -> list[Ref]:
    return [forms.matmul(*given, transpose_x=bool(op.options["x"]), transpose_y=bool(op.options["y"]))]


def _slice(forms: Forms, op: Op, given: Sequence[Ref], _: bool) -> list[Ref]:
    return [forms.slice(given[0], [int(i) for i in op.options["begin"]], [int(i) for i in op.options["sizes"]])]


_PLAIN: Mapping[str, Callable[[Forms, Op, Sequence[Ref], bool], list[Ref]]] = {
    **dict.fromkeys(UNARY | {"leaky_relu", "clip"}, _unary),
    **dict.fromkeys(BINARY, _binary),
    **dict.fromkeys(REDUCTIONS, _reduce),
    "dense": _dense,
    "prelu": lambda forms, op, given, _: [forms.prelu(*given)],
    "softmax": lambda forms, op, given, _: [forms.softmax(given[0])],
    "layer_norm": _layer_norm,
    "matmul": _matmul,
    "reshape": lambda forms, op, given, _: [forms.reshape(given[0], [int(n) for n in op.options["shape"]])],
    "transpose": lambda forms, op, given, _: [forms.transpose(given[0], [int(n) for n in op.options["order"]])],
    "concat": lambda forms, op, given, _: [forms.concat(given, int(op.options["axis"]))],
    "slice": _slice,
    "cast": lambda forms, op, given, _: [forms.cast(given[0], str(op.options["dtype"]))],
    "gather": lambda forms, op, given, _: [forms.gather(*given)],
}
