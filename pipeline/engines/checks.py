"""Checks of every engine before it compiles or runs, and tensors to try a segment on. Knows no kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.engines.base import Array
from pipeline.errors import PlanError
from pipeline.graph import ModelGraph, Tensor


def check(graph: ModelGraph, blocks: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]) -> None:
    """Raise PlanError unless the blocks make the outputs from the inputs."""
    if any(not 0 <= b < len(graph) for b in blocks):
        raise PlanError(f"blocks {[b for b in blocks if not 0 <= b < len(graph)]}: {graph.name!r} has {len(graph)}")
    if any(not 0 <= t < len(graph.tensors) for t in (*inputs, *outputs)):
        raise PlanError(f"segment of {graph.name!r}: there are only tensors 0 to {len(graph.tensors) - 1}")
    inputs = (*inputs, *graph.inputs) if 0 in blocks else inputs
    here = set(inputs)
    for block in sorted(blocks):
        missing = sorted(set(graph.blocks[block].inputs) - here)
        if missing:
            raise PlanError(f"segment of {graph.name!r}: block {block} needs tensors {missing}; add them to its inputs")
        here.update(graph.blocks[block].outputs)
    if not here.issuperset(outputs):
        raise PlanError(f"segment of {graph.name!r}: tensors {sorted(set(outputs) - here)} are not made in its blocks")


def fitting(tensor: Tensor, array: Array | None) -> Array:
    """The array, if it is what the manifest says. Raises PlanError."""
    if array is None:
        raise PlanError(f"tensor {tensor.id} ({tensor.name!r}) is missing")
    if array.shape != tensor.shape or array.dtype.name != tensor.dtype:
        raise PlanError(
            f"tensor {tensor.id} ({tensor.name!r}) is {array.dtype.name}{array.shape}, "
            f"the model needs {tensor.dtype}{tensor.shape}"
        )
    return array


def zeros(tensor: Tensor) -> Array:
    """Something that fits."""
    return np.zeros(tensor.shape, np.dtype(tensor.dtype))


def noise(tensor: Tensor) -> Array:
    """A stand-in for a frame: on zeros, some kernels are faster."""
    kind = np.dtype(tensor.dtype)
    if not np.issubdtype(kind, np.floating):
        return np.zeros(tensor.shape, kind)
    return np.random.default_rng(0).standard_normal(tensor.shape).astype(kind)


def check_tile(expected: Mapping[int, tuple[tuple[int, ...], str]], tensors: Mapping[int, Array]) -> None:
    """Raise PlanError unless a tile is given all of its inputs, as (shape, dtype) by tensor id."""
    for i, (shape, dtype) in expected.items():
        if i not in tensors or tensors[i].shape != shape or tensors[i].dtype.name != dtype:
            raise PlanError(f"tile's tensor {i} is {_what(tensors.get(i))}, this tile needs {dtype}{shape}")


def _what(array: Array | None) -> str:
    return "missing" if array is None else f"{array.dtype.name}{array.shape}"
