"""A stream's choices on the nodes that can serve it, solved again when something that they rest on changed. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from nodes.config.plan_request import as_written
from nodes.planner.costs.snapshot import NodeSnapshot
from nodes.planner.machine.inventory import Inventory
from nodes.planner.machine.problem import EXACT, HPA, PlanningProblem, Solved, planning_problem
from nodes.planner.machine.stream import PlannedStream, fits
from nodes.planner.machine.worker_pools import WorkerPools, priced_with
from pipeline.coding import PlannedCodecs
from pipeline.graph import ModelGraph
from pipeline.partition.cut_family import all_cuts_of
from pipeline.partition.priced_plan import PricedPlan
from pipeline.placement import Placement, Tier
from pipeline.plan import NodeId, Plan
from pipeline.tiles.tiling import Tiling


def priced_plans_of(
    inventory: Inventory, stream: PlannedStream, graph: ModelGraph, forced: Placement | None
) -> Sequence[PricedPlan]:
    """The best choice for each combination of nodes; solved again only when something that it rests on changed."""
    return posed(inventory, stream, graph, forced).plans


@dataclass(frozen=True, slots=True)
class Usable:
    """Nodes that can serve a stream at present: those of each tier, and workers."""

    tiers: Mapping[Tier, Sequence[NodeId]]
    workers: Sequence[NodeId]

    @property
    def nodes(self) -> list[NodeId]:
        """All of them."""
        return [*(node for usable in self.tiers.values() for node in usable), *self.workers]


def look(inventory: Inventory, stream: PlannedStream, graph: ModelGraph) -> Usable:
    """See who can serve the stream, and go by what is known of them now, where that has left its band."""
    registry, band = inventory.registry, inventory.settings.band
    tiers = {tier: registry.usable(stream.binding, tier) for tier in Tier}
    usable = Usable(tiers, workers_of(inventory, stream))
    stream.assume({n: registry.snapshot(stream.binding, n, stream.name) for n in usable.nodes}, band)
    profile = registry.blocks.profile_of(stream.binding.model, graph.digest)
    stream.drift_reasons += stream.binding.ratios.assume(graph, profile, band)
    registry.blocks.frame_work[stream.name] = stream.binding.ratios.frame_work(graph)
    return usable


def posed(
    inventory: Inventory, stream: PlannedStream, graph: ModelGraph, forced: Placement | None, *, quick: bool = False
) -> Solved:
    """The stream's problem on the nodes that can serve it; posed again only when something that it rests on changed.

    `quick` plans are not proved (see `PlanningProblem.quick_plans`).
    """
    usable = look(inventory, stream, graph)
    tiers, nodes = usable.tiers, usable.nodes
    tiles = _forced_tiles(inventory, stream) if forced is not None and forced == stream.forced else None
    whole = frozenset(node for node in nodes if is_untiled_only(inventory, stream, node))
    in_use = stream.plan.tiles if stream.plan is not None else None
    ratios = stream.binding.ratios.assumed
    where = tuple((tier, tuple(usable)) for tier, usable in tiers.items())
    asked = graph.digest, as_written(stream.plan_request)
    draws = tuple(inventory.static_costs.draws.get(node) for node in nodes)
    infos = tuple(inventory.registry.infos[node] for node in nodes)
    rests_on = (*asked, tiles, quick, whole, in_use, where, ratios, draws, infos, *stream.assumed.items())
    solved = stream.solved.get(forced)
    if solved is None or solved.rests_on != rests_on:
        known = stream.assumed
        pools = _pools(inventory, stream)
        problem = planning_problem(
            inventory.registry, inventory.static_costs, stream.binding, graph, stream.plan_request, tiers, known, pools
        )
        same_problem = solved is not None and solved.rests_on[:2] == rests_on[:2] and forced is None
        is_changed = same_problem and stream.before.keys() == stream.assumed.keys()
        adjusted = _adjusted(inventory, stream, graph, problem) if is_changed else None
        solved = Solved(rests_on, problem, partial(_plans, problem, adjusted, forced, tiles, quick=quick))
        # the planner's own, and the last one by hand
        stream.solved = {placement: known for placement, known in stream.solved.items() if placement is None}
        stream.solved[forced] = solved
    return solved


def is_slow(inventory: Inventory, stream: PlannedStream) -> bool:
    """True when a stream's proved plans take so long that quick ones are worth it: many cuts, or tiles to look for."""
    graph = inventory.registry.known_graph_of(stream.binding)
    if graph is None or stream.plan_request.planner != EXACT:
        return False
    return all_cuts_of(graph) is None or bool(workers_of(inventory, stream))


def _plans(
    problem: PlanningProblem,
    adjusted: PricedPlan | None,
    forced: Placement | None,
    tiles: Tiling | None,
    *,
    quick: bool,
) -> Sequence[PricedPlan]:
    if adjusted is not None:
        return [adjusted]
    return (problem.quick_plans() if quick and forced is None else []) or problem.priced_plans(forced, tiles)


