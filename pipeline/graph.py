"""The model graph: blocks and the tensors between them, as a JSON manifest that needs no TensorFlow to read.

Vertex 0 is the input block; it stands on the device and produces the model's inputs. Blocks are in topological
order. Every shape has its batch dimension, which is 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from typing import Annotated, Any, NamedTuple, TypeAlias

import numpy as np
from pydantic import Field, Strict

from pipeline import ranges
from pipeline.errors import ModelError
from pipeline.ranges import Count, Extent, Index, Name, Padding, Size, Word

MANIFEST_VERSION = 2
DTYPES = frozenset(
    [
        "bool",
        *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
        "float16",
        "float32",
        "float64",
    ]
)
"""What a tensor may hold, as NumPy names it."""
_DTYPE = f"^({'|'.join(sorted(DTYPES))})$"
MOST_TENSOR_BYTES = 1 << 40
TensorIds: TypeAlias = Annotated[tuple[Index, ...], Field(max_length=ranges.MOST_BLOCKS)]
Shape: TypeAlias = Annotated[tuple[Size, ...], Field(min_length=1, max_length=ranges.MOST_RANK)]


@dataclass(frozen=True, slots=True)
class Tensor:
    """An activation: `shape` with the batch of 1, `dtype` as NumPy names it.

    Of a tensor that `varies` the first size is the most that a frame may have: a frame's own bytes. `or_dtype` is
    another dtype that it may have: a picture is of bytes, or what a frame brought in its place.
    """

    id: Index
    name: Word
    shape: Shape
    dtype: Annotated[str, Field(pattern=_DTYPE)]
    varies: bool = False
    or_dtype: Annotated[str, Field(pattern=f"^$|{_DTYPE}")] = ""

    @property
    def nbytes(self) -> int:
        """Bytes of the array in memory, which is what crosses a link uncoded."""
        return _nbytes(self.shape, self.dtype)

    def describe(self) -> str:
        """Its dtype, shape and bytes, in words."""
        most = "at most " if self.varies else ""
        other = f" or {self.or_dtype}" if self.or_dtype else ""
        return f"{most}{self.dtype}{list(self.shape)} of {self.nbytes}{other}"

    def admitted(self, dtype: str, shape: tuple[int, ...]) -> Tensor | None:
        """This tensor as one frame has it, with that dtype and shape; None where it may not have them."""
        if (dtype, shape) == (self.dtype, self.shape):
            return self
        is_shorter = self.varies and shape[1:] == self.shape[1:] and len(shape) > 0 and shape[0] <= self.shape[0]
        if (is_shorter or shape == self.shape) and dtype in {self.dtype, self.or_dtype}:
            return replace(self, dtype=dtype, shape=shape)
        return None


@lru_cache(maxsize=1 << 16)
def _nbytes(shape: tuple[int, ...], dtype: str) -> int:
    """Kept: planners ask for it for every tensor of every placement, and NumPy takes its time to read a dtype."""
    return math.prod(shape) * np.dtype(dtype).itemsize


class Axis(NamedTuple):
    """One axis of a `Window`: output i reads the inputs i * stride - before + dilation * j, for j below `kernel`.

    `before` and `after` are the padding of the whole map, worked out from `same` or explicit; negative where rows are
    cropped. With `scale` above 1 the operation repeats each row so often first, and all else counts repeated rows.
    """

    kernel: Extent = 1
    stride: Extent = 1
    dilation: Extent = 1
    before: Padding = 0
    after: Padding = 0
    scale: Extent = 1

    def made_from(self, size: int) -> int:
        """Number of outputs along the axis for `size` inputs."""
        return (size * self.scale + self.before + self.after - self.dilation * (self.kernel - 1) - 1) // self.stride + 1


FILLS = ("zero", "lowest", "absent")
_FILL = f"^({'|'.join(FILLS)})$"


@dataclass(frozen=True, slots=True)
class Window:
    """The inputs that one operation reads of a feature map `(batch, rows, columns, channels)` for each of its outputs.

    `fill` is the content of the padding: zeros, the lowest number (max-pooling), or nothing that counts (averages
    divide by the count of real inputs).
    """

    rows: Axis
    columns: Axis
    fill: Annotated[str, Field(pattern=_FILL)] = "zero"


@dataclass(frozen=True, slots=True)
class Block:
    """The smallest unit that may be placed.

    `kind` is the Keras class of its main layer (`Conv2D`, `Add`, ...; `input` for block 0), `layers` the names of the
    Keras layers it was made of. `parameters` counts weights after folding, `macs` the multiply-accumulates of a frame.
    `kernel` and `strides` are those of a convolution or pooling, as Keras has them; empty for all others.

    `windows` says how its map depends on the maps it reads: one window after the other, what its operations do between
    them is done at each place by itself; () when that is all. None when an output may depend on the whole map (or is
    none): such a block cannot be tiled. Inputs that are 1 long where the output is not are repeated (broadcast).
    """

    index: Index
    name: Word
    kind: Word
    layers: Annotated[tuple[Word, ...], Field(max_length=ranges.MOST_BLOCKS)]
    inputs: TensorIds
    outputs: TensorIds
    parameters: Count = 0
    macs: Annotated[int, Strict(), Field(ge=0, le=10**18)] = 0
    kernel: Annotated[tuple[Extent, ...], Field(max_length=ranges.MOST_RANK)] = ()
    strides: Annotated[tuple[Extent, ...], Field(max_length=ranges.MOST_RANK)] = ()
    windows: Annotated[tuple[Window, ...], Field(max_length=ranges.MOST_BLOCKS)] | None = None


@dataclass(frozen=True)
class ModelGraph:
    """The DAG of a prepared model.

    `digest` names structure and weights: nodes with equal digests compute equal functions. `inputs` and `outputs` are
    tensor ids in the model's own order. Raises ModelError when the parts do not fit together.
    """

    name: Word
    digest: Name
    tensors: Annotated[tuple[Tensor, ...], Field(max_length=10 * ranges.MOST_BLOCKS)]
    blocks: Annotated[tuple[Block, ...], Field(max_length=ranges.MOST_BLOCKS)]
    inputs: TensorIds
    outputs: TensorIds

    def __post_init__(self) -> None:
        _validate(self)

    def __len__(self) -> int:
        return len(self.blocks)

    @cached_property
    def producer(self) -> tuple[int, ...]:
        """For each tensor id, the index of the block that makes it."""
        by_tensor = {tensor: block.index for block in self.blocks for tensor in block.outputs}
        return tuple(by_tensor[tensor.id] for tensor in self.tensors)

    @cached_property
    def results(self) -> tuple[int, ...]:
        """The outputs, each once, by tensor id."""
        return tuple(sorted(set(self.outputs)))

    @cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """For each tensor id, the ascending indices of the blocks that read it (the result's reader not counted)."""
        readers: list[list[int]] = [[] for _ in self.tensors]
        for block in self.blocks:
            for tensor in dict.fromkeys(block.inputs):
                readers[tensor].append(block.index)
        return tuple(map(tuple, readers))

    @cached_property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """All (producer, consumer) pairs of blocks, each once, in ascending order."""
        return tuple(sorted({(self.producer[t], b.index) for b in self.blocks for t in b.inputs}))

    @cached_property
    def predecessors(self) -> tuple[tuple[int, ...], ...]:
        """For each block, the ascending indices of the blocks that make what it reads."""
        return tuple(tuple(sorted({self.producer[t] for t in block.inputs})) for block in self.blocks)

    @cached_property
    def successors(self) -> tuple[tuple[int, ...], ...]:
        """For each block, the ascending indices of the blocks that read what it makes."""
        return tuple(tuple(sorted({b for t in block.outputs for b in self.consumers[t]})) for block in self.blocks)

    @cached_property
    def layers(self) -> tuple[tuple[int, ...], ...]:
        """The blocks by their longest distance from the input, which is alone in the first."""
        depth = [0] * len(self)
        for block in self.blocks[1:]:
            depth[block.index] = 1 + max((depth[u] for u in self.predecessors[block.index]), default=0)
        members: list[list[int]] = [[] for _ in range(max(depth) + 1)]
        for index, layer in enumerate(depth):
            members[layer].append(index)
        return tuple(map(tuple, members))

    @cached_property
    def siblings(self) -> tuple[tuple[int, ...], ...]:
        """For each block, the others of its layer that read something it reads too."""
        found: list[tuple[int, ...]] = [()] * len(self)
        for layer in self.layers:
            for index in layer:
                own = set(self.predecessors[index])
                found[index] = tuple(o for o in layer if o != index and own.intersection(self.predecessors[o]))
        return tuple(found)

    def block_named(self, name: str) -> Block:
        """The block of this name, of one of its layers, or of this index in digits. Raises ModelError."""
        for block in self.blocks:
            if name == block.name or name in block.layers or name == str(block.index):
                return block
        from difflib import get_close_matches

        near = get_close_matches(name, [b.name for b in self.blocks], n=3, cutoff=0.3)
        raise ModelError(
            f"model {self.name!r} has no block {name!r}"
            + (f"; nearest: {', '.join(near)}" if near else "")
            + f"; give a block's name or an index from 0 to {len(self) - 1}"
        )

    def to_json(self) -> dict[str, Any]:
        """The manifest, as plain JSON values."""
        manifest = {"version": MANIFEST_VERSION, **asdict(self)}
        for tensor in manifest["tensors"]:
            for name in [name for name in ("varies", "or_dtype") if not tensor[name]]:
                del tensor[name]
        return manifest

    @classmethod
    def from_json(cls, manifest: Mapping[str, Any]) -> ModelGraph:
        """Read a manifest. Raises ModelError for anything that is not one."""
        ranges.require_version(manifest, MANIFEST_VERSION, error=ModelError, what="manifest")
        return ranges.read(cls, manifest, error=ModelError, what="a model manifest")


def _validate(graph: ModelGraph) -> None:
    if [t.id for t in graph.tensors] != list(range(len(graph.tensors))):
        raise ModelError(f"model {graph.name!r}: tensor ids must count from 0")
    if [b.index for b in graph.blocks] != list(range(len(graph.blocks))) or not graph.blocks:
        raise ModelError(f"model {graph.name!r}: block indices must count from 0")
    for tensor in graph.tensors:
        if tensor.nbytes > MOST_TENSOR_BYTES:
            size = f"{tensor.nbytes:_} bytes, at most {MOST_TENSOR_BYTES:_}"
            raise ModelError(f"model {graph.name!r}: tensor {tensor.name!r} has {size}")
    if graph.blocks[0].inputs or graph.blocks[0].outputs != graph.inputs:
        raise ModelError(f"model {graph.name!r}: block 0 must be the input block")
    made: set[int] = set()
    for block in graph.blocks:
        if not made.issuperset(block.inputs):
            missing = sorted(set(block.inputs) - made)
            raise ModelError(f"model {graph.name!r}: block {block.name!r} reads tensors {missing} before they are made")
        if made & set(block.outputs) or not block.outputs:
            raise ModelError(f"model {graph.name!r}: block {block.name!r} must make tensors that no other block makes")
        made |= set(block.outputs)
    if made != set(range(len(graph.tensors))) or not set(graph.outputs) <= made or not graph.outputs:
        raise ModelError(f"model {graph.name!r}: every tensor needs a block that makes it, and there must be outputs")
