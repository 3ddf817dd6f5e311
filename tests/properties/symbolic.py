"""A network without numbers: a tensor is the hash of the block that made it and of all that it was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import xxhash

from pipeline.graph import ModelGraph, Tensor
from pipeline.wire import Array

MODEL = "model"


def hashed(*parts: object) -> Array:
    return np.array([[xxhash.xxh3_64_intdigest(repr(parts).encode()), 7]], dtype=np.uint64)


def symbolic(graph: ModelGraph) -> ModelGraph:
    """The same graph with tensors that hold one hash each."""
    tensors = tuple(Tensor(t.id, t.name, (1, 2), "uint64") for t in graph.tensors)
    return replace(graph, name=MODEL, tensors=tensors)


def run_blocks(graph: ModelGraph, blocks: Sequence[int], inputs: Mapping[int, Array]) -> dict[int, Array]:
    values = dict(inputs)
    for index in blocks:
        block = graph.blocks[index]
        if index:
            seen = [int(values[tensor][0, 0]) for tensor in block.inputs]
            values |= {tensor: hashed(index, tensor, seen) for tensor in block.outputs}
    return values


def model_inputs(graph: ModelGraph, ticket: int) -> dict[int, Array]:
    return {tensor: hashed("frame", ticket, tensor) for tensor in graph.inputs}


def right_outputs(graph: ModelGraph, ticket: int) -> dict[int, Array]:
    values = run_blocks(graph, range(len(graph)), model_inputs(graph, ticket))
    return {tensor: values[tensor] for tensor in set(graph.outputs)}
