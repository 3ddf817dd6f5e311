"""A stream's plans, one after the other: decided, published under their epochs, priced again, refused or overdue."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from nodes.planner.machine.events import (
    PlannerAction,
    PublishPlan,
)
from nodes.planner.machine.inventory import Inventory
from nodes.planner.machine.problem import PlanningProblem
from nodes.planner.machine.rules import (
    estimated_nodes,
    fallback_of,
    has_lost_a_node,
    is_measured_now,
    is_refused_by_device,
    why_publish,
)
from nodes.planner.machine.solving import priced_plans_of, priced_today, why_not
from nodes.planner.machine.stream import PlannedStream, assignment, assignment_of
from nodes.tier.machine.actions import Log
from pipeline.errors import PlanError, TrisectError
from pipeline.partition.priced_plan import PricedPlan
from pipeline.placement import Tier
from pipeline.plan import NodeId, Plan, StreamId

COMPARED = 2
"""Plans that are looked at: the best, and the next best, which is named beside it."""


def _refusals(inventory: Inventory, name: StreamId, stream: PlannedStream) -> list[PlannerAction]:
    """A node that refuses the present plan is left out of this stream for as long as its process lives.

    Not so the device, without which there is no stream: what it refuses is not asked of it again, and the plan that
    it had is published again.
    """
    actions: list[PlannerAction] = []
    for node, applied in inventory.registry.peers.applied.items():
        held = applied.streams.get(name)
        refused = held.refused.get(stream.plan.epoch) if held and stream.plan else None
        if refused is not None and stream.plan and _refuses_tiles(stream, node, applied.session):
            text = f"{node} refuses epoch {stream.plan.epoch}: {refused}: it shares out no tiles until it restarts"
            actions += _say(stream, text)
        elif refused is not None and stream.plan and stream.binding.banned.get(node) != applied.session:
            stream.binding.banned[node] = applied.session
            actions.append(Log(logging.WARNING, f"{node} refuses epoch {stream.plan.epoch}: {refused}"))
        if refused is not None and stream.plan and node == stream.binding.device:
            stream.refused_by_device[assignment(stream.plan)] = applied.session
            if stream.plan.placement == stream.forced:
                stream.forced = stream.forced_tiles = None
    return actions


def _overdue(inventory: Inventory, stream: PlannedStream, now: float) -> list[PlannerAction]:
    """A living node that never prepares would hold the plan up for ever."""
    plan, peers, waiting = stream.plan, inventory.registry.peers, {}
    for node in plan.members if plan else ():
        if plan and node != plan.device and peers.alive(node) and not peers.ready_for(node, plan):
            key = (node, peers.states[node].session, plan.epoch)
            waiting[key] = stream.preparing.get(key, now)
    stream.preparing = waiting
    actions: list[PlannerAction] = []
    for (node, session, epoch), since in waiting.items():
        late = now - since >= inventory.settings.prepare_timeout_s
        if late and stream.binding.banned.get(node) != session:
            stream.binding.banned[node] = session
            text = f"{node} has not prepared epoch {epoch} within {inventory.settings.prepare_timeout_s:.0f} s"
            actions.append(Log(logging.WARNING, f"{text}: it is left out until it restarts"))
    return actions


def decide(
    inventory: Inventory, name: StreamId, stream: PlannedStream, now: float, wall_ts: float
) -> list[PlannerAction]:
    """Publish a plan for the stream if there is a reason to, or say the present one's price, or what is lacking."""
    actions = _refusals(inventory, name, stream) + _overdue(inventory, stream, now)
    try:
        graph = inventory.registry.graph_of(stream.binding)
        lacking, (problem, priced_plans) = "", priced_plans_of(inventory, stream, graph, stream.forced)
        if not priced_plans and stream.forced is not None:
            lacking = f"not as placed by hand, since {why_not(inventory, stream, stream.forced)}; "
            problem, priced_plans = priced_plans_of(inventory, stream, graph, None)
        if not priced_plans:
            raise PlanError(why_not(inventory, stream, None))
        acceptable = (
            priced_plan
            for priced_plan in priced_plans
            if not is_refused_by_device(inventory, stream, assignment_of(priced_plan))
        )
        priced_plans = list(islice(acceptable, COMPARED))
        if not (fallback := fallback_of(inventory, stream, graph)) and not priced_plans:
            raise PlanError(f"{stream.binding.device} has refused all there are")
    except TrisectError as error:
        return actions + _say(stream, f"no plan for stream {name} yet: {error}")
    best = fallback or priced_plans[0]
    why = why_publish(inventory, stream, graph, best, now)
    registry, binding = inventory.registry, stream.binding
    wrong = [registry.mismatch(binding), registry.apart(binding), registry.unfit_profiles(binding)]
    if any(wrong):
        actions += _say(stream, "; ".join(filter(None, wrong)))
    if why:
        return actions + _publish(inventory, name, stream, problem, best, priced_plans, lacking + why, now, wall_ts)
    if stream.plan is not None and is_measured_now(inventory, stream):
        was = f"estimated at {stream.plan.predicted.seconds * 1e3:.1f} ms a frame at first, measured since"
        stream.unsure = frozenset()
        return actions + _price_anew(inventory, name, stream, problem, priced_plans, was, now)
    is_time = now - max(stream.published_at, stream.priced_at) >= inventory.settings.min_seconds_between_plans
    if stream.drift_reasons and is_time and not has_lost_a_node(inventory, stream):
        stays = f"the present plan stays, none is better by {inventory.settings.margin:.0%}"
        return actions + _price_anew(
            inventory, name, stream, problem, priced_plans, f"{'; '.join(stream.drift_reasons)}: {stays}", now
        )
    if stream.adopted and stream.plan is not None:
        stream.adopted = False
        actions.append(PublishPlan(stream.plan, graph))
    return actions


