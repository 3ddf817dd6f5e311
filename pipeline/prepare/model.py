"""A model ready to be cut: its manifest, and for each block the Keras calls that run it.

`pipeline.models.load` makes one of a source, the same on every node. Knows no engine and no frame.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.graph import ModelGraph
from pipeline.lite.package import SPACIOUS, SUFFIX, Package, write
from pipeline.prepare.blocks import describe, group, variables
from pipeline.prepare.digest import digest
from pipeline.prepare.flatten import Call, FlatModel, Spec, flatten
from pipeline.prepare.folding import simplify
from pipeline.prepare.footprint import ACTIVATIONS_HELD, BLOCK_BYTES, reordered_bytes


@dataclass(frozen=True)
class PreparedModel:
    """`calls[i]` are those of block i (none for the input); ids below `len(graph.tensors)` are the manifest's.

    `specs` has the shape and dtype of each tensor, those within blocks too.
    """

    graph: ModelGraph
    calls: tuple[tuple[Call, ...], ...]
    specs: Mapping[int, Spec]

    @cached_property
    def package(self) -> Package:
        """The model as a package, in a file without a name. Raises ModelError."""
        from pipeline.prepare.lowering import lower

        with tempfile.TemporaryDirectory(prefix="trisect-package-", dir=SPACIOUS) as folder:
            path = Path(folder) / f"{self.graph.digest}{SUFFIX}"
            write(path, lower(self), {})
            return Package(path)

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        held = {id(v): v for block in self.calls for call in block for v in variables(call)}
        return sum(v.value.numpy().nbytes for v in held.values())

    def segment_bytes(self, blocks: Sequence[int]) -> int:
        """Bytes that one more segment takes once it has run: oneDNN's copies, activations, TensorFlow's graph."""
        held = [self.graph.tensors[t].nbytes for b in blocks for t in self.graph.blocks[b].outputs]
        copies = reordered_bytes([call for block in blocks for call in self.calls[block]])
        return copies + ACTIVATIONS_HELD * max(held, default=0) + BLOCK_BYTES * len(blocks)


def prepare(model: Any, name: str) -> PreparedModel:
    """Prepare a Keras model that is already there, and use it up: its graph is taken apart to free what was folded."""
    flat = flatten(model, name, renumber=True)
    flat.trace = None  # it would hold the weights that are folded
    return prepared_from(flat)


def prepared_from(flat: FlatModel) -> PreparedModel:
    """Prepare a flattened model, and use it up. Raises ModelError."""
    return prepared_with_ids(flat)[0]


def prepared_with_ids(flat: FlatModel) -> tuple[PreparedModel, Mapping[int, int]]:
    """The same, and for each tensor that is left of the flat model its id in the prepared one."""
    originals = [call.operation for call in flat.calls]
    simplify(flat)
    groups = group(flat)
    tensors, blocks, number = describe(flat, groups)
    calls = ((), *(tuple(_renumber(call, number) for call in calls) for calls in groups))
    inputs, outputs = (tuple(number[t] for t in ids) for ids in (flat.inputs, flat.outputs))
    specs = {number[t]: spec for t, spec in flat.specs.items() if t in number}
    graph = ModelGraph(
        name=flat.name,
        digest=digest(calls, inputs, outputs, specs),
        tensors=tuple(tensors),
        blocks=tuple(blocks),
        inputs=inputs,
        outputs=outputs,
    )
    _let_go(originals)
    return PreparedModel(graph, calls, specs), number


def _renumber(call: Call, number: Mapping[int, int]) -> Call:
    return replace(call.reading(number), outputs=tuple(number[t] for t in call.outputs))


def _let_go(operations: list[Any]) -> None:
    """Each layer refers to its neighbours in the original graph; one that stays would keep all weights in memory."""
    for operation in operations:
        operation._inbound_nodes.clear()
        operation._outbound_nodes.clear()
    operations.clear()
    gc.collect()
