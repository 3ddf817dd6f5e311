"""Rules for publishing another plan: the first, for a reason that allows no delay, or better by a margin. Pure."""

from __future__ import annotations

import math

from nodes.config.plan_request import constraints_of
from nodes.planner.machine.inventory import Inventory
from nodes.planner.machine.solving import is_untiled_only, priced_today, workers_of
from nodes.planner.machine.stream import Assignment, PlannedStream, assignment, assignment_of, fits
from nodes.protocol.messages import LifeState
from pipeline.graph import ModelGraph
from pipeline.partition.constraints import broken
from pipeline.partition.priced_plan import PricedPlan
from pipeline.placement import Tier
from pipeline.plan import NodeId, Plan

LOST_GRACE_S = 0.5
"""A broker that shuts down sends everybody's will: a moment later it is gone itself, and its nodes are not."""


def is_refused_by_device(inventory: Inventory, stream: PlannedStream, assignment: Assignment) -> bool:
    """True when the present process of the stream's device has refused this assignment."""
    device = inventory.registry.peers.states.get(stream.binding.device)
    return device is not None and stream.refused_by_device.get(assignment) == device.session


def fallback_of(inventory: Inventory, stream: PlannedStream, graph: ModelGraph) -> PricedPlan | None:
    """The plan that the device had before the one it refuses, while its nodes are there."""
    plan, last_good = stream.plan, stream.last_good
    if plan is None or last_good is None or not is_refused_by_device(inventory, stream, assignment(plan)):
        return None
    gone = any(inventory.registry.why_gone(stream.binding, tier, node) for tier, node in last_good.nodes.items())
    if gone or not fits(last_good, graph) or is_refused_by_device(inventory, stream, assignment(last_good)):
        return None
    return priced_today(inventory, stream, graph, last_good)


def why_publish(inventory: Inventory, stream: PlannedStream, graph: ModelGraph, best: PricedPlan, now: float) -> str:
    """The reason to publish `best`, empty when the present plan stays."""
    plan = stream.plan
    if plan is None or plan.device != stream.binding.device or not fits(plan, graph):
        return "first plan"
    if (seen := inventory.registry.highest_seen(plan.stream, inventory.newest_believable(plan.stream))) > plan.epoch:
        return f"a node has seen epoch {seen} and ignores {plan.epoch}"
    if is_refused_by_device(inventory, stream, assignment(plan)):
        return f"{plan.device} refuses epoch {plan.epoch}"
    if assignment(plan) == assignment_of(best):
        wanted = (stream.planner_of(best), stream.plan_request.objective, stream.requested_as_written)
        changed = stream.force and (plan.planner, plan.objective, plan.plan_request) != wanted
        return stream.by_whom(best) if changed else ""
    if any(may_only_blink(inventory, node, now) for node in plan.nodes.values()):
        return ""
    gone = [
        why for tier, node in plan.nodes.items() if (why := inventory.registry.why_gone(stream.binding, tier, node))
    ]
    if plan.tiles is not None and is_untiled_only(inventory, stream, plan.nodes[Tier.EDGE]):
        gone.append(f"{plan.nodes[Tier.EDGE]} refuses tiles")
    gone += [why for node in plan.workers if (why := inventory.registry.why_no_tiles(stream.binding, node))]
    if gone:
        return "; ".join(gone)
    if stream.force or best.placement == stream.forced:
        return stream.by_whom(best)
    if now - stream.published_at < inventory.settings.min_seconds_between_plans:
        return ""
    if breaks := _breaks(inventory, stream, graph, plan):
        return f"the present plan breaks what is asked: {breaks}"
    present = priced_today(inventory, stream, graph, plan).value
    gain = 1 - best.value / present if present else 0.0
    if gain < inventory.settings.margin:
        return ""
    less = f"{gain:.0%} less than the present plan's {stream.plan_request.parsed_objective().text(present)}"
    return "; ".join([*stream.drift_reasons, less])


def _breaks(inventory: Inventory, stream: PlannedStream, graph: ModelGraph, plan: Plan) -> str:
    """The constraints that the plan does not respect, in words; empty for none."""
    limits = stream.plan_request.constraints
    node_set = inventory.static_costs.node_set(
        plan.nodes, inventory.registry.costs(stream.binding, plan.nodes, stream.assumed)
    )
    asked = (*constraints_of(graph, limits), *node_set.constraints)
    against = [constraint.describe(graph) for constraint in broken(graph, plan.placement, node_set.costs, asked)]
    against += [f"{n} gets no blocks" for t, n in plan.nodes.items() if t and n in limits.exclude_nodes]
    return "; ".join(against)


def may_only_blink(inventory: Inventory, node: NodeId, now: float) -> bool:
    """True when the node was lost less than LOST_GRACE_S ago, so that it may be back in a moment."""
    state = inventory.registry.peers.states.get(node)
    just_lost = now - inventory.lost_at.get(node, -math.inf) < LOST_GRACE_S
    return state is not None and state.state is LifeState.LOST and just_lost


def estimated_nodes(inventory: Inventory, stream: PlannedStream) -> list[NodeId]:
    """The usable nodes that are priced by an estimate."""
    usable = [node for tier in Tier for node in inventory.registry.usable(stream.binding, tier)]
    usable += workers_of(inventory, stream)
    return [node for node in usable if inventory.registry.is_estimated(stream.binding, node)]


def is_measured_now(inventory: Inventory, stream: PlannedStream) -> bool:
    """True when the present plan was estimated for nodes that have all measured themselves since."""
    estimated = any(inventory.registry.is_estimated(stream.binding, node) for node in stream.unsure)
    return bool(stream.unsure) and not estimated and not has_lost_a_node(inventory, stream)


def has_lost_a_node(inventory: Inventory, stream: PlannedStream) -> bool:
    """True when the present plan has a node that cannot be priced now, if only for a moment."""
    nodes = stream.plan.nodes.items() if stream.plan else ()
    return any(inventory.registry.why_gone(stream.binding, tier, node) for tier, node in nodes)
