"""A stream's plans, one after the other: decided, published under their epochs, priced again, refused or overdue."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import islice

from nodes.planner.machine.agenda import Need
from nodes.planner.machine.events import PlannerAction, PublishPlan
from nodes.planner.machine.fetches import Fetch
from nodes.planner.machine.gain import next_trial_s
from nodes.planner.machine.inventory import Inventory
from nodes.planner.machine.lateness import overdue, patience_s
from nodes.planner.machine.problem import PlanningProblem, Solved
from nodes.planner.machine.publish_rules import Publish, Situation, goes_on_by_itself, verdict
from nodes.planner.machine.rules import (
    LOST_GRACE_S,
    estimated_nodes,
    fallback_of,
    has_lost_a_node,
    is_measured_now,
    is_refused_by_device,
    replaced_by_trial,
    waits_for_version,
)
from nodes.planner.machine.solving import look, posed, priced_today, why_not
from nodes.planner.machine.stream import PlannedStream, assignment, assignment_of, fits
from nodes.tier.machine.actions import Log
from pipeline.errors import PlanError, TrisectError
from pipeline.graph import ModelGraph
from pipeline.partition.priced_plan import PricedPlan
from pipeline.partition.search import Ranked
from pipeline.placement import Tier
from pipeline.plan import NodeId, Plan, StreamId

LEAST_NEWS = 0.01
"""A price that differs by a smaller share from what was said last is said again only..."""
SAME_NEWS_S = 60.0
"""...so long after it: what leaves its band to and fro would fill the log."""
COMPARED = 2
"""Plans that are looked at: the best, and the next best, which is named beside it."""
LOOKED_AT = 6
"""Where no plan runs that could go on while a better one's nodes fetch."""
LONG_FETCH_S = 5.0


def _refusals(inventory: Inventory, name: StreamId, stream: PlannedStream) -> list[PlannerAction]:
    """A node that refuses the present plan is left out of this stream for as long as its process lives.

    Not so the device, without which there is no stream: what it refuses is not asked of it again, and the plan that
    it had is published again.
    """
    actions: list[PlannerAction] = []
    for node in stream.plan.members if stream.plan else ():
        applied = inventory.registry.peers.applied.get(node)
        if applied is None:
            continue
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


def decide(
    inventory: Inventory,
    name: StreamId,
    stream: PlannedStream,
    now: float,
    wall_ts: float,
    *,
    quick: bool = False,
    brief: bool = False,
    has_time: bool = True,
) -> list[PlannerAction]:
    """Publish a plan for the stream if there is a reason to, or say the present one's price, or what is lacking.

    A `quick` plan is not proved, and a `brief` reason does not compare it with others: when nothing else waits, the
    stream is looked at again, and the rest is said. So is a new price of the present plan, unless it `has_time`: to
    find the plans that it is compared with takes longest of all.
    """
    actions = _decided(inventory, name, stream, now, wall_ts, quick=quick, brief=brief, has_time=has_time)
    if quick:
        inventory.agenda.mark([name], Need.UNPROVED)
    elif stream.why_in_brief and not has_time:
        inventory.agenda.mark([name], Need.WORDS)
    for when, need in _look_again(inventory, stream, now):
        inventory.agenda.at(when, name, need)
    return actions


def _look_again(inventory: Inventory, stream: PlannedStream, now: float) -> Iterator[tuple[float, Need]]:
    """When time alone may change what is decided, and how much that is needed."""
    settings, plan = inventory.settings, stream.plan
    if plan is None:
        return
    if stream.published_at == now:
        yield now, Need.CHANGED  # as soon as anything happens: from then on its nodes are expected to prepare it
    for (node, session, _), since in stream.preparing.items():
        if now < (late := since + patience_s(settings.prepare_timeout_s, stream, node, session)):
            yield late, Need.CHANGED
    if now < (patient := stream.published_at + settings.min_seconds_between_plans):
        yield patient, Need.CHANGED
    if stream.drift_reasons and now < (news := stream.priced_at + settings.min_seconds_between_plans):
        yield news, Need.WORDS
    for node in plan.members:
        if now < (gone := inventory.lost_at.get(node, -math.inf) + LOST_GRACE_S):
            yield gone, Need.URGENT


