"""Feature maps computed place by place in NumPy, straight from each operation's definition.

Tiles are held against it. A model graph here has only the manifest; a block's weights are drawn from its index.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.graph import Axis, Block, ModelGraph, Tensor, Window
from pipeline.tiles import Fit, Stack, Tile
from pipeline.tiles.arrays import part

Array = npt.NDArray[Any]
_FILL = {"zero": 0.0, "lowest": -np.inf, "absent": np.nan}
CHANNELS = 2


def random_graph(draw: random.Random) -> ModelGraph:
    """An input map and up to nine spatial blocks: windows of every kind, joins of several maps, channel factors."""
    height, width = draw.randint(5, 14), draw.randint(5, 14)
    tensors = [Tensor(0, "image", (1, height, width, CHANNELS), "float64"), Tensor(1, "gate", (1, 1, 1, 2), "float64")]
    blocks = [Block(0, "input", "input", (), (), (0, 1))]
    maps = [0]
    for index in range(1, draw.randint(2, 10)):
        source = draw.choice(maps[-3:])
        shape = tensors[source].shape
        alike = [t for t in maps if tensors[t].shape == shape]
        windows = _random_windows(draw, shape)
        inputs: tuple[int, ...] = (source,)
        if not windows:
            inputs = tuple({source, draw.choice(alike), draw.choice([source, 1])})
        for window in windows:
            shape = (1, window.rows.made_from(shape[1]), window.columns.made_from(shape[2]), CHANNELS)
        maps.append(len(tensors))
        tensors.append(Tensor(len(tensors), f"t{index}", shape, "float64"))
        blocks.append(Block(index, f"b{index}", "map", (), inputs, (maps[-1],), windows=windows))
    return ModelGraph("naive", "0", tuple(tensors), tuple(blocks), (0, 1), (len(tensors) - 1,))


def _random_windows(draw: random.Random, shape: tuple[int, ...]) -> tuple[Window, ...]:
    kind = draw.choice(["conv", "conv", "max", "average", "pad", "padded conv", "crop", "upsample", "local", "local"])
    sizes = shape[1:3]
    if kind == "local" or (kind == "crop" and min(sizes) < 4) or (kind == "upsample" and max(sizes) > 20):
        return ()
    if kind in {"pad", "padded conv"}:
        pads = tuple(Axis(before=draw.randint(0, 3), after=draw.randint(0, 3)) for _ in range(2))
        sizes = tuple(axis.made_from(size) for axis, size in zip(pads, sizes, strict=True))
        return (Window(pads[0], pads[1]), *((_kernel(draw, sizes, "zero"),) if kind == "padded conv" else ()))
    if kind == "crop":
        rows, columns = (Axis(before=-draw.randint(0, 1), after=-draw.randint(0, 2)) for _ in range(2))
        return (Window(rows, columns),)
    if kind == "upsample":
        return (Window(Axis(scale=draw.randint(1, 3)), Axis(scale=draw.randint(1, 3))),)
    return (_kernel(draw, sizes, {"conv": "zero", "max": "lowest", "average": "absent"}[kind]),)


def _kernel(draw: random.Random, sizes: tuple[int, ...], fill: str) -> Window:
    rows, columns = (_axis(draw, size, fill) for size in sizes)
    return Window(rows, columns, fill)


def _axis(draw: random.Random, size: int, fill: str) -> Axis:
    kernel, stride = draw.randint(1, min(4, size)), draw.randint(1, 3)
    dilation = draw.randint(1, 2) if fill == "zero" and 2 * kernel - 1 <= size else 1
    if draw.random() < 0.4:
        return Axis(kernel, stride, dilation)
    total = max(0, (-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size)
    return Axis(kernel, stride, dilation, total // 2, total - total // 2)


def whole(graph: ModelGraph, given: Mapping[int, Array]) -> dict[int, Array]:
    """Every tensor of the graph."""
    made = dict(given)
    for block in graph.blocks[1:]:
        if not block.windows:
            made[block.outputs[0]] = sum((made[t] for t in block.inputs), start=np.zeros(())) * block.index
            continue
        x = made[block.inputs[0]]
        for window in block.windows:
            pads = [(axis.before, axis.after) for axis in (window.rows, window.columns)]
            x = _repeated(x, window.rows.scale, window.columns.scale)
            x = _padded(x, [(max(0, a), max(0, b)) for a, b in pads], window.fill)
            (top, bottom), (left, right) = [(max(0, -a), max(0, -b)) for a, b in pads]
            x = _swept(x[:, top : x.shape[1] - bottom, left : x.shape[2] - right], window, block.index)
        made[block.outputs[0]] = x
    return made


def tiled(graph: ModelGraph, stack: Stack, tile: Tile, given: Mapping[int, Array]) -> Array:
    """A tile's part of the output, from its parts of the inputs and its fits alone."""
    made = {t: part(given[t], tile.regions[t]) for t in stack.inputs}
    for index in stack.blocks:
        block, fits = graph.blocks[index], tile.fits[index]
        if not block.windows:
            read = [_taken(made[t], pair) for t, pair in zip(block.inputs, fits, strict=True)]
            made[block.outputs[0]] = sum(read, start=np.zeros(())) * index
            continue
        x = made[block.inputs[0]]
        for window, pair in zip(block.windows, fits, strict=True):
            rows, columns = pair
            x = _repeated(_taken(x, pair), rows.scale, columns.scale)
            x = x[:, rows.first : rows.last, columns.first : columns.last]
            x = _swept(_padded(x, [(one.before, one.after) for one in pair], window.fill), window, index)
        made[block.outputs[0]] = x
    return made[stack.output]


def _taken(x: Array, fits: tuple[Fit, Fit]) -> Array:
    rows, columns = fits
    return x[:, rows.start : rows.stop, columns.start : columns.stop]


def _repeated(x: Array, down: int, across: int) -> Array:
    return x.repeat(down, axis=1).repeat(across, axis=2)


def _padded(x: Array, pads: list[tuple[int, int]], fill: str) -> Array:
    return np.pad(x, [(0, 0), *pads, (0, 0)], constant_values=_FILL[fill])


def _swept(x: Array, window: Window, seed: int) -> Array:
    """The operation without padding: each output from the places its kernel lies on, in one order everywhere."""
    rows, columns = window.rows, window.columns
    high, wide = ((a.kernel - 1) * a.dilation + 1 for a in (rows, columns))
    weights = np.random.default_rng(seed).standard_normal((rows.kernel, columns.kernel, 1))
    height, width = (x.shape[1] - high) // rows.stride + 1, (x.shape[2] - wide) // columns.stride + 1
    made = np.empty((1, height, width, x.shape[3]))
    for i in range(height):
        for j in range(width):
            top, left = i * rows.stride, j * columns.stride
            seen = x[0, top : top + high : rows.dilation, left : left + wide : columns.dilation]
            if window.fill == "lowest":
                made[0, i, j] = seen.max(axis=(0, 1))
            elif window.fill == "absent":
                real = ~np.isnan(seen)
                made[0, i, j] = np.where(real, seen, 0.0).sum(axis=(0, 1)) / real.sum(axis=(0, 1))
            else:
                made[0, i, j] = (seen * weights).sum(axis=(0, 1))
    return made
