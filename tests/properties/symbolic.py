"""A network without numbers: each place of a map is a hash of its block and of the same places of all it was made from.

So an output is right only if the right blocks ran on the right tensors, and a tile only if it was cut, computed and put
back where it belongs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import numpy as np
import xxhash

from pipeline.cost import Costs
from pipeline.errors import Infeasible
from pipeline.graph import ModelGraph, Tensor
from pipeline.partition import exact, search
from pipeline.partition.constraints import Constraint, broken
from pipeline.partition.exact import Solution
from pipeline.partition.objective import LATENCY, Objective
from pipeline.placement import Placement
from pipeline.wire import Array
from tests.graphs import all_placements

MODEL = "model"
HEIGHT, WIDTH = 3, 2
_ODD = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)


def _seed(*parts: object) -> np.uint64:
    return np.uint64(xxhash.xxh3_64_intdigest(repr(parts).encode()))


def _mixed(seed: np.uint64, arrays: Sequence[Array]) -> Array:
    mixed = np.full(arrays[0].shape, seed)
    for array in arrays:
        mixed = (mixed ^ array) * _ODD
        mixed ^= mixed >> _SHIFT
    return mixed


def symbolic(graph: ModelGraph) -> ModelGraph:
    """The same graph of maps of hashes; every block with one output can be tiled."""
    tensors = tuple(Tensor(t.id, t.name, (1, HEIGHT, WIDTH, 1), "uint64") for t in graph.tensors)
    blocks = tuple(
        replace(block, windows=() if block.index and len(block.outputs) == 1 else None) for block in graph.blocks
    )
    return replace(graph, name=MODEL, tensors=tensors, blocks=blocks)


def run_blocks(graph: ModelGraph, blocks: Sequence[int], inputs: Mapping[int, Array]) -> dict[int, Array]:
    values = dict(inputs)
    for index in blocks:
        block = graph.blocks[index]
        if index:
            seen = [values[tensor] for tensor in block.inputs]
            values |= {tensor: _mixed(_seed(index, tensor), seen) for tensor in block.outputs}
    return values


def model_inputs(graph: ModelGraph, pending_frame: int) -> dict[int, Array]:
    places = np.arange(HEIGHT * WIDTH, dtype=np.uint64).reshape(1, HEIGHT, WIDTH, 1)
    return {tensor: _mixed(_seed("frame", pending_frame, tensor), [places]) for tensor in graph.inputs}


def right_outputs(graph: ModelGraph, pending_frame: int) -> dict[int, Array]:
    values = run_blocks(graph, range(len(graph)), model_inputs(graph, pending_frame))
    return {tensor: values[tensor] for tensor in set(graph.outputs)}


def any_placement(graph: ModelGraph, costs: Costs, constraints: Sequence[Constraint] = ()) -> Placement:
    """In place of the exact planner: some placement, the same for the same costs, so that plans differ much."""
    all_of_them = all_placements(graph, frozenset(costs.seconds))
    possible = [placement for placement in all_of_them if not broken(graph, placement, costs, constraints)]
    if not possible:
        raise Infeasible("no placement respects the constraints")
    return possible[xxhash.xxh3_64_intdigest(repr(sorted(costs.seconds.items())).encode()) % len(possible)]


def any_solution(
    graph: ModelGraph,
    costs: Costs,
    constraints: Sequence[Constraint] = (),
    objective: Objective = LATENCY,
    *,
    explain: bool = True,
) -> Solution:
    """The same, as the planner asks for it (`exact.solve`): among those that respect the constraints."""
    return Solution(any_placement(graph, costs, constraints), 0.0)


@contextmanager
def planned_anyhow() -> Iterator[mock.MagicMock]:
    """Plans are any placement that is allowed, the same for the same costs; the mock is asked for each."""
    with (
        mock.patch.object(search, "all_cuts_of", return_value=None),  # else all are priced, and the best one is taken
        mock.patch.object(exact, "solve", side_effect=any_solution) as asked,
    ):
        yield asked