def _decided(
    inventory: Inventory,
    name: StreamId,
    stream: PlannedStream,
    now: float,
    wall_ts: float,
    *,
    quick: bool,
    brief: bool,
    has_time: bool,
) -> list[PlannerAction]:
    actions = _refusals(inventory, name, stream)
    actions += overdue(inventory.registry.peers, inventory.settings.prepare_timeout_s, stream, now)
    if waits_for_version(inventory, stream, now):
        return actions
    try:
        graph = inventory.registry.graph_of(stream.binding)
        if _is_young(inventory, stream, now, has_time=has_time):
            look(inventory, stream, graph)
            return actions
        choice = _Choice(inventory, stream, graph, quick=quick, brief=brief)
        decided = verdict(Situation(inventory, stream, graph, choice, now))
        best = choice.best if isinstance(decided, Publish) else None
    except TrisectError as error:
        return actions + _say(stream, f"no plan for stream {name} yet: {error}")
    if wrong := inventory.registry.remarks(stream.binding):
        actions += _say(stream, wrong)
    if isinstance(decided, Publish) and best is not None:
        why = choice.lacking + decided.reason
        _count_trial(inventory, stream, graph, choice, decided, now)
        return actions + _publish(inventory, name, stream, choice, best, why, now, wall_ts)
    if stream.plan is not None and stream.why_in_brief and has_time and not has_lost_a_node(inventory, stream):
        return actions + _price_anew(inventory, name, stream, choice, stream.why_in_brief, now)
    if stream.plan is not None and is_measured_now(inventory, stream):
        was = f"estimated at {stream.plan.predicted.seconds * 1e3:.1f} ms a frame at first, measured since"
        stream.unsure = frozenset()
        return actions + _price_anew(inventory, name, stream, choice, was, now)
    is_time = now - max(stream.published_at, stream.priced_at) >= inventory.settings.min_seconds_between_plans
    if stream.drift_reasons and is_time and not has_time:
        inventory.agenda.mark([name], Need.WORDS)
    elif stream.drift_reasons and is_time and not has_lost_a_node(inventory, stream):
        if not _is_worth_saying(stream, choice, now):
            stream.drift_reasons = ()
            return actions
        why = f"{'; '.join(stream.drift_reasons)}: the present plan stays, {decided.reason}"
        return actions + _price_anew(inventory, name, stream, choice, why, now)
    if stream.adopted and stream.plan is not None:
        stream.adopted = False
        actions.append(PublishPlan(stream.plan, graph))
    return actions


def _is_young(inventory: Inventory, stream: PlannedStream, now: float, *, has_time: bool) -> bool:
    """True when the plan stays because it is young, whatever there is to choose from: nothing is priced for that."""
    plan = stream.plan
    if plan is None or plan.tiles is not None or not goes_on_by_itself(inventory, stream):
        return False
    is_settled = not stream.unsure and not stream.adopted and not (stream.why_in_brief and has_time)
    return is_settled and now - stream.published_at < inventory.settings.min_seconds_between_plans


