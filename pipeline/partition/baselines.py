"""The single tiers, as planners: what every plan is compared with, and what often wins for one frame's latency."""

from __future__ import annotations

from pipeline.cost import Costs
from pipeline.errors import Infeasible
from pipeline.graph import ModelGraph
from pipeline.partition.constraints import NONE, Constraints, allowed, require
from pipeline.placement import Placement, Tier


def device_only(graph: ModelGraph, costs: Costs, constraints: Constraints = NONE) -> Placement:
    """Everything on the device. Raises Infeasible when the constraints do not allow it."""
    return _only(Tier.DEVICE, graph, costs, constraints)


def edge_only(graph: ModelGraph, costs: Costs, constraints: Constraints = NONE) -> Placement:
    """Everything but the input on the edge. Raises Infeasible when the constraints do not allow it."""
    return _only(Tier.EDGE, graph, costs, constraints)


def cloud_only(graph: ModelGraph, costs: Costs, constraints: Constraints = NONE) -> Placement:
    """Everything but the input in the cloud. Raises Infeasible when the constraints do not allow it."""
    return _only(Tier.CLOUD, graph, costs, constraints)


def _only(tier: Tier, graph: ModelGraph, costs: Costs, constraints: Constraints) -> Placement:
    costs.check(graph)
    if tier not in costs.seconds:
        raise Infeasible(f"the {tier.label} has no node; start one, or plan without it")
    placement = (Tier.DEVICE, *[tier] * (len(graph) - 1))
    require(graph, placement, allowed(graph, costs.seconds.keys(), constraints))
    return placement
