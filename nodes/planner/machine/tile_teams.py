"""What the planner makes of tile workers: a team for each edge node, and the price of tiles in use. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from nodes.planner.costs.snapshot import Condition
from nodes.planner.machine.registry import Roster, Served
from pipeline.graph import ModelGraph
from pipeline.partition.choice import Candidate, Choice, priced
from pipeline.partition.objective import Objective
from pipeline.partition.tiled import with_tiles
from pipeline.placement import NodeId, Placement, Tier
from pipeline.tiles.choice import Sharing, cost, sharing, sharings
from pipeline.tiles.team import Team, TileNode
from pipeline.tiles.tiling import Tiling


@dataclass(frozen=True, slots=True)
class Teams:
    """Those that can compute tiles, by what is known of them, and those that may share them out.

    `in_use` are the tiles that a head has now, some of whose workers may be gone.
    """

    nodes: Mapping[NodeId, TileNode]
    workers: Sequence[NodeId]
    heads: Collection[NodeId]
    in_use: tuple[NodeId, Tiling] | None = None

    @classmethod
    def of(
        cls,
        roster: Roster,
        served: Served,
        conditions: Mapping[NodeId, Condition],
        workers: Sequence[NodeId],
        heads: Collection[NodeId],
        in_use: tuple[NodeId, Tiling] | None,
    ) -> Teams:
        """Under these conditions, which have the workers and all edge nodes."""
        nodes = {node: roster.tile_node(served, node, now) for node, now in conditions.items()}
        return cls(nodes, workers, heads, in_use)

    def behind(self, head: NodeId) -> Team:
        """The head with all workers."""
        return Team(self.nodes[head], tuple(self.nodes[worker] for worker in self.workers))

    def join(self, graph: ModelGraph, candidates: Sequence[Candidate], *, choose: bool) -> list[Candidate]:
        """The candidates with the teams of their edge nodes and, to `choose` from, the stacks that pay for them."""
        known: dict[NodeId, tuple[Sharing, ...]] = {}
        found = []
        for candidate in candidates:
            if Tier.EDGE in candidate.nodes:
                head = NodeId(candidate.nodes[Tier.EDGE])
                team = self.behind(head)
                if head not in known:
                    known[head] = tuple(sharings(graph, team)) if choose and head in self.heads else ()
                found.append(replace(candidate, team=team, sharings=known[head], in_use=self._in_use_by(head)))
            else:
                found.append(candidate)
        return found

    def _in_use_by(self, head: NodeId) -> Tiling | None:
        if self.in_use is None or head not in self.heads:
            return None
        node, tiling = self.in_use
        return tiling if node == head and {head, *self.workers}.issuperset(tiling.workers) else None


def priced_with(
    graph: ModelGraph, placement: Placement, candidate: Candidate, objective: Objective, tiling: Tiling | None
) -> Choice:
    """A placement with these tiles; the head stands in for workers that are not in the candidate's team."""
    if tiling is None:
        return priced(graph, placement, candidate, objective)
    head = NodeId(candidate.nodes[Tier.EDGE])
    assert candidate.team is not None
    there = {head, *(worker.node for worker in candidate.team.workers)}
    served = replace(tiling, workers=tuple(node if node in there else head for node in tiling.workers))
    tiles = cost(graph, candidate.team, sharing(graph, candidate.team, served))
    on_terms = replace(candidate, costs=with_tiles(graph, candidate.costs, tiling, tiles))
    return replace(priced(graph, placement, on_terms, objective), tiling=tiling)


def words(graph: ModelGraph, choice: Choice) -> str:
    """What is shared out, and what for; empty without tiles."""
    tiling, tiles = choice.tiling, choice.predicted.tiles
    if tiling is None or tiles is None:
        return ""
    return (
        f"{graph.blocks[tiling.first].name} to {graph.blocks[tiling.last].name} in {len(tiling.rows)}x"
        f"{len(tiling.columns)} tiles on {', '.join(dict.fromkeys(tiling.workers))}: {tiles.seconds * 1e3:.1f} ms in "
        f"place of {tiles.alone_seconds * 1e3:.1f}"
    )
