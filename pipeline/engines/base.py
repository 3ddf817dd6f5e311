"""Protocols of engines: the seam between a prepared model and a library of kernels. Imports none of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from pipeline.graph import ModelGraph

if TYPE_CHECKING:
    from pipeline.engines.promise import Promise
    from pipeline.lite.package import Package
    from pipeline.lite.sketch import Sketch
    from pipeline.tiles.split import Tile
    from pipeline.tiles.stacks import Stack

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class BlockTimes:
    """Seconds of each block (block 0 takes 0.0): `contention.typical_seconds` of runs, and between their quartiles.

    `total_seconds` is the median of whole runs without a tracer; `seconds` is scaled to add up to it, from the
    `unscaled_seconds` that the blocks' own measurements add up to (None where an engine does not tell).
    """

    seconds: tuple[float, ...]
    spread: tuple[float, ...]
    total_seconds: float
    unscaled_seconds: float | None = None


class Loaded(Protocol):
    """A loaded model: prepared from Keras, or a package."""

    @property
    def graph(self) -> ModelGraph:
        """Its manifest."""
        ...

    @property
    def package(self) -> Package:
        """The model as a package. Raises ModelError."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        ...

    def segment_bytes(self, blocks: Sequence[int]) -> int:
        """Bytes of memory that one more segment of these blocks takes once it has run."""
        ...


class Segment(Protocol):
    """Some blocks, compiled: tensor ids of the manifest in, tensor ids out. Run it from one thread at a time."""

    @property
    def inputs(self) -> tuple[int, ...]:
        """Ids it needs."""
        ...

    @property
    def outputs(self) -> tuple[int, ...]:
        """Ids it gives."""
        ...

    def run(self, tensors: Mapping[int, Array]) -> dict[int, Array]:
        """Outputs by id; C-contiguous and read-only or the caller's own. More inputs than needed may be given.

        Raises PlanError for a tensor that is missing, or of another shape or dtype than the manifest's.
        """
        ...


class TileSegment(Protocol):
    """A stack of blocks, compiled for tiles of one kind. Run it from one thread at a time."""

    @property
    def inputs(self) -> tuple[int, ...]:
        """Ids it needs, each the tile's region of it."""
        ...

    @property
    def output(self) -> int:
        """The id of what it gives a region of."""
        ...

    def run(self, tensors: Mapping[int, Array]) -> Array:
        """The tile's region of the output. Raises PlanError for a region that is missing or of another shape."""
        ...


class Engine(Protocol):
    """A library of kernels, with its threads fixed."""

    @property
    def name(self) -> str:
        """The engine's name in a configuration."""
        ...

    @property
    def version(self) -> str:
        """The library's version: profiles and bits may differ between versions."""
        ...

    @property
    def threads(self) -> int:
        """Number of threads that it computes on."""
        ...

    def compile(self, model: Loaded, blocks: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]) -> Segment:
        """A segment that has run once, so that its first frame is as fast as its second.

        Raises PlanError, and ConfigError for a model that this engine cannot run.
        """
        ...

    def compile_tile(self, model: Loaded, tile: Tile, stack: Stack) -> TileSegment:
        """A segment for all tiles of this one's kind. It has not run yet: its first run takes longer than others.

        Raises TileError for a block that this engine cannot tile.
        """
        ...

    def profile(self, model: Loaded, repeats: int = 10) -> BlockTimes:
        """Seconds of each block, measured where it will run: within the whole network."""
        ...

    def promise(self, models: Iterable[Loaded] = ()) -> Promise:
        """The promise that this engine makes here for these models: which other nodes' answers are equal to its own."""
        ...

    def sketched(self, sketch: Sketch) -> Loaded:
        """A small network, ready to be compiled."""
        ...


def unsplit(engine: Engine, model: Loaded) -> Segment:
    """All blocks in one segment: what every split must equal bit for bit."""
    graph = model.graph
    return engine.compile(model, range(len(graph)), graph.inputs, tuple(dict.fromkeys(graph.outputs)))
