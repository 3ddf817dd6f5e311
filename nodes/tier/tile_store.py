"""A node's compiled tiles: each kind once for all tiles and epochs that have it, gone with the last of those epochs.

Where the engine does not promise that tiles are exact, each kind is proven where it will run, against the stack in one
piece on the same processor: kernels differ between processors, and nodes prove side by side. The stack in one piece
runs once for all grids that follow each other.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING

from pipeline.engines.promise import EXACT
from pipeline.models.host_memory import check_room
from pipeline.tiles.tiling import TiledStage

if TYPE_CHECKING:
    from pipeline.engines import Engine, Loaded, TileSegment
    from pipeline.engines.tiling import TileEquivalence
    from pipeline.tiles.split import Tile

TileKey = tuple[str, Hashable]
"""A model's name and a kind of tile, which tells the stack, too."""


class TileStore:
    """Tile segments by epoch. `hold` may take seconds; `segment_of` may be called meanwhile."""

    def __init__(self, engine: Engine, models: Mapping[str, Loaded]) -> None:
        self._engine = engine
        self._models = models
        self._compiled: dict[TileKey, TileSegment] = {}
        self._held: dict[tuple[str, int], dict[int, TileKey]] = {}
        self._equivalence: tuple[str, TileEquivalence] | None = None
        self._proved_for: set[tuple[str, int]] = set()  # the epochs that it was used for
        self._lock = threading.Lock()

    def hold(self, stream: str, epoch: int, model: str, tiled: TiledStage, tiles: Iterable[int]) -> None:
        """Have these tiles, counted from 1, ready for this epoch, those that were held before included.

        Raises TileError when they would change a bit on this engine, TooLarge when there is not enough memory for one,
        and what the engine raises.
        """
        with self._lock:
            self._held.setdefault((stream, epoch), {})
        for number in tiles:
            tile = tiled.tile_map.tiles[number - 1]
            key = model, tile.kind
            segment = self._compiled.get(key)
            if segment is None:
                check_room(self._models[model], tiled.stack.blocks)
                segment = self._compile((stream, epoch), model, tiled, tile)
            self._keep(stream, epoch, number, key, segment)

    def _compile(self, epoch: tuple[str, int], model: str, tiled: TiledStage, tile: Tile) -> TileSegment:
        if self._engine.promise().tiles == EXACT:
            return self._engine.compile_tile(self._models[model], tile, tiled.stack)
        return self._equivalence_of(epoch, model, tiled).compile_tile(tiled.tile_map, tile)

    def _equivalence_of(self, epoch: tuple[str, int], model: str, tiled: TiledStage) -> TileEquivalence:
        from pipeline.engines.tiling import TileEquivalence  # loads the framework

        known = self._equivalence
        if known is None or (known[0], known[1].stack) != (model, tiled.stack):
            known = model, TileEquivalence(self._engine, self._models[model], tiled.stack)
        with self._lock:
            if known is not self._equivalence:
                self._equivalence, self._proved_for = known, set()
            if epoch in self._held:  # it may have been let go meanwhile
                self._proved_for.add(epoch)
        return known[1]

    def holds(self, stream: str, epoch: int) -> bool:
        """True when tiles are held for the epoch."""
        with self._lock:
            return (stream, epoch) in self._held

    def segment_of(self, stream: str, epoch: int, tile: int) -> TileSegment | None:
        """The segment of a tile, None when it is not held."""
        with self._lock:
            key = self._held.get((stream, epoch), {}).get(tile)
            return self._compiled[key] if key else None

    def release(self, stream: str, epoch: int) -> None:
        """Let the epoch go, and what no other epoch runs."""
        with self._lock:
            self._held.pop((stream, epoch), None)
            used = {key for held in self._held.values() for key in held.values()}
            unused: list[object] = [self._compiled.pop(key) for key in set(self._compiled) - used]
            self._proved_for.discard((stream, epoch))
            if not self._proved_for:  # it holds the stack's weights and its whole outputs
                unused.append(self._equivalence)
                self._equivalence = None
        del unused  # its memory is freed here, where nobody waits for the lock

    def _keep(self, stream: str, epoch: int, number: int, key: TileKey, segment: TileSegment) -> None:
        with self._lock:
            held = self._held.get((stream, epoch))
            if held is not None:  # the epoch may have been let go meanwhile
                self._compiled[key] = segment
                held[number] = key
