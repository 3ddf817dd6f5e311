"""An engine that computes nothing: it waits the seconds that a recording has, and gives tensors of recorded values.

For experiments with more machines than there are: everything around the engine is real, so that frames are decoded,
coded, published and answered as ever, by nodes that keep no processor busy. Its promise names the recording, so no node
with another engine is ever mixed with it. Answers mean nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.engines.base import Array, BlockTimes, Loaded
from pipeline.engines.block_recording import MachineTimes, content_of, read_recording
from pipeline.engines.checks import check, check_tile, fitting
from pipeline.engines.pictured import InputSeconds, wait_until
from pipeline.engines.promise import EXACT, Promise
from pipeline.errors import ConfigError, ModelError, TileError
from pipeline.tiles.arrays import part
from pipeline.tiles.split import size_in, size_of

if TYPE_CHECKING:
    from pipeline.graph import ModelGraph
    from pipeline.lite.sketch import Sketch
    from pipeline.tiles.split import Tile
    from pipeline.tiles.stacks import Stack

REPLAY = "replay"


@dataclass(frozen=True, slots=True)
class Replay:
    """What an engine replays: a recording, and the class of machines in it that this node is."""

    recording: Path
    machine: str


class ReplayEngine:
    """Waits as a machine of one class took. Raises ModelError for a file that is no recording."""

    def __init__(self, replay: Replay, threads: int) -> None:
        self._recording, self.digest = read_recording(replay.recording)
        self._machine = replay.machine
        for network in self._recording.networks:
            if replay.machine not in network.machines:
                known = ", ".join(sorted(network.machines)[:8])
                raise ConfigError(
                    f"recording {replay.recording} has no times of {network.name} for a machine "
                    f"{replay.machine!r}; it has {known}"
                )
        self.name = REPLAY
        self.version = f"{self.digest} {replay.machine}"
        self.threads = threads

    @property
    def source(self) -> str:
        """Where the recorded times come from, in words."""
        return self._recording.source

    def require(self, model: Loaded) -> None:
        """Raise ModelError unless the network was recorded."""
        self._recording.network_of(model.graph)

    def compile(
        self, model: Loaded, blocks: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]
    ) -> ReplaySegment:
        """A segment that waits. Raises PlanError, and ModelError for a network that was not recorded."""
        graph = model.graph
        check(graph, blocks, inputs, outputs)
        times = self._times(graph)
        made = {t: self._content(graph, t) for t in outputs if t not in inputs}
        return ReplaySegment(graph, inputs, outputs, made, sum(times.seconds[block] for block in blocks))

    def compile_tile(self, model: Loaded, tile: Tile, stack: Stack) -> ReplayTileSegment:
        """A segment that waits a tile's part of each block's seconds. Raises TileError, ModelError."""
        graph = model.graph
        if whole := [index for index in stack.blocks if graph.blocks[index].windows is None]:
            block = graph.blocks[whole[0]]
            raise TileError(f"block {block.index} ({block.name!r}, {block.kind}) cannot be computed in tiles")
        times = self._times(graph)
        seconds = 0.0
        for index in stack.blocks:
            (output,) = graph.blocks[index].outputs
            seconds += times.seconds[index] * tile.regions[output].area / math.prod(size_of(graph, output))
        made = part(self._content(graph, stack.output), tile.regions[stack.output]).copy()
        made.flags.writeable = False
        return ReplayTileSegment(graph, tile, stack, made, seconds * times.tile_factor)

    def profile(self, model: Loaded, repeats: int = 10) -> BlockTimes:
        """The recorded seconds of each block."""
        seconds = self._times(model.graph).seconds
        return BlockTimes(seconds, (0.0,) * len(seconds), sum(seconds), sum(seconds))

    def promise(self, models: Iterable[Loaded] = ()) -> Promise:
        """Equal to those who replay the same recording."""
        return Promise(f"{REPLAY} of recording {self.digest}", EXACT)

    def sketched(self, sketch: Sketch) -> Loaded:
        """Raise ModelError: this machine's processor is not the one that is replayed, so nobody measures it."""
        raise ModelError(f"{sketch.name} cannot be replayed: it measures the processor of this machine")

    def least_input_seconds(self, graph: ModelGraph) -> InputSeconds:
        """What the input's own blocks take at least. Raises ModelError for a network that was not recorded."""
        times = self._times(graph)
        return InputSeconds(times.decode, times.normalise)

    def _times(self, graph: ModelGraph) -> MachineTimes:
        return self._recording.network_of(graph).machines[self._machine]

    def _content(self, graph: ModelGraph, tensor: int) -> Array:
        return content_of(graph.tensors[tensor], self._recording.network_of(graph).samples[tensor])


class ReplaySegment:
    """Some blocks: waits their seconds, and gives the same tensors each time."""

    def __init__(
        self,
        graph: ModelGraph,
        inputs: Sequence[int],
        outputs: Sequence[int],
        made: Mapping[int, Array],
        seconds: float,
    ) -> None:
        self.inputs, self.outputs, self.seconds = tuple(inputs), tuple(outputs), seconds
        self._tensors = {t: graph.tensors[t] for t in inputs}
        self._made = dict(made)

    def run(self, tensors: Mapping[int, Array]) -> dict[int, Array]:
        """Recorded values by id, or inputs that pass through, after the segment's seconds. Raises PlanError."""
        due = time.perf_counter() + self.seconds
        known = {t: fitting(tensor, tensors.get(t)) for t, tensor in self._tensors.items()}
        known.update(self._made)
        wait_until(due)
        return {t: known[t] for t in self.outputs}


class ReplayTileSegment:
    """A stack over tiles of one kind."""

    def __init__(self, graph: ModelGraph, tile: Tile, stack: Stack, made: Array, seconds: float) -> None:
        self.inputs, self.output, self.seconds = stack.inputs, stack.output, seconds
        self._expected = {t: (size_in(graph, tile, t), graph.tensors[t].dtype) for t in stack.inputs}
        self._made = made

    def run(self, tensors: Mapping[int, Array]) -> Array:
        """The tile's region of recorded values, after its seconds. Raises PlanError."""
        due = time.perf_counter() + self.seconds
        check_tile(self._expected, tensors)
        wait_until(due)
        return self._made