class _Choice:
    """What there is to choose from for a stream at present; plans are found when they are first asked for.

    `lacking` says what is not as it was placed by hand, as soon as the best plan is known.
    """

    def __init__(
        self, inventory: Inventory, stream: PlannedStream, graph: ModelGraph, *, quick: bool, brief: bool
    ) -> None:
        self._inventory, self._stream, self._graph = inventory, stream, graph
        self.lacking, self._quick, self.is_brief = "", quick, brief
        look(inventory, stream, graph)

    @cached_property
    def solved(self) -> Solved:
        """The plans that the stream may have, with the problem that they solve."""
        return posed(self._inventory, self._stream, self._graph, self._stream.forced, quick=self._quick)

    @property
    def problem(self) -> PlanningProblem:
        """The problem of today."""
        return self.solved.problem

    @cached_property
    def present(self) -> PricedPlan:
        """The present plan at today's prices; all its nodes are usable."""
        assert self._stream.plan is not None
        return priced_today(self._inventory, self._stream, self._graph, self._stream.plan)

    @cached_property
    def best(self) -> PricedPlan:
        """The plan to have. Raises TrisectError where there is none."""
        inventory, stream, graph = self._inventory, self._stream, self._graph
        if not self.solved.plans and stream.forced is not None:
            self.lacking = f"not as placed by hand, since {why_not(inventory, stream, stream.forced)}; "
            self.solved = posed(inventory, stream, graph, None)
        if not self.solved.plans:
            raise PlanError(why_not(inventory, stream, None))
        if not (fallback := fallback_of(inventory, stream, graph)) and not self.acceptable:
            raise PlanError(f"{stream.binding.device} has refused all there are")
        return fallback or _soonest(inventory, stream, graph, self.acceptable)

    @cached_property
    def acceptable(self) -> Sequence[PricedPlan]:
        """Best plans first, without those that the device has refused."""
        plans, refused = self.solved.plans, partial(is_refused_by_device, self._inventory, self._stream)
        return Ranked(plan for plan in plans if not refused(assignment_of(plan)))

    @property
    def compared(self) -> Sequence[PricedPlan]:
        """The best plans that are looked at beside the one that is taken."""
        return list(islice(self.acceptable, COMPARED))


def _runs(inventory: Inventory, stream: PlannedStream) -> bool:
    """Whether frames go on under a plan while the nodes of another one prepare it."""
    plan, registry = stream.plan or stream.rolled_from, inventory.registry
    return plan is not None and all(registry.peers.alive(node) for node in plan.nodes.values())


def _fetches(inventory: Inventory, stream: PlannedStream, graph: ModelGraph, plan: PricedPlan) -> tuple[Fetch, ...]:
    fetches = inventory.registry.fetches
    return fetches.of_plan(stream.binding.model, graph, plan.placement, plan.nodes, plan.tiling)


def _soonest(
    inventory: Inventory, stream: PlannedStream, graph: ModelGraph, priced_plans: Sequence[PricedPlan]
) -> PricedPlan:
    """The best plan; where nothing runs meanwhile, one whose nodes have what they need in a fraction of the time.

    The best one follows when it is better by the margin: then its nodes fetch while that one runs.
    """
    best = priced_plans[0]
    if _runs(inventory, stream):
        return best
    longest_s = _fetch_s(inventory, stream, graph, best)
    if longest_s < LONG_FETCH_S:
        return best
    looked_at = islice(priced_plans, LOOKED_AT)
    return next((p for p in looked_at if _fetch_s(inventory, stream, graph, p) <= longest_s / 4), best)


def _fetch_s(inventory: Inventory, stream: PlannedStream, graph: ModelGraph, plan: PricedPlan) -> float:
    """Seconds until the last of a plan's nodes has what it needs."""
    return max((one.seconds for one in _fetches(inventory, stream, graph, plan)), default=0.0)


def _count_trial(
    inventory: Inventory, stream: PlannedStream, graph: ModelGraph, choice: _Choice, decided: Publish, now: float
) -> None:
    """Note what the present plan has lost if it was a trial, and whether the next one is."""
    plan = stream.plan
    can_go_on = plan is not None and fits(plan, graph) and not has_lost_a_node(inventory, stream)
    if plan is not None and can_go_on:
        wait_s = next_trial_s(stream, choice.present, replaced_by_trial(inventory, stream, graph), now)
        stream.next_trial_at = max(stream.next_trial_at, now + wait_s)
    stream.tried_instead_of = plan if decided.is_trial and can_go_on else None


