"""A stream's choices on the nodes that can serve it, solved again when something that they rest on changed. Pure."""

from __future__ import annotations

from dataclasses import replace

from nodes.config.plan_request import as_written
from nodes.planner.machine.inventory import Inventory
from nodes.planner.machine.problem import HPA, Question, question
from nodes.planner.machine.stream import PlannedStream, fits
from nodes.planner.machine.tile_teams import Teams, priced_with
from nodes.planner.machine.utilisation import Flow
from pipeline.graph import ModelGraph
from pipeline.partition.choice import Choice
from pipeline.placement import Placement, Tier
from pipeline.plan import NodeId, Plan
from pipeline.tiles.tiling import Tiling


def choices_of(
    inventory: Inventory, stream: PlannedStream, graph: ModelGraph, forced: Placement | None
) -> tuple[Question, list[Choice]]:
    """The best choice for each combination of nodes; solved again only when something that it rests on changed."""
    tiers = {tier: inventory.roster.usable(stream.served, tier) for tier in Tier}
    flows = _flows_beside(inventory, stream)
    workers = workers_of(inventory, stream)
    nodes = [*(node for usable in tiers.values() for node in usable), *workers]
    stream.assume({n: inventory.roster.condition(stream.served, n, flows) for n in nodes}, inventory.settings.band)
    profile = inventory.roster.compute.profile_of(stream.served.model, graph.digest)
    stream.news += stream.served.ratios.assume(graph, profile, inventory.settings.band)
    tiles = _forced_tiles(inventory, stream) if forced is not None and forced == stream.forced else None
    whole = frozenset(node for node in nodes if works_whole(inventory, stream, node))
    in_use = stream.plan.tiles if stream.plan is not None else None
    ratios = stream.served.ratios.assumed
    where = tuple((tier, tuple(usable)) for tier, usable in tiers.items())
    rests_on = (graph.digest, as_written(stream.wishes), tiles, whole, in_use, where, ratios, *stream.assumed.items())
    solved = stream.solved.get(forced)
    if solved is None or solved[0] != rests_on:
        known = stream.assumed
        teams = _teams(inventory, stream)
        asked = question(inventory.roster, inventory.terms, stream.served, graph, stream.wishes, tiers, known, teams)
        same_asked = solved is not None and solved[0][:2] == rests_on[:2] and forced is None
        is_news = same_asked and stream.before.keys() == stream.assumed.keys()
        adjusted = _adjusted(inventory, stream, graph, asked) if is_news else None
        solved = rests_on, asked, [adjusted] if adjusted else asked.choices(forced, tiles)
        # the planner's own, and the last one by hand
        stream.solved = {of: known for of, known in stream.solved.items() if of is None}
        stream.solved[forced] = solved
    return solved[1:]


def workers_of(inventory: Inventory, stream: PlannedStream) -> list[NodeId]:
    """The nodes that can compute tiles of the stream, and may."""
    excluded = stream.wishes.constraints.exclude_nodes
    return [node for node in inventory.roster.usable_workers(stream.served) if node not in excluded]


def _teams(inventory: Inventory, stream: PlannedStream) -> Teams:
    workers = [node for node in workers_of(inventory, stream) if node in stream.assumed]
    heads = [node for node in stream.assumed if not works_whole(inventory, stream, node)]
    return Teams.of(inventory.roster, stream.served, stream.assumed, workers, heads, _tiles_in_use(inventory, stream))


def _tiles_in_use(inventory: Inventory, stream: PlannedStream) -> tuple[NodeId, Tiling] | None:
    plan = stream.plan
    graph = inventory.roster.graphs.get(plan.digest) if plan is not None else None
    if plan is None or plan.tiles is None or graph is None or not fits(plan, graph):
        return None
    return plan.nodes[Tier.EDGE], plan.tiles


def _flows_beside(inventory: Inventory, stream: PlannedStream) -> list[Flow]:
    """The other streams whose devices are there."""
    return [
        inventory.roster.flow(other.served, other.plan, inventory.rates.of(name, inventory.now))
        for name, other in inventory.streams.items()
        if other is not stream and other.plan is not None and inventory.roster.peers.alive(other.served.device)
    ]


def _adjusted(inventory: Inventory, stream: PlannedStream, graph: ModelGraph, asked: Question) -> Choice | None:
    """D3's answer to news: the present plan, on the same nodes, adjusted where something has left its band."""
    plan = stream.plan
    if stream.wishes.planner != HPA or plan is None or plan.planner != HPA or not fits(plan, graph):
        return None
    wider = [c for c in asked.candidates if c.nodes.items() >= plan.nodes.items()]
    candidate = max(wider, key=lambda c: len(c.nodes), default=None)
    if candidate is None or not set(candidate.nodes.values()) <= stream.before.keys():
        return None
    nodes = {tier: NodeId(node) for tier, node in candidate.nodes.items()}
    before = inventory.terms.candidate(nodes, inventory.roster.costs(stream.served, nodes, stream.before))
    return asked.adjusted(plan, candidate, before.costs, inventory.settings.band)


def priced_today(inventory: Inventory, stream: PlannedStream, graph: ModelGraph, plan: Plan) -> Choice:
    """The plan at today's prices, with the codecs that it has; all its nodes are usable."""
    candidate = inventory.terms.candidate(plan.nodes, inventory.roster.costs(stream.served, plan.nodes, stream.assumed))
    candidate = replace(candidate, costs=replace(candidate.costs, fixed=plan.codecs))
    if plan.tiles is not None:
        candidate = replace(candidate, team=_teams(inventory, stream).behind(plan.nodes[Tier.EDGE]))
    return priced_with(graph, plan.placement, candidate, stream.wishes.parsed_objective(), plan.tiles)


def why_not(inventory: Inventory, stream: PlannedStream, forced: Placement | None) -> str:
    """What is lacking for a placement, that by hand or any."""
    return inventory.roster.why_no_choice(stream.served, set(forced or ()) | {Tier.DEVICE})


def works_whole(inventory: Inventory, stream: PlannedStream, node: NodeId) -> bool:
    """Whether the node's present process has refused to be the head of tiles."""
    state = inventory.roster.peers.states.get(node)
    return state is not None and stream.whole_only.get(node) == state.session


def _forced_tiles(inventory: Inventory, stream: PlannedStream) -> Tiling | None:
    """Those placed by hand, while none of their workers refuses; for one that is lost the head stands in."""
    tiles = stream.forced_tiles
    refusing = any(inventory.roster.why_no_tiles(stream.served, node) for node in tiles.workers) if tiles else False
    head = stream.plan.nodes.get(Tier.EDGE) if stream.plan else None
    refusing |= head is not None and works_whole(inventory, stream, head)
    return None if refusing else tiles
