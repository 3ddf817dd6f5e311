"""Small networks that measure a processor, drawn without Keras: each layer by name, kind and size.

Weights are seeded noise. An engine makes of a sketch what it runs.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from pipeline.graph import Block, ModelGraph, Tensor
from pipeline.lite.package import SPACIOUS, SUFFIX, Array, Draft, Package, write
from pipeline.lite.program import Op

_WEIGHT = 0.05


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer over those named: `conv` and `depthwise` with SAME and stride 1, `dense`, `add`, `mean` over places.

    `size` is a convolution's kernel; `units` its channels, or a dense layer's.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    size: int = 1
    units: int = 0


@dataclass(frozen=True, slots=True)
class Sketch:
    """A network of layers over one map of (rows, columns, channels) called `image`; the last layer makes its output."""

    name: str
    image: tuple[int, int, int]
    layers: tuple[Layer, ...]


def packaged(sketch: Sketch) -> Package:
    """The sketch as a package, in a file without a name."""
    with tempfile.TemporaryDirectory(prefix="trisect-sketch-", dir=SPACIOUS) as folder:
        path = Path(folder) / f"{sketch.name}{SUFFIX}"
        write(path, _draft(sketch, sketch.name, 0), {})
        return Package(path)


def save(
    sketch: Sketch,
    path: Path,
    *,
    seed: int = 0,
    preprocess: str = "none",
    carried: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write the sketch to a package with weights of this seed, named by what is in it; see `models.pack.pack`.

    Raises ModelError.
    """
    drawn = hashlib.sha256(json.dumps([asdict(sketch), seed]).encode())
    for make in _draft(sketch, "", seed).arrays:
        drawn.update(make().data)
    write(
        path, _draft(sketch, drawn.hexdigest()[:32], seed), {"source": sketch.name, "preprocess": preprocess, **carried}
    )


def _draft(sketch: Sketch, digest: str, seed: int) -> Draft:
    tensors = [Tensor(0, "image", (1, *sketch.image), "float32")]
    blocks = [Block(0, "input", "input", (), (), (0,))]
    ops: list[tuple[Op, ...]] = [()]
    arrays: list[Array] = []
    number = {"image": 0}
    draw = np.random.default_rng(seed)
    for index, layer in enumerate(sketch.layers, start=1):
        inputs = tuple(number[name] for name in layer.inputs)
        given = tensors[inputs[0]].shape
        shapes, shape, macs, options = _sizes(layer, given)
        held = tuple(range(len(arrays), len(arrays) + len(shapes)))
        arrays += [(draw.standard_normal(one) * _WEIGHT).astype(np.float32) for one in shapes]
        parameters = sum(map(math.prod, shapes))
        tensors.append(Tensor(index, layer.name, shape, "float32"))
        blocks.append(Block(index, layer.name, layer.kind, (layer.name,), inputs, (index,), parameters, macs))
        ops.append((Op(layer.kind, inputs, (index,), held, options),))
        number[layer.name] = index
    graph = ModelGraph(sketch.name, digest, tuple(tensors), tuple(blocks), (0,), (len(tensors) - 1,))
    return Draft(graph, tuple(ops), tuple(partial(np.asarray, array) for array in arrays))


def _sizes(layer: Layer, given: tuple[int, ...]) -> tuple[list[tuple[int, ...]], tuple[int, ...], int, dict[str, Any]]:
    """Shapes of the weights, of what comes out, multiply-accumulates, and options."""
    before, size = (layer.size - 1) // 2, layer.size
    pads = {"pads": [[before, size - 1 - before]] * 2}
    if layer.kind == "conv":
        shape = (*given[:3], layer.units)
        kernel = (layer.units, size, size, given[3])
        return [kernel, (layer.units,)], shape, math.prod(shape) * size * size * given[3], pads
    if layer.kind == "depthwise":
        return [(1, size, size, given[3]), (given[3],)], given, math.prod(given) * size * size, pads
    if layer.kind == "dense":
        return [(layer.units, given[-1]), (layer.units,)], (1, layer.units), layer.units * given[-1], {}
    if layer.kind == "mean":
        return [], (1, given[3]), 0, {"axes": [1, 2], "keep": False}
    return [], given, 0, {}
