"""When another plan is published: the first, for a reason that allows no delay, or better by a margin. Pure."""

from __future__ import annotations

import math

from nodes.config.plan_request import constraints_of
from nodes.planner.machine.inventory import Inventory
from nodes.planner.machine.solving import priced_today, workers_of, works_whole
from nodes.planner.machine.stream import PlannedStream, Way, fits, way, way_of
from nodes.protocol.messages import LifeState
from pipeline.graph import ModelGraph
from pipeline.partition.choice import Choice
from pipeline.partition.constraints import broken
from pipeline.placement import Tier
from pipeline.plan import NodeId, Plan

LOST_GRACE_S = 0.5
"""A broker that shuts down sends everybody's will: a moment later it is gone itself, and its nodes are not."""


def is_turned_down(inventory: Inventory, stream: PlannedStream, way: Way) -> bool:
    """Whether the present process of the stream's device has refused to run it so."""
    device = inventory.roster.peers.states.get(stream.served.device)
    return device is not None and stream.turned_down.get(way) == device.session


def fallback_of(inventory: Inventory, stream: PlannedStream, graph: ModelGraph) -> Choice | None:
    """The plan that the device had before the one it refuses, while its nodes are there."""
    plan, proven = stream.plan, stream.proven
    if plan is None or proven is None or not is_turned_down(inventory, stream, way(plan)):
        return None
    gone = any(inventory.roster.why_gone(stream.served, tier, node) for tier, node in proven.nodes.items())
    if gone or not fits(proven, graph) or is_turned_down(inventory, stream, way(proven)):
        return None
    return priced_today(inventory, stream, graph, proven)


def why_publish(inventory: Inventory, stream: PlannedStream, graph: ModelGraph, best: Choice, now: float) -> str:
    """The reason to publish `best`, empty when the present plan stays."""
    plan = stream.plan
    if plan is None or plan.device != stream.served.device or not fits(plan, graph):
        return "first plan"
    if (seen := inventory.roster.highest_seen(plan.stream, inventory.newest_believable(plan.stream))) > plan.epoch:
        return f"a node has seen epoch {seen} and ignores {plan.epoch}"
    if is_turned_down(inventory, stream, way(plan)):
        return f"{plan.device} refuses epoch {plan.epoch}"
    is_same = way(plan) == way_of(best)
    if is_same and stream.hurry:
        wanted = (stream.planner_of(best), stream.wishes.objective, stream.asked_as_written)
        return stream.by_whom(best) if (plan.planner, plan.objective, plan.wishes) != wanted else ""
    if is_same and plan.codecs == best.codecs(graph):
        return ""
    if any(may_only_blink(inventory, node, now) for node in plan.nodes.values()):
        return ""
    gone = [why for tier, node in plan.nodes.items() if (why := inventory.roster.why_gone(stream.served, tier, node))]
    if plan.tiles is not None and works_whole(inventory, stream, plan.nodes[Tier.EDGE]):
        gone.append(f"{plan.nodes[Tier.EDGE]} refuses tiles")
    gone += [why for node in plan.workers if (why := inventory.roster.why_no_tiles(stream.served, node))]
    if gone:
        return "; ".join(gone)
    if stream.hurry or (best.placement == stream.forced and not is_same):
        return stream.by_whom(best)
    if now - stream.published_at < inventory.settings.min_seconds_between_plans:
        return ""
    if breaks := _breaks(inventory, stream, graph, plan):
        return f"the present plan breaks what is asked: {breaks}"
    present = priced_today(inventory, stream, graph, plan).value
    gain = 1 - best.value / present if present else 0.0
    if gain < inventory.settings.margin:
        return ""
    less = f"{gain:.0%} less than the present plan's {stream.wishes.parsed_objective().text(present)}"
    return "; ".join([*stream.news, less])


def _breaks(inventory: Inventory, stream: PlannedStream, graph: ModelGraph, plan: Plan) -> str:
    """What of the wishes the plan does not respect, in words."""
    wishes = stream.wishes.constraints
    candidate = inventory.terms.candidate(plan.nodes, inventory.roster.costs(stream.served, plan.nodes, stream.assumed))
    asked = (*constraints_of(graph, wishes), *candidate.constraints)
    against = [constraint.describe(graph) for constraint in broken(graph, plan.placement, candidate.costs, asked)]
    against += [f"{n} gets no blocks" for t, n in plan.nodes.items() if t and n in wishes.exclude_nodes]
    return "; ".join(against)


def may_only_blink(inventory: Inventory, node: NodeId, now: float) -> bool:
    """Whether the node was lost so short a while ago that it may be back in a moment."""
    state = inventory.roster.peers.states.get(node)
    just_lost = now - inventory.lost_at.get(node, -math.inf) < LOST_GRACE_S
    return state is not None and state.state is LifeState.LOST and just_lost


def estimated_nodes(inventory: Inventory, stream: PlannedStream) -> list[NodeId]:
    """The usable nodes that are priced by an estimate."""
    usable = [node for tier in Tier for node in inventory.roster.usable(stream.served, tier)]
    usable += workers_of(inventory, stream)
    return [node for node in usable if inventory.roster.is_estimated(stream.served, node)]


def is_measured_now(inventory: Inventory, stream: PlannedStream) -> bool:
    """Whether the present plan was estimated for nodes that have all measured themselves meanwhile."""
    estimated = any(inventory.roster.is_estimated(stream.served, node) for node in stream.unsure)
    return bool(stream.unsure) and not estimated and not has_lost_a_node(inventory, stream)


def has_lost_a_node(inventory: Inventory, stream: PlannedStream) -> bool:
    """Whether the present plan has a node that cannot be priced now, if only for a moment."""
    nodes = stream.plan.nodes.items() if stream.plan else ()
    return any(inventory.roster.why_gone(stream.served, tier, node) for tier, node in nodes)
