"""A plan's tiles for people: who computes which part of the map, and what each took lately. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

from nodes.protocol.messages import TileSeconds
from nodes.watch.overview.text import milliseconds
from pipeline.graph import ModelGraph
from pipeline.tiles.split import heights
from pipeline.tiles.tiling import Tiling


def tiles_json(
    tiling: Tiling, graph: ModelGraph | None, measured: Mapping[tuple[int, str], TileSeconds]
) -> dict[str, Any]:
    """The tiling as plain JSON values; spans are half-open, `measured` is by tile (from 1) and worker.

    A tile that another node than its own has computed, too, has both.
    """
    first, last = (graph.blocks[index].name if graph else None for index in (tiling.first, tiling.last))
    return {
        "first": first,
        "last": last,
        "rows": len(tiling.rows),
        "columns": len(tiling.columns),
        "codecs": sorted({one.codec for one in tiling.codecs}),
        "tiles": [
            {
                "tile": number,
                "worker": worker,
                "rows": list(rows),
                "columns": list(columns),
                "measured": [
                    _seconds_json(took) for (tile_number, _), took in sorted(measured.items()) if tile_number == number
                ],
            }
            for number, (worker, (rows, columns)) in enumerate(
                zip(tiling.workers, product(heights(tiling.rows), heights(tiling.columns)), strict=True), start=1
            )
        ],
    }


def tile_rows(tiles: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    """A line for each tile: node, place, nothing predicted, computed, waited."""
    for tile in tiles["tiles"]:
        (top, bottom), (left, right) = tile["rows"], tile["columns"]
        place = f"rows {top}-{bottom}, columns {left}-{right}"
        for took in tile["measured"] or [{"worker": tile["worker"]}]:
            way = milliseconds(took.get("transfer_seconds_p50"))
            seconds = (milliseconds(took.get(name)) for name in ("compute_seconds_p50", "queue_seconds_p50"))
            how = f" ({', '.join(tiles['codecs'])})" if tiles["codecs"] else ""
            yield (f"  tile {tile['tile']} {took['worker']}", f"{place}; there and back {way}{how}", "", *seconds)


def _seconds_json(took: TileSeconds) -> dict[str, Any]:
    return {
        "worker": took.worker,
        "frames": took.frames,
        "transfer_seconds_p50": took.transfer_seconds,
        "queue_seconds_p50": took.queue_seconds,
        "compute_seconds_p50": took.compute_seconds,
    }
