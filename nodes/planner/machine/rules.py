"""What the rules for publishing a plan ask of the inventory: refusals, losses, estimates. Pure."""

from __future__ import annotations

import math

from nodes.planner.machine.inventory import Inventory
from nodes.planner.machine.solving import priced_today, workers_of
from nodes.planner.machine.stream import Assignment, PlannedStream, assignment, fits
from pipeline.graph import ModelGraph
from pipeline.partition.priced_plan import PricedPlan
from pipeline.placement import Tier
from pipeline.plan import NodeId

VERSION_GRACE_S = 10.0
"""So long a stream's other nodes have to hear of a new version of its model."""
VERSION_LOOK_S = 0.5
LOST_GRACE_S = 0.5
"""A broker that shuts down sends everybody's will: a moment later it is gone itself, and its nodes are not. And what
somebody else says in a node's name the node puts right, as fast.
"""


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


def replaced_by_trial(inventory: Inventory, stream: PlannedStream, graph: ModelGraph) -> PricedPlan | None:
    """The plan that the present one, a trial, has replaced, at today's price; None where it cannot be had any more."""
    plan = stream.tried_instead_of
    if plan is None or not fits(plan, graph) or not stream.assumed.keys() >= set(plan.members):
        return None
    gone = any(inventory.registry.why_gone(stream.binding, tier, node) for tier, node in plan.nodes.items())
    return None if gone else priced_today(inventory, stream, graph, plan)


def may_only_blink(inventory: Inventory, node: NodeId, now: float) -> bool:
    """True when the node has left or restarted less than LOST_GRACE_S ago, so that it may be back in a moment."""
    just_lost = now - inventory.lost_at.get(node, -math.inf) < LOST_GRACE_S
    return just_lost and not inventory.registry.is_there(node)


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


def waits_for_version(inventory: Inventory, stream: PlannedStream, now: float) -> bool:
    """Whether nodes of the plan under the version before have not said yet that they have the new one's header.

    They hear of it within a moment of each other. A plan without them would have their blocks fetched elsewhere.
    """
    before, registry = stream.rolled_from, inventory.registry
    if before is None or stream.plan is not None or now >= stream.rolled_at + VERSION_GRACE_S:
        return False
    late = [
        node
        for node in before.members
        if registry.peers.alive(node)
        and (info := registry.infos.get(node)) is not None
        and stream.binding.model not in info.models
    ]
    if late:
        inventory.agenda.at(now + VERSION_LOOK_S, stream.name)
    return bool(late)
