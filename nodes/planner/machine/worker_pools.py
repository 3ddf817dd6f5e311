"""Worker pools of the planner: one for each edge node, and the price of tiles in use. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from nodes.planner.costs.snapshot import NodeSnapshot
from nodes.planner.machine.binding import StreamBinding
from nodes.planner.machine.registry import Registry
from pipeline.coding import QUICKEST, CodingWorth
from pipeline.energy import NO_DRAW, Draw
from pipeline.graph import ModelGraph
from pipeline.partition.objective import Objective
from pipeline.partition.priced_plan import NodeSet, PricedPlan, priced
from pipeline.partition.tiled import with_tiles
from pipeline.placement import NodeId, Placement, Tier
from pipeline.tiles.tiled_stack_cost import TiledStackCost, cost, tiled_stack_cost, tiled_stack_costs
from pipeline.tiles.tiling import Tiling
from pipeline.tiles.worker_pool import TileNode, WorkerPool


@dataclass(frozen=True, slots=True)
class WorkerPools:
    """Nodes that can compute tiles, with their costs and what they draw, and those that may coordinate them.

    `in_use` are the tiles that a coordinator has now, some of whose workers may be gone. Codecs of tiles are chosen by
    `ratios`, by tensor and codec, and `worth`.
    """

    node_of: Callable[[NodeId], TileNode]
    workers: Sequence[NodeId]
    coordinators: Collection[NodeId]
    in_use: tuple[NodeId, Tiling] | None = None
    ratios: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    worth: CodingWorth = QUICKEST
    draws: Mapping[NodeId, Draw] = field(default_factory=dict)
    _joined: dict[NodeId, tuple[WorkerPool, tuple[TiledStackCost, ...]]] = field(default_factory=dict, init=False)

    @classmethod
    def from_snapshots(
        cls,
        registry: Registry,
        binding: StreamBinding,
        snapshots: Mapping[NodeId, NodeSnapshot],
        workers: Sequence[NodeId],
        coordinators: Collection[NodeId],
        in_use: tuple[NodeId, Tiling] | None,
    ) -> WorkerPools:
        """Make pools from these snapshots, which have the workers and all edge nodes."""
        node_of = cache(lambda node: registry.tile_node(binding, node, snapshots[node]))
        return cls(node_of, workers, coordinators, in_use, binding.ratios.assumed)

    def behind(self, coordinator: NodeId) -> WorkerPool:
        """The coordinator with all workers."""
        workers = tuple(self._node(worker) for worker in self.workers)
        return WorkerPool(self._node(coordinator), workers, self.ratios, self.worth)

    def _node(self, node: NodeId) -> TileNode:
        return replace(self.node_of(node), draw=self.draws.get(node, NO_DRAW))

    def joined(self, graph: ModelGraph, node_set: NodeSet, *, choose: bool) -> NodeSet:
        """The node set with the pool of its edge node, if any, and, to `choose` from, the stacks that pay for it."""
        if Tier.EDGE not in node_set.nodes:
            return node_set
        coordinator = NodeId(node_set.nodes[Tier.EDGE])
        if coordinator not in self._joined:
            pool, is_able = self.behind(coordinator), choose and coordinator in self.coordinators
            self._joined[coordinator] = pool, tuple(tiled_stack_costs(graph, pool)) if is_able else ()
        pool, stacks = self._joined[coordinator]
        return replace(node_set, pool=pool, tiled_stack_costs=stacks, in_use=self._in_use_by(coordinator))

    def _in_use_by(self, coordinator: NodeId) -> Tiling | None:
        if self.in_use is None or coordinator not in self.coordinators:
            return None
        node, tiling = self.in_use
        return tiling if node == coordinator and {coordinator, *self.workers}.issuperset(tiling.workers) else None


def priced_with(
    graph: ModelGraph, placement: Placement, node_set: NodeSet, objective: Objective, tiling: Tiling | None
) -> PricedPlan:
    """A placement with these tiles; the coordinator computes the tiles of workers that are not in the node
    set's pool.
    """
    if tiling is None:
        return priced(graph, placement, node_set, objective)
    coordinator = NodeId(node_set.nodes[Tier.EDGE])
    assert node_set.pool is not None
    there = {coordinator, *(worker.node for worker in node_set.pool.workers)}
    present = replace(tiling, workers=tuple(node if node in there else coordinator for node in tiling.workers))
    tiles = cost(graph, node_set.pool, tiled_stack_cost(graph, node_set.pool, present))
    repriced = replace(node_set, costs=with_tiles(graph, node_set.costs, tiling, tiles))
    return replace(priced(graph, placement, repriced, objective), tiling=tiling)


def words(graph: ModelGraph, priced_plan: PricedPlan) -> str:
    """The stack, its tiles and what they save, in words; empty without tiles."""
    tiling, tiles = priced_plan.tiling, priced_plan.predicted.tiles
    if tiling is None or tiles is None:
        return ""
    return (
        f"{graph.blocks[tiling.first].name} to {graph.blocks[tiling.last].name} in {len(tiling.rows)}x"
        f"{len(tiling.columns)} tiles on {', '.join(dict.fromkeys(tiling.workers))}{_codecs(tiling)}: "
        f"{tiles.seconds * 1e3:.1f} ms in place of {tiles.alone_seconds * 1e3:.1f}"
    )


def _codecs(tiling: Tiling) -> str:
    return f" by {', '.join(sorted({one.codec for one in tiling.codecs}))}" if tiling.codecs else ""