def _publish(
    inventory: Inventory,
    name: StreamId,
    stream: PlannedStream,
    problem: PlanningProblem,
    best: PricedPlan,
    priced_plans: Sequence[PricedPlan],
    why: str,
    now: float,
    wall_ts: float,
) -> list[PlannerAction]:
    unsure = estimated_nodes(inventory, stream)
    doubt = f"; estimated, not measured, for {', '.join(unsure)}" if unsure else ""
    compared, runner_up = problem.compared(best, priced_plans)
    plan = Plan(
        stream=name,
        epoch=_next_epoch(inventory, name, stream),
        model=stream.binding.model,
        digest=problem.graph.digest,
        nodes={tier: NodeId(node) for tier, node in best.nodes.items()},
        placement=best.placement,
        predicted=best.predicted,
        planner=stream.planner_of(best),
        reason=f"{why}; {compared}{doubt}{inventory.registry.difference(stream.binding.model, best.nodes)}",
        created_ts=wall_ts,
        objective=stream.plan_request.objective,
        runner_up=runner_up,
        plan_request=stream.requested_as_written,
        tiles=best.tiling,
    )
    stream.plan, stream.published_at, stream.unsure, stream.drift_reasons = plan, now, frozenset(unsure), ()
    text = f"stream {name}: epoch {plan.epoch} ({plan.planner}): {plan.reason}"
    return [PublishPlan(plan, problem.graph), Log(logging.INFO, text)]


def _price_anew(
    inventory: Inventory,
    name: StreamId,
    stream: PlannedStream,
    problem: PlanningProblem,
    priced_plans: Sequence[PricedPlan],
    why: str,
    now: float,
) -> list[PlannerAction]:
    """Say the present plan's price of today, and why it stays. To nodes an epoch of the same moment is no news."""
    plan = stream.plan
    assert plan is not None
    present = priced_today(inventory, stream, problem.graph, plan)
    compared, runner_up = problem.compared(present, priced_plans)
    reason = f"{why}; {compared}"
    stream.plan = replace(plan, predicted=present.predicted, reason=reason, runner_up=runner_up)
    stream.drift_reasons, stream.priced_at = (), now
    text = f"stream {name}: epoch {plan.epoch}: {reason}"
    return [PublishPlan(stream.plan, problem.graph, stays=True), Log(logging.INFO, text)]


def _next_epoch(inventory: Inventory, name: StreamId, stream: PlannedStream) -> int:
    """Above everything that any node has seen, so that a planner which forgot is not mistaken for an old one."""
    plans = (stream.plan, inventory.seen_plans.get(name))
    return 1 + max(
        [
            inventory.registry.highest_seen(name, inventory.newest_believable(name)),
            *(plan.epoch for plan in plans if plan is not None),
        ]
    )


def _refuses_tiles(stream: PlannedStream, node: NodeId, session: str) -> bool:
    """True when a coordinator has just refused a plan with tiles: it may run the same blocks in one piece."""
    plan = stream.plan
    is_coordinator = plan is not None and plan.tiles is not None and plan.nodes[Tier.EDGE] == node
    if is_coordinator:
        stream.untiled_only[node] = session
    return is_coordinator


def _say(stream: PlannedStream, text: str) -> list[PlannerAction]:
    """Log what holds for a while once, not at each tick."""
    if stream.last_logged == text:
        return []
    stream.last_logged = text
    return [Log(logging.WARNING, text)]
