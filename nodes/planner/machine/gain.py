"""The gain of another plan with its probability, and what trying one costs. Pure."""

from __future__ import annotations

import math
from dataclasses import replace

from nodes.planner.costs.cost_filter import Term
from nodes.planner.machine.inventory import Inventory
from nodes.planner.machine.stream import PlannedStream
from pipeline.partition.priced_plan import PricedPlan
from pipeline.placement import Tier
from pipeline.plan import NodeId, Plan

SURE = 0.95
_LEAST = 1e-9
EXPLORATION = 0.01
"""The share of its time by which a stream's frames may be slower for plans that are tried without being sure."""


def chance_of_gain(inventory: Inventory, stream: PlannedStream, present: PricedPlan, best: PricedPlan) -> float:
    """Probability that the best plan is better than the present one, as far as costs are uncertain; 1 if none is.

    Both are sums over the same filter's parts: what both have in common cancels out.
    """
    objective, learned = stream.plan_request.parsed_objective(), inventory.registry.learned
    before, after = _frame(inventory, stream, present), _frame(inventory, stream, best)
    if before is None or after is None:
        return 1.0
    variance = learned.filter.variance([*before, *(replace(term, amount=-term.amount) for term in after)])
    predicted = present.predicted
    # money and joules go with seconds of work: about so much for each second of a frame
    by_work = (objective.price * predicted.price + objective.energy * predicted.joules) / max(predicted.seconds, _LEAST)
    weight = objective.latency + objective.period + by_work
    deviation = weight * math.sqrt(variance)
    gain = present.value - best.value
    return 0.5 * (1 + math.erf(gain / (deviation * math.sqrt(2)))) if deviation > 0 else 1.0


def is_stale(inventory: Inventory, stream: PlannedStream, best: PricedPlan, now: float) -> bool:
    """True when the best plan has a node that served before and was left: it may still be as it was then."""
    present = stream.plan.members if stream.plan is not None else ()
    new = [node for node in best.nodes.values() if node not in present]
    return any(inventory.registry.learned.is_stale(NodeId(node), stream.binding.model, now) for node in new)


def next_trial_s(stream: PlannedStream, present: PricedPlan, before: PricedPlan | None, now: float) -> float:
    """Seconds until another plan may be tried, so that trials take EXPLORATION: by what the present one, a trial, lost.

    Both at today's costs: what has become slower under either is no loss of the trial's. `before` is the plan that it
    replaced, None where that cannot be had any more, or the present one is no trial.
    """
    if before is None or before.value <= 0:
        return 0.0
    lost = max(0.0, present.value / before.value - 1)
    return (now - stream.published_at) * lost / EXPLORATION


def _frame(inventory: Inventory, stream: PlannedStream, priced: PricedPlan) -> list[Term] | None:
    """A frame's terms under a priced plan."""
    graph = inventory.registry.graph_of(stream.binding)
    plan = Plan(
        stream=stream.name,
        epoch=1,
        model=stream.binding.model,
        digest=graph.digest,
        nodes={tier: NodeId(node) for tier, node in priced.nodes.items()},
        placement=priced.placement,
        predicted=priced.predicted,
        planner="",
        reason="",
        created_ts=0.0,
        tiles=priced.tiling,
    )
    return inventory.registry.learned.frame(plan) if Tier.DEVICE in plan.nodes else None
