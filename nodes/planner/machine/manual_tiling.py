"""Tiles as a person asks for them, against what there is: a grid, a stack, and workers that can."""

from __future__ import annotations

from itertools import cycle, islice

from nodes.planner.machine.binding import StreamBinding
from nodes.planner.machine.events import TilesByHand
from nodes.planner.machine.registry import Registry
from pipeline.errors import PlanError
from pipeline.graph import ModelGraph
from pipeline.placement import Placement, Tier, stages
from pipeline.tiles import Grid, split, stack_named
from pipeline.tiles.tiling import Tiling, tiled_stage


def tiling_by_hand(
    registry: Registry,
    binding: StreamBinding,
    graph: ModelGraph,
    placement: Placement | None,
    asked: TilesByHand | None,
) -> Tiling | None:
    """The tiling that is asked for. Raises TileError, ModelError or PlanError that says why it cannot be had."""
    if asked is None or placement is None:
        return None
    edge = next((stage for stage in stages(graph, placement) if stage.tier is Tier.EDGE), None)
    if edge is None:
        raise PlanError("tiles are the edge's, and this placement has no block there; give --edge-from")
    grid = Grid.parse(asked.grid)
    tile_map = split(graph, stack_named(graph, asked.stack), grid)
    workers = asked.workers or tuple(registry.usable_workers(binding))
    able = [*registry.usable_workers(binding), *registry.usable(binding, Tier.EDGE)]
    if unable := [node for node in workers if node not in able]:
        why = "; ".join(registry.why_unusable(binding, node) or f"{node} is not of the edge" for node in unable)
        raise PlanError(f"{why}; those that can compute tiles: {', '.join(able) or 'none'}")
    if not 0 < len(workers) <= len(grid):
        raise PlanError(f"{len(workers)} workers for {len(grid)} tiles: name 1 to {len(grid)} of {', '.join(able)}")
    tiling = Tiling(
        first=tile_map.stack.first,
        last=tile_map.stack.last,
        rows=tuple(span.size for span in tile_map.rows),
        columns=tuple(span.size for span in tile_map.columns),
        workers=tuple(islice(cycle(workers), len(grid))),
    )
    tiled_stage(graph, placement, edge, tiling)
    return tiling
