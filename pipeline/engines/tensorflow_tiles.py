"""TensorFlow's tile segments: a stack of blocks over one kind of tile, with the padding that its place asks for.

Each operation gets what it reads, padded by hand at the map's borders, and runs without padding of its own; average
pools, which count the real inputs under `same`, keep theirs over rows that are put in its way and cut off again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.engines.base import Array
from pipeline.engines.checks import check_tile
from pipeline.engines.tensorflow_ops import caller, kept_apart, pads_widely
from pipeline.engines.tensorflow_trace import SCOPE
from pipeline.graph import Window
from pipeline.prepare.flatten import Call
from pipeline.prepare.model import PreparedModel
from pipeline.prepare.windows import WINDOWED
from pipeline.tensorflow_runtime import as_array, lent_as_tensor, tf
from pipeline.tiles.regions import Fit, placed
from pipeline.tiles.split import Tile, size_in
from pipeline.tiles.stacks import Stack

_MAP_RANK = 4
_LOWEST = float("-inf")


class TensorFlowTileSegment:
    """A stack as one graph function over tiles of one kind: inputs by tensor id, the output as one array."""

    def __init__(self, model: PreparedModel, tile: Tile, stack: Stack) -> None:
        self.inputs, self.output = stack.inputs, stack.output
        self.expected = {i: (size_in(model.graph, tile, i), model.graph.tensors[i].dtype) for i in stack.inputs}
        self._call = caller(_function(model, tile, stack))

    def run(self, tensors: Mapping[int, Array]) -> Array:
        """The tile's region of the stack's output, a read-only view. Raises PlanError for inputs that do not fit."""
        check_tile(self.expected, tensors)
        (made,) = self._call(*[lent_as_tensor(tensors[i]) for i in self.inputs])
        return as_array(made)


def _function(model: PreparedModel, tile: Tile, stack: Stack) -> Any:
    def segment(*arrays: Any) -> list[Any]:
        tensors = dict(zip(stack.inputs, arrays, strict=True))
        for index in stack.blocks:
            with tf.name_scope(SCOPE.format(index)):
                made = _block(model, tile, index, tensors)
                (output,) = model.graph.blocks[index].outputs
                tensors[output] = tf.raw_ops.EnsureShape(input=made, shape=size_in(model.graph, tile, output))
        return [tensors[stack.output]]

    specs = [tf.TensorSpec(size_in(model.graph, tile, i), model.graph.tensors[i].dtype) for i in stack.inputs]
    return tf.function(segment, autograph=False).get_concrete_function(*specs)


def _block(model: PreparedModel, tile: Tile, index: int, tensors: Mapping[int, Any]) -> Any:
    block, fits = model.graph.blocks[index], tile.fits[index]
    if not block.windows:
        local = {i: _taken(tensors[i], pair) for i, pair in zip(block.inputs, fits, strict=True)}
    else:
        local = {i: tensors[i] for i in block.inputs}
    windows = iter(zip(block.windows or (), fits, strict=False))
    for number, call in enumerate(model.calls[index]):
        if type(call.operation) in WINDOWED:
            made = [_windowed(call, local[call.inputs[0]], *next(windows))]
        else:
            made = call.perform(local)
        if number == 0 and pads_widely(block):
            made = [kept_apart(made[0])]
        local.update(zip(call.outputs, made, strict=True))
    return local[block.outputs[0]]


def _taken(tensor: Any, fits: tuple[Fit, Fit]) -> Any:
    """A reader's part of what the tile holds."""
    rows, columns = fits
    if len(tensor.shape) != _MAP_RANK:
        return tensor
    if (0, 0, *tensor.shape[1:3]) == (rows.start, columns.start, rows.stop, columns.stop):
        return tensor
    return tensor[:, rows.start : rows.stop, columns.start : columns.stop, :]


def _windowed(call: Call, given: Any, window: Window, fits: tuple[Fit, Fit]) -> Any:
    kind = type(call.operation).__name__
    taken = _taken(given, fits)
    if kind == "UpSampling2D":
        (repeated,) = call.perform({call.inputs[0]: taken})
        rows, columns = fits
        return repeated[:, rows.first : rows.last, columns.first : columns.last, :]
    if window.fill == "absent" and any(one.before or one.after for one in fits):
        return _averaged(call, taken, window, fits)
    padded = _padded(taken, [(one.before, one.after) for one in fits], _LOWEST if window.fill == "lowest" else 0.0)
    if kind in {"ZeroPadding2D", "Cropping2D"}:
        return padded
    with _unpadded(call.operation):
        return call.perform({call.inputs[0]: padded})[0]


def _padded(tensor: Any, pads: list[tuple[int, int]], value: float) -> Any:
    if not any(map(any, pads)):
        return tensor
    return tf.pad(tensor, [(0, 0), *pads, (0, 0)], constant_values=value)


def _averaged(call: Call, given: Any, window: Window, fits: tuple[Fit, Fit]) -> Any:
    """The average pool of a map padded so that borders and strides fall where the whole map's would."""
    sizes = given.shape[1:3]
    places = [placed(axis, one, n) for axis, one, n in zip((window.rows, window.columns), fits, sizes, strict=True)]
    (made,) = call.perform({call.inputs[0]: _padded(given, [(before, after) for before, after, _, _ in places], 0.0)})
    (_, _, top, bottom), (_, _, left, right) = places
    return made[:, top:bottom, left:right, :]


@contextlib.contextmanager
def _unpadded(layer: Any) -> Iterator[None]:
    """The layer without its padding, for one call; the engine's lock keeps other threads from it."""
    padding, layer.padding = layer.padding, "valid"
    try:
        yield
    finally:
        layer.padding = padding