def _is_worth_saying(stream: PlannedStream, choice: _Choice, now: float) -> bool:
    """Whether the present plan's price has changed since it was said last, or nothing has been said for a while."""
    plan = stream.plan
    assert plan is not None
    if now - max(stream.published_at, stream.priced_at) >= SAME_NEWS_S or not stream.priced_at:
        return True
    said = stream.plan_request.parsed_objective().value(plan.predicted)
    return abs(choice.present.value - said) > LEAST_NEWS * said


def _publish(
    inventory: Inventory,
    name: StreamId,
    stream: PlannedStream,
    choice: _Choice,
    best: PricedPlan,
    why: str,
    now: float,
    wall_ts: float,
) -> list[PlannerAction]:
    unsure = estimated_nodes(inventory, stream)
    doubt = f"; estimated, not measured, for {', '.join(unsure)}" if unsure else ""
    problem = choice.solved.problem
    compared, runner_up = problem.in_brief(best) if choice.is_brief else problem.compared(best, choice.compared)
    fetching = "".join(f"; {one}" for one in _fetches(inventory, stream, problem.graph, best))
    if fetching and _runs(inventory, stream):
        fetching += ", while the plan before runs on"
    registry, model = inventory.registry, stream.binding.model
    compared += registry.difference(model, best.nodes) + registry.undecoded(stream.binding, best.nodes)
    compared += registry.replayed(best.nodes)
    plan = Plan(
        stream=name,
        epoch=_next_epoch(inventory, name, stream),
        model=model,
        digest=problem.graph.digest,
        nodes={tier: NodeId(node) for tier, node in best.nodes.items()},
        placement=best.placement,
        predicted=best.predicted,
        planner=stream.planner_of(best),
        reason=f"{why}; {compared}{fetching}{doubt}",
        created_ts=wall_ts,
        objective=stream.plan_request.objective,
        runner_up=runner_up,
        plan_request=stream.requested_as_written,
        by_hand=stream.by_hand,
        tiles=best.tiling,
        codecs=best.codecs(problem.graph),
    )
    plan = _with_interval(inventory, plan)
    inventory.hold(stream, plan)
    stream.published_at, stream.unsure, stream.drift_reasons = now, frozenset(unsure), ()
    stream.why_in_brief = why if choice.is_brief else ""
    text = f"stream {name}: epoch {plan.epoch} ({plan.planner}): {plan.reason}"
    return [PublishPlan(plan, problem.graph), Log(logging.INFO, text)]


def _price_anew(
    inventory: Inventory,
    name: StreamId,
    stream: PlannedStream,
    choice: _Choice,
    why: str,
    now: float,
) -> list[PlannerAction]:
    """Say the present plan's price of today, and why it stays. To nodes an epoch of the same moment is no news."""
    plan = stream.plan
    assert plan is not None
    problem = choice.solved.problem
    present = choice.present
    compared, runner_up = problem.compared(present, choice.compared)
    reason = f"{why}; {compared}{inventory.registry.replayed(present.nodes)}"
    again = _with_interval(inventory, replace(plan, predicted=present.predicted, reason=reason, runner_up=runner_up))
    inventory.hold(stream, again)
    stream.drift_reasons, stream.priced_at, stream.why_in_brief = (), now, ""
    text = f"stream {name}: epoch {plan.epoch}: {reason}"
    return [PublishPlan(again, problem.graph, stays=True), Log(logging.INFO, text)]


def _with_interval(inventory: Inventory, plan: Plan) -> Plan:
    """The plan with the interval in which its frames are expected."""
    deviation = inventory.registry.learned.deviation(plan)
    return plan if deviation is None else replace(plan, predicted=plan.predicted.within(deviation))


def _next_epoch(inventory: Inventory, name: StreamId, stream: PlannedStream) -> int:
    """Above everything that any node has seen, so that a planner which forgot is not mistaken for an old one."""
    plans = (stream.plan, inventory.seen_plans.get(name))
    seen = inventory.registry.highest_seen(name, inventory.newest_believable(name))
    return 1 + max([seen, *(plan.epoch for plan in plans if plan is not None)])


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
