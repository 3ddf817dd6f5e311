"""A node's compiled tiles: each kind once for all tiles and epochs that have it, gone with the last of those epochs."""

from __future__ import annotations

import threading
from collections.abc import Collection, Hashable, Mapping
from typing import TYPE_CHECKING

from pipeline.engines.tiling import prove, tiling
from pipeline.tiling import TiledStage

if TYPE_CHECKING:
    from pipeline.engines import Engine, TileSegment
    from pipeline.prepared import PreparedModel

TileKey = tuple[str, Hashable]
"""A model's name and a kind of tile, which tells the stack, too."""


class TileStore:
    """Which segment computes a tile of an epoch. To hold one may take seconds; `of` may be called meanwhile."""

    def __init__(self, engine: Engine, models: Mapping[str, PreparedModel]) -> None:
        self._engine = engine
        self._models = models
        self._compiled: dict[TileKey, TileSegment] = {}
        self._held: dict[tuple[str, int], dict[int, TileKey]] = {}
        self._proven: set[Hashable] = set()
        self._lock = threading.Lock()

    def hold(self, stream: str, epoch: int, model: str, tiled: TiledStage, tiles: Collection[int]) -> None:
        """Have these tiles, counted from 1, ready for this epoch. Raises what the engine raises."""
        engine, prepared = tiling(self._engine), self._models[model]
        for number in tiles:
            tile = tiled.tile_map.tiles[number - 1]
            key = model, tile.kind
            segment = self._compiled.get(key) or engine.compile_tile(prepared, tile, tiled.stack)
            self._keep(stream, epoch, number, key, segment)

    def hold_proven(self, stream: str, epoch: int, model: str, tiled: TiledStage) -> None:
        """Have all tiles ready for this epoch. Raises TileError when they would change a bit on this engine."""
        tile_map = tiled.tile_map
        grid = (model, tile_map.stack, tile_map.rows, tile_map.columns)
        if grid not in self._proven:
            known = {kind: segment for (of, kind), segment in self._compiled.items() if of == model}
            proven = prove(self._engine, self._models[model], tile_map, known)
            self._proven.add(grid)
            with self._lock:
                self._compiled |= {(model, kind): segment for kind, segment in proven.segments.items()}
        self.hold(stream, epoch, model, tiled, range(1, len(tile_map.tiles) + 1))

    def holds(self, stream: str, epoch: int) -> bool:
        """Whether anything is held for the epoch."""
        with self._lock:
            return (stream, epoch) in self._held

    def of(self, stream: str, epoch: int, tile: int) -> TileSegment | None:
        """The segment of a tile, None when it is not held."""
        with self._lock:
            key = self._held.get((stream, epoch), {}).get(tile)
            return self._compiled[key] if key else None

    def release(self, stream: str, epoch: int) -> None:
        """Let the epoch go, and what no other epoch runs."""
        with self._lock:
            self._held.pop((stream, epoch), None)
            used = {key for held in self._held.values() for key in held.values()}
            unused = [self._compiled.pop(key) for key in set(self._compiled) - used]
        del unused  # its memory is freed here, where nobody waits for the lock

    def _keep(self, stream: str, epoch: int, number: int, key: TileKey, segment: TileSegment) -> None:
        with self._lock:
            self._compiled[key] = segment
            self._held.setdefault((stream, epoch), {})[number] = key
