"""Room for what events bring: a planner knows a bounded number of nodes, streams, models and profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nodes.planner.costs.block_seconds import MOST_PROFILES
from nodes.planner.machine.events import (
    InfoArrived,
    LinkArrived,
    ManifestArrived,
    PlannerEvent,
    PlanSeen,
    ProfileArrived,
    TelemetryArrived,
    Told,
)
from nodes.planner.machine.registry import MOST_GRAPHS
from nodes.protocol.messages import NodeInfo
from nodes.protocol.peers import MOST_FIRST_EPOCH
from nodes.tier.machine.events import PeerAppliedArrived, PeerStateArrived
from pipeline.plan import NodeId, Plan
from pipeline.ranges import MOST_NODES, MOST_STREAMS

if TYPE_CHECKING:
    from nodes.planner.machine.inventory import Inventory


def sender_of(event: PlannerEvent) -> NodeId | None:
    """The node that an event is about, None for none."""
    match event:
        case PeerStateArrived(state):
            return state.node
        case PeerAppliedArrived(applied):
            return applied.node
        case InfoArrived(info):
            return info.node
        case LinkArrived(report):
            return report.node
        case ProfileArrived(node) | TelemetryArrived(node):
            return node
        case _:
            return None


def why_no_room(inventory: Inventory, event: Told) -> str:
    """The reason to refuse an event for which there is no room, empty if there is room."""
    node, registry = sender_of(event), inventory.registry
    if node is not None and node not in inventory.nodes and len(inventory.nodes) >= MOST_NODES:
        return f"node: {MOST_NODES} are known, and {node} would be one more; `trisect forget` those that are gone"
    match event:
        case ManifestArrived(graph) if registry.graphs.get(graph.digest, graph) != graph:
            return f"digest: another manifest of {graph.digest} is known, and a digest names one"
        case ManifestArrived(graph) if not registry.has_room_for(graph):
            return f"digest: {MOST_GRAPHS} models of living nodes are known, and {graph.digest} would be one more"
        case ProfileArrived(sender, profile) if not registry.blocks.has_room_for(sender, profile):
            return f"model: {MOST_PROFILES} profiles of {sender} are known, and this would be one more"
        case InfoArrived(info) if len(inventory.streams) + _number_new(inventory, info) > MOST_STREAMS:
            return f"streams: {MOST_STREAMS} are known, and {info.node} has more"
        case PlanSeen(plan):
            return _why_no_plan(inventory, plan)
        case _:
            return ""


def _number_new(inventory: Inventory, info: NodeInfo) -> int:
    return sum(name not in inventory.streams for name in info.streams)


def _why_no_plan(inventory: Inventory, plan: Plan) -> str:
    if plan.epoch > MOST_FIRST_EPOCH:
        return f"epoch: at most {MOST_FIRST_EPOCH} in a plan of an earlier planner, not {plan.epoch}"
    if plan.stream not in inventory.seen_plans and len(inventory.seen_plans) >= MOST_STREAMS:
        return f"stream: {MOST_STREAMS} are known, and {plan.stream} would be one more"
    return ""
