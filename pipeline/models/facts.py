"""Facts of models: sizes and counts, for people. Shipped for the zoo, so no TensorFlow is needed.

`trisect models --all --load --json > pipeline/models/facts.json` renews what is shipped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.graph import ModelGraph, Tensor

_SHIPPED = Path(__file__).with_name("facts.json")
_NAMED_TENSORS = 3


@dataclass(frozen=True, slots=True)
class NamedBytes:
    """A tensor's name and its bytes."""

    name: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Facts of one model, independent of its weights' values.

    `parameters` are counted as papers do: before folding, without batch norm's moving statistics. `macs` are those of
    one frame. `largest` are the three largest tensors that leave a block, `narrowest` the three smallest that
    everything passes through, neither input nor output. `memory_bytes` is what a process grows by at its peak when it
    loads the model and runs the whole of it as one segment, TensorFlow itself not counted.
    """

    name: str
    inputs: tuple[str, ...]
    blocks: int
    tensors: int
    parameters: int
    macs: int
    largest: tuple[NamedBytes, ...]
    narrowest: tuple[NamedBytes, ...]
    memory_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ModelFacts:
        """The reverse of `to_json`."""
        named = {key: tuple(NamedBytes(**tensor) for tensor in value[key]) for key in ("largest", "narrowest")}
        return cls(**{**value, "inputs": tuple(value["inputs"]), **named})


def facts_of(graph: ModelGraph, *, parameters: int, memory_bytes: int) -> ModelFacts:
    """Facts of a prepared model's graph, with the two that only its preparation knows."""
    by_size = sorted(graph.tensors, key=lambda tensor: (tensor.nbytes, tensor.id))
    through = sorted(_single_cuts(graph), key=lambda tensor: (tensor.nbytes, tensor.id))
    return ModelFacts(
        name=graph.name,
        inputs=tuple(_shape(graph.tensors[t]) for t in graph.inputs),
        blocks=len(graph),
        tensors=len(graph.tensors),
        parameters=parameters,
        macs=sum(block.macs for block in graph.blocks),
        largest=tuple(NamedBytes(t.name, t.nbytes) for t in reversed(by_size[-_NAMED_TENSORS:])),
        narrowest=tuple(NamedBytes(t.name, t.nbytes) for t in through[:_NAMED_TENSORS]),
        memory_bytes=memory_bytes,
    )


def _shape(tensor: Tensor) -> str:
    return f"{tensor.dtype}[{'x'.join(map(str, tensor.shape))}]"


def _single_cuts(graph: ModelGraph) -> list[Tensor]:
    """Tensors that all data passes through: whatever the order of blocks, each other comes before or after them."""
    ends = [max(graph.consumers[t.id], default=-1) if t.id not in graph.outputs else len(graph) for t in graph.tensors]
    found = []
    for block in graph.blocks[1:-1]:
        open_here = [t for t in graph.tensors if graph.producer[t.id] <= block.index < ends[t.id]]
        if len(open_here) == 1 and open_here[0].id in block.outputs and open_here[0].id not in graph.outputs:
            found.append(open_here[0])
    return found


@cache
def shipped() -> dict[str, ModelFacts]:
    """Facts of the zoo's models by name, measured by the version of Keras that this release was made with."""
    known = (ModelFacts.from_json(value) for value in json.loads(_SHIPPED.read_text(encoding="utf-8")))
    return {facts.name: facts for facts in known}