def workers_of(inventory: Inventory, stream: PlannedStream) -> list[NodeId]:
    """The nodes that can compute tiles of the stream, and may."""
    excluded = stream.plan_request.constraints.exclude_nodes
    return [node for node in inventory.registry.usable_workers(stream.binding) if node not in excluded]


def _pools(inventory: Inventory, stream: PlannedStream) -> WorkerPools:
    workers = [node for node in workers_of(inventory, stream) if node in stream.assumed]
    coordinators = [node for node in stream.assumed if not is_untiled_only(inventory, stream, node)]
    return WorkerPools.from_snapshots(
        inventory.registry, stream.binding, stream.assumed, workers, coordinators, _tiles_in_use(inventory, stream)
    )


def _tiles_in_use(inventory: Inventory, stream: PlannedStream) -> tuple[NodeId, Tiling] | None:
    plan = stream.plan
    graph = inventory.registry.graphs.get(plan.digest) if plan is not None else None
    if plan is None or plan.tiles is None or graph is None or not fits(plan, graph):
        return None
    return plan.nodes[Tier.EDGE], plan.tiles


def _adjusted(
    inventory: Inventory, stream: PlannedStream, graph: ModelGraph, problem: PlanningProblem
) -> PricedPlan | None:
    """D3's answer to news: the present plan, on the same nodes, adjusted where something has left its band."""
    plan = stream.plan
    if stream.plan_request.planner != HPA or plan is None or plan.planner != HPA or not fits(plan, graph):
        return None
    wider = [c for c in problem.node_sets if c.nodes.items() >= plan.nodes.items()]
    node_set = max(wider, key=lambda c: len(c.nodes), default=None)
    if node_set is None or not set(node_set.nodes.values()) <= stream.before.keys():
        return None
    nodes = {tier: NodeId(node) for tier, node in node_set.nodes.items()}
    before = inventory.static_costs.node_set(nodes, inventory.registry.costs(stream.binding, nodes, stream.before))
    return problem.adjusted(plan, node_set, before.costs, inventory.settings.band)


def priced_today(inventory: Inventory, stream: PlannedStream, graph: ModelGraph, plan: Plan) -> PricedPlan:
    """The plan at today's prices, with the codecs that it has; all its nodes are usable."""
    how = plan.nodes, plan.placement, plan.codecs, plan.tiles
    return _priced(inventory, stream, graph, *how, known=stream.assumed)


def value_now(inventory: Inventory, stream: PlannedStream, graph: ModelGraph, priced_plan: PricedPlan) -> float:
    """A priced plan's value by what holds at this moment, which may be anywhere within the band of what was assumed:
    each decision moves load from node to node.
    """
    nodes = {tier: NodeId(node) for tier, node in priced_plan.nodes.items()}
    known = {node: inventory.registry.snapshot(stream.binding, node, stream.name) for node in nodes.values()}
    how = nodes, priced_plan.placement, priced_plan.codecs(graph), priced_plan.tiling
    return _priced(inventory, stream, graph, *how, known=known).value


def _priced(
    inventory: Inventory,
    stream: PlannedStream,
    graph: ModelGraph,
    nodes: Mapping[Tier, NodeId],
    placement: Placement,
    codecs: PlannedCodecs,
    tiling: Tiling | None,
    *,
    known: Mapping[NodeId, NodeSnapshot],
) -> PricedPlan:
    costs = inventory.registry.costs(stream.binding, nodes, known)
    node_set = inventory.static_costs.node_set(nodes, costs)
    node_set = replace(node_set, costs=replace(node_set.costs, fixed=codecs))
    if tiling is not None:
        node_set = replace(node_set, pool=_pools(inventory, stream).behind(nodes[Tier.EDGE]))
    return priced_with(graph, placement, node_set, stream.plan_request.parsed_objective(), tiling)


def why_not(inventory: Inventory, stream: PlannedStream, forced: Placement | None) -> str:
    """The tiers that lack usable nodes for the forced placement, or any, with reasons, in words."""
    return inventory.registry.why_no_plan(stream.binding, set(forced or ()) | {Tier.DEVICE})


def is_untiled_only(inventory: Inventory, stream: PlannedStream, node: NodeId) -> bool:
    """True when the node's present process has refused to coordinate tiles."""
    state = inventory.registry.peers.states.get(node)
    return state is not None and stream.untiled_only.get(node) == state.session


def _forced_tiles(inventory: Inventory, stream: PlannedStream) -> Tiling | None:
    """The tiles placed by hand, None once a worker refuses; the coordinator computes those of a lost one."""
    tiles = stream.forced_tiles
    refusing = any(inventory.registry.why_no_tiles(stream.binding, node) for node in tiles.workers) if tiles else False
    coordinator = stream.plan.nodes.get(Tier.EDGE) if stream.plan else None
    refusing |= coordinator is not None and is_untiled_only(inventory, stream, coordinator)
    return None if refusing else tiles
