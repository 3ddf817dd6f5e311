"""Answers to what another placement or plan request would cost; nothing changes by them. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nodes.planner.machine.events import PlannerAction, PriceRequested, Reply
from nodes.planner.machine.inventory import Inventory
from nodes.planner.machine.solving import priced_plans_of, priced_today, why_not
from nodes.planner.machine.stream import FORCED, PlannedStream, fits, stream_named
from pipeline.errors import PlanError, TrisectError
from pipeline.graph import ModelGraph
from pipeline.partition.priced_plan import PricedPlan
from pipeline.placement import split_at
from pipeline.plan import NodeId, Plan


def price_requested(inventory: Inventory, event: PriceRequested, wall_ts: float) -> list[PlannerAction]:
    """Answer with the price of what was asked for and that of the present plan, both at today's costs.

    The answer's `plan` is what would be published, but for its epoch and reason. Constraints hold as if it were asked
    for in earnest, so that the answer may be why it cannot be.
    """
    try:
        stream = stream_named(inventory.streams, event.stream)
        graph = inventory.registry.graph_of(stream.binding)
        forced = None if event.plan_request is not None else split_at(graph, event.edge_from, event.cloud_from)
        asked = event.plan_request or stream.requested
        trial = replace(stream, requested=asked, forced=forced, forced_tiles=None, solved={})
        found = priced_plans_of(inventory, trial, graph, forced)
        # what the costs have drifted by stays to be said with the next decision
        stream.assumed, stream.before, stream.drift_reasons = trial.assumed, trial.before, trial.drift_reasons
        if not found:
            raise PlanError(f"stream {event.stream!r} cannot be placed so: {why_not(inventory, stream, forced)}")
        best = found[0]
    except TrisectError as error:
        return [Reply(event.request, {"ok": False, "error": str(error)})]
    return [Reply(event.request, _answer(inventory, trial, graph, best, wall_ts))]


def _answer(
    inventory: Inventory, stream: PlannedStream, graph: ModelGraph, best: PricedPlan, wall_ts: float
) -> dict[str, Any]:
    objective = stream.plan_request.parsed_objective()
    plan = Plan(
        stream=stream.name,
        epoch=stream.plan.epoch if stream.plan else 1,
        model=stream.binding.model,
        digest=graph.digest,
        nodes={tier: NodeId(node) for tier, node in best.nodes.items()},
        placement=best.placement,
        predicted=best.predicted,
        planner=FORCED if stream.forced is not None else stream.plan_request.planner,
        reason="priced only",
        created_ts=wall_ts,
        objective=stream.plan_request.objective,
        tiles=best.tiling,
        codecs=best.codecs(graph),
    )
    present = _present(inventory, stream, graph)
    return {
        "ok": True,
        "plan": plan.to_json(graph),
        "value": best.value,
        "text": objective.text(best.value),
        "present": present
        and {
            "predicted": present.predicted.to_json() | present.predicted.period_json(),
            "value": present.value,
            "text": objective.text(present.value),
        },
    }


def _present(inventory: Inventory, stream: PlannedStream, graph: ModelGraph) -> PricedPlan | None:
    """The present plan at today's price under the stream's request; None where there is none, or a node is gone."""
    plan = stream.plan
    if plan is None or not fits(plan, graph) or not stream.assumed.keys() >= set(plan.members):
        return None
    return priced_today(inventory, stream, graph, plan)
