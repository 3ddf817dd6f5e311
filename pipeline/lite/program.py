"""A network as operations on tensors: what a package holds, and what an engine without Keras runs.

Operations say what is computed, not by which kernel: `pipeline.lite.forms` chooses that. Knows no file and no library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ModelError
from pipeline.graph import ModelGraph

WINDOWED = frozenset({"conv", "depthwise", "max_pool", "average_pool", "pad", "crop", "upsample"})
"""Kinds that read a window of a map for each of their outputs; `Op.window` is their place in the block's windows."""

UNARY = frozenset(
    {
        *("relu", "relu6", "elu", "sigmoid", "silu", "hard_silu", "hard_sigmoid", "tanh", "gelu", "gelu_tanh"),
        *("exp", "log", "sqrt", "rsqrt", "square", "abs", "negative", "softplus"),
    }
)
BINARY = frozenset({"add", "subtract", "multiply", "divide", "maximum", "minimum"})
REDUCTIONS = frozenset({"mean", "sum", "max"})
SHAPING = frozenset({"reshape", "transpose", "concat", "cast", "slice"})
ARRAY = -1
"""Stands for the next constant array among an operation's inputs."""

KINDS = (
    WINDOWED
    | UNARY
    | BINARY
    | REDUCTIONS
    | SHAPING
    | {"dense", "leaky_relu", "prelu", "clip", "softmax", "layer_norm", "matmul", "gather", "foreign"}
)


@dataclass(frozen=True, slots=True)
class Op:
    """One operation: value ids in and out, and ids of the constant arrays that it reads, in its kind's own order.

    Value ids below the graph's number of tensors are those tensors, others live within the block. An input of ARRAY is
    the next of `arrays`. `options` are plain JSON values.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    arrays: tuple[int, ...]
    options: Mapping[str, Any]
    window: int | None = None

    def to_json(self) -> list[Any]:
        """Plain JSON values."""
        return [self.kind, self.inputs, self.outputs, self.arrays, dict(self.options), self.window]


@dataclass(frozen=True)
class Program:
    """The operations of each block, in order. Raises ModelError where one reads what is not made before it."""

    graph: ModelGraph
    blocks: tuple[tuple[Op, ...], ...]
    arrays: int
    """How many constant arrays there are."""

    def __post_init__(self) -> None:
        if len(self.blocks) != len(self.graph):
            raise ModelError(
                f"program of {self.graph.name!r}: operations for {len(self.blocks)} blocks, it has {len(self.graph)}"
            )
        for block, ops in zip(self.graph.blocks, self.blocks, strict=True):
            known = set(block.inputs) | (set(block.outputs) if block.index == 0 else set())
            for op in ops:
                self._check(block.name, op, known)
                known.update(op.outputs)
            if missing := set(block.outputs) - known:
                raise ModelError(f"{self._wrong(block.name)} does not make tensors {sorted(missing)[:5]}")

    def _wrong(self, block: str) -> str:
        return f"program of {self.graph.name!r}: block {block!r}"

    def _check(self, block: str, op: Op, known: set[int]) -> None:
        if op.kind not in KINDS:
            raise ModelError(f"{self._wrong(block)}: unknown operation {op.kind[:40]!r}; a newer trisect wrote it")
        if missing := [i for i in op.inputs if i != ARRAY and i not in known]:
            raise ModelError(f"{self._wrong(block)}: {op.kind} reads values {missing[:5]} before they are made")
        if op.inputs.count(ARRAY) > len(op.arrays) or any(not 0 <= i < self.arrays for i in op.arrays):
            raise ModelError(f"{self._wrong(block)}: {op.kind} reads arrays {op.arrays[:5]}, there are {self.arrays}")
        if not op.outputs:
            raise ModelError(f"{self._wrong(block)}: {op.kind} makes nothing")

    def arrays_of(self, block: int) -> tuple[int, ...]:
        """Ids of the constants that a block reads, each once, in order."""
        return tuple(dict.fromkeys(i for op in self.blocks[block] for i in op.arrays))

    @property
    def foreign(self) -> tuple[int, ...]:
        """Blocks that only the converter's own graph computes."""
        return tuple(i for i, ops in enumerate(self.blocks) if any(op.kind == "foreign" for op in ops))


def op_from_json(value: Any) -> Op:
    """Read an operation; raises TypeError or ValueError for anything that is not one."""
    kind, inputs, outputs, arrays, options, window = value
    if not isinstance(options, dict):
        raise TypeError("options must be a map")
    return Op(str(kind), _ids(inputs), _ids(outputs), _ids(arrays), options, None if window is None else int(window))


def _ids(values: Sequence[Any]) -> tuple[int, ...]:
    return tuple(int(v) for v in values)
