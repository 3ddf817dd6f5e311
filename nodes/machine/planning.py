"""The planner's machine: from what nodes say of themselves to plans, one per stream, numbered by epoch.

It is off the data path: without it the last plan goes on. It publishes only when there is no plan, when the plan uses a
node that is gone or refuses, when a person asks, or when another plan is better by a margin (hysteresis).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from nodes.machine.actions import Log
from nodes.machine.events import ConnectionLost, ConnectionRestored, PeerAppliedArrived, PeerStateArrived, Tick
from nodes.machine.planner_events import (
    InfoArrived,
    LinkArrived,
    ManifestArrived,
    PlaceRequested,
    PlannerAction,
    PlannerEvent,
    PlanSeen,
    ProfileArrived,
    PublishPlan,
    Reply,
    TelemetryArrived,
)
from nodes.machine.roster import Roster, Served
from nodes.messages import LifeState
from pipeline.cost import Costs, Prediction, predict
from pipeline.errors import PlanError, TrisectError
from pipeline.graph import ModelGraph
from pipeline.partition import baselines, exact
from pipeline.placement import Placement, Tier, check, split_at
from pipeline.plan import NodeId, Plan, StreamId

EXACT = "exact"
FORCED = "forced"
_ALONE = {Tier.DEVICE: baselines.device_only, Tier.EDGE: baselines.edge_only, Tier.CLOUD: baselines.cloud_only}
LOST_GRACE_S = 0.5
"""A broker that shuts down sends everybody's will: a moment later it is gone itself, and its nodes are not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerSettings:
    """A new plan must be better by `margin` (a share), `min_seconds_between_plans` after the last one.

    Nothing is decided before `settle_s` after each connect, so that retained messages are in.
    """

    margin: float = 0.1
    min_seconds_between_plans: float = 5.0
    settle_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Choice:
    """A placement, the nodes that serve the tiers it uses, and its price; `costs` is what it was priced with."""

    placement: Placement
    nodes: Mapping[Tier, NodeId]
    predicted: Prediction
    costs: Costs


@dataclass(slots=True)
class _Stream:
    """`unsure` are nodes that were priced by an estimate when the present plan was published."""

    served: Served
    plan: Plan | None = None
    adopted: bool = False
    forced: Placement | None = None
    hurry: bool = False
    published_at: float = 0.0
    said: str = ""
    unsure: frozenset[NodeId] = frozenset()
    solved: dict[Placement | None, tuple[Any, list[Choice]]] = field(default_factory=dict)


class PlannerMachine:
    """`handle(event, now, wall_ts)` returns the actions to perform; `now` only advances, `wall_ts` stamps plans."""

    def __init__(self, settings: PlannerSettings, *, started_at: float) -> None:
        self._settings = settings
        self._decide_after = started_at + settings.settle_s
        self._lost_at: dict[NodeId, float] = {}
        self._roster = Roster()
        self._seen_plans: dict[StreamId, Plan] = {}
        self._streams: dict[StreamId, _Stream] = {}
        self._learn: dict[type, Callable[[Any, float], list[PlannerAction]]] = {
            PeerStateArrived: self._state_arrived,
            PeerAppliedArrived: self._applied_arrived,
            InfoArrived: self._info_arrived,
            ProfileArrived: self._profile_arrived,
            LinkArrived: self._link_arrived,
            TelemetryArrived: self._telemetry_arrived,
            ManifestArrived: self._manifest_arrived,
            PlanSeen: self._plan_seen,
            ConnectionLost: self._connection_lost,
            ConnectionRestored: self._connection_restored,
            Tick: lambda _event, _now: [],
        }

    def handle(self, event: PlannerEvent, now: float, wall_ts: float) -> list[PlannerAction]:
        """Take one event; decide for every stream."""
        if isinstance(event, PlaceRequested):
            return self._place_requested(event, now, wall_ts)
        actions = self._learn[type(event)](event, now)
        if now < self._decide_after:
            return actions
        for name, stream in self._streams.items():
            actions += self._decide(name, stream, now, wall_ts)
        return actions

    def _connection_lost(self, event: ConnectionLost, now: float) -> list[PlannerAction]:
        self._decide_after = math.inf
        return []

    def _connection_restored(self, event: ConnectionRestored, now: float) -> list[PlannerAction]:
        self._decide_after = now + self._settings.settle_s
        return []

    def _state_arrived(self, event: PeerStateArrived, now: float) -> list[PlannerAction]:
        state = event.state
        news = self._roster.peers.learn_state(state)
        if news and state.state is LifeState.LOST:
            self._lost_at[state.node] = now
        return [Log(logging.INFO, f"{state.node} ({state.tier}) is {state.state.value}")] if news else []

    def _info_arrived(self, event: InfoArrived, now: float) -> list[PlannerAction]:
        info = event.info
        wrong = self._roster.learn_info(info)
        for name, model in info.streams.items():
            known = self._streams.get(name)
            if known is None or (known.served.device, known.served.model) != (info.node, model):
                self._streams[name] = _Stream(Served(info.node, model))
                self._adopt(name)
        return [Log(logging.WARNING, wrong)] if wrong else []

    def _profile_arrived(self, event: ProfileArrived, now: float) -> list[PlannerAction]:
        self._roster.compute.learn_profile(event.node, event.profile)
        return []

    def _link_arrived(self, event: LinkArrived, now: float) -> list[PlannerAction]:
        self._roster.links[event.report.node] = event.report
        return []

    def _telemetry_arrived(self, event: TelemetryArrived, now: float) -> list[PlannerAction]:
        plans = [stream.plan for stream in self._streams.values() if stream.plan is not None]
        self._roster.compute.learn_telemetry(event.node, event.segments, plans)
        return []

    def _manifest_arrived(self, event: ManifestArrived, now: float) -> list[PlannerAction]:
        self._roster.graphs[event.graph.digest] = event.graph
        return []

    def _plan_seen(self, event: PlanSeen, now: float) -> list[PlannerAction]:
        self._seen_plans.setdefault(event.plan.stream, event.plan)
        self._adopt(event.plan.stream)
        return []

    def _adopt(self, name: StreamId) -> None:
        """Go on with the plan of an earlier planner, and with what a person had placed by hand."""
        stream, plan = self._streams.get(name), self._seen_plans.get(name)
        if stream is not None and stream.plan is None and plan is not None and plan.device == stream.served.device:
            stream.plan, stream.adopted = plan, True
            stream.forced = plan.placement if plan.planner == FORCED else None

    def _applied_arrived(self, event: PeerAppliedArrived, now: float) -> list[PlannerAction]:
        self._roster.peers.applied[event.applied.node] = event.applied
        return []

    def _refusals(self, name: StreamId, stream: _Stream) -> list[PlannerAction]:
        """A node that refuses the present plan is left out of this stream for as long as its process lives.

        Not so the device, without which there is no stream: there, the plan that it has goes on.
        """
        actions: list[PlannerAction] = []
        for node, applied in self._roster.peers.applied.items():
            held = applied.streams.get(name)
            refused = held.refused.get(stream.plan.epoch) if held and stream.plan else None
            if refused is not None and stream.plan and stream.served.banned.get(node) != applied.session:
                stream.served.banned[node] = applied.session
                actions.append(Log(logging.WARNING, f"{node} refuses epoch {stream.plan.epoch}: {refused}"))
        return actions

    def _place_requested(self, event: PlaceRequested, now: float, wall_ts: float) -> list[PlannerAction]:
        try:
            stream = self._streams.get(event.stream)
            if stream is None:
                raise PlanError(f"unknown stream {event.stream!r}; known: {', '.join(sorted(self._streams)) or 'none'}")
            graph = self._roster.graph_of(stream.served)
            forced = None if event.auto else split_at(graph, event.edge_from, event.cloud_from)
            if not self._choices(stream, graph, forced):
                raise PlanError(f"stream {event.stream!r} cannot be placed so: {self._why_not(stream, forced)}")
        except TrisectError as error:
            return [Reply(event.ticket, {"ok": False, "error": str(error)})]
        stream.forced, stream.hurry = forced, True
        actions = self._decide(event.stream, stream, now, wall_ts)
        stream.hurry = False
        plan = stream.plan
        assert plan is not None
        answer = {"ok": True, "epoch": plan.epoch, "device": plan.device, "plan": plan.to_json(graph)}
        return [*actions, Reply(event.ticket, answer)]

    def _choices(self, stream: _Stream, graph: ModelGraph, forced: Placement | None) -> list[Choice]:
        """The best choice for each combination of nodes; solved again only when something that it rests on changed."""
        tiers = {tier: self._roster.usable(stream.served, tier) for tier in Tier}
        nodes = [node for usable in tiers.values() for node in usable]
        rests_on = graph.digest, *(self._roster.rests_on(stream.served, node) for node in nodes)
        solved = stream.solved.get(forced)
        if solved is None or solved[0] != rests_on:
            solved = rests_on, list(self._solve(stream, graph, forced, tiers))
            # the planner's own, and the last one by hand
            stream.solved = {asked: known for asked, known in stream.solved.items() if asked is None}
            stream.solved[forced] = solved
        return solved[1]

    def _solve(
        self,
        stream: _Stream,
        graph: ModelGraph,
        forced: Placement | None,
        tiers: Mapping[Tier, Sequence[NodeId]],
    ) -> Iterator[Choice]:
        # with and without each tier beyond the device: a node that does not serve is on nobody's way
        for nodes in product(tiers[Tier.DEVICE], *([*tiers[tier], None] for tier in (Tier.EDGE, Tier.CLOUD))):
            present = {tier: node for tier, node in zip(Tier, nodes, strict=True) if node is not None}
            if forced is not None and not set(forced) <= present.keys():
                continue
            costs = self._roster.costs(stream.served, present)
            placement = forced or exact.partition(graph, costs)
            used = {tier: present[tier] for tier in sorted({*placement, Tier.DEVICE})}
            yield Choice(placement, used, predict(graph, placement, costs), costs)

    def _decide(self, name: StreamId, stream: _Stream, now: float, wall_ts: float) -> list[PlannerAction]:
        actions = self._refusals(name, stream)
        try:
            graph = self._roster.graph_of(stream.served)
            choices = self._choices(stream, graph, stream.forced)
            lacking = ""
            if not choices and stream.forced is not None:
                lacking = f"not as placed by hand, since {self._why_not(stream, stream.forced)}; "
                choices = self._choices(stream, graph, None)
            if not choices:
                raise PlanError(self._why_not(stream, None))
        except TrisectError as error:
            return actions + self._say(stream, f"no plan for stream {name} yet: {error}")
        best = min(choices, key=_price)
        why = self._why_publish(stream, graph, best, now)
        wrong = [self._roster.mismatch(stream.served), self._roster.unfit_profiles(stream.served)]
        if any(wrong):
            actions += self._say(stream, "; ".join(filter(None, wrong)))
        if why:
            return actions + self._publish(name, stream, graph, best, choices, lacking + why, now, wall_ts)
        if self._is_measured_now(stream):
            return actions + self._price_anew(name, stream, graph, choices)
        if stream.adopted and stream.plan is not None:
            stream.adopted = False
            actions.append(PublishPlan(stream.plan, graph))
        return actions

    def _why_publish(self, stream: _Stream, graph: ModelGraph, best: Choice, now: float) -> str:
        """The reason to publish `best`, empty when the present plan stays."""
        plan = stream.plan
        if plan is None or plan.device != stream.served.device or not _fits(plan, graph):
            return "first plan"
        if (seen := self._roster.highest_seen(plan.stream)) > plan.epoch:
            return f"a node has seen epoch {seen} and ignores {plan.epoch}"
        if plan.placement == best.placement and dict(plan.nodes) == dict(best.nodes):
            renamed = stream.hurry and plan.planner != _planner(stream, best)
            return _by_whom(stream, best) if renamed else ""
        if any(self._may_only_blink(node, now) for node in plan.nodes.values()):
            return ""
        gone = [why for node in plan.nodes.values() if (why := self._roster.why_unusable(stream.served, node))]
        if gone:
            return "; ".join(gone)
        if stream.hurry or best.placement == stream.forced:
            return _by_whom(stream, best)
        present_s = predict(graph, plan.placement, self._roster.costs(stream.served, plan.nodes)).seconds
        gain = 1 - best.predicted.seconds / present_s if present_s else 0.0
        if gain < self._settings.margin or now - stream.published_at < self._settings.min_seconds_between_plans:
            return ""
        return f"{gain:.0%} less than the present plan's {present_s * 1e3:.1f} ms"

    def _may_only_blink(self, node: NodeId, now: float) -> bool:
        state = self._roster.peers.states.get(node)
        just_lost = now - self._lost_at.get(node, -math.inf) < LOST_GRACE_S
        return state is not None and state.state is LifeState.LOST and just_lost

    def _publish(
        self,
        name: StreamId,
        stream: _Stream,
        graph: ModelGraph,
        best: Choice,
        choices: Sequence[Choice],
        why: str,
        now: float,
        wall_ts: float,
    ) -> list[PlannerAction]:
        unsure = self._estimated(stream)
        doubt = f"; estimated, not measured, for {', '.join(unsure)}" if unsure else ""
        plan = Plan(
            stream=name,
            epoch=self._next_epoch(name, stream),
            model=stream.served.model,
            digest=graph.digest,
            nodes=best.nodes,
            placement=best.placement,
            predicted=best.predicted,
            planner=_planner(stream, best),
            reason=f"{why}; {_compare(graph, best.predicted, choices)}{doubt}",
            created_ts=wall_ts,
        )
        stream.plan, stream.published_at, stream.unsure = plan, now, frozenset(unsure)
        text = f"stream {name}: epoch {plan.epoch} ({plan.planner}): {plan.reason}"
        return [PublishPlan(plan, graph), Log(logging.INFO, text)]

    def _estimated(self, stream: _Stream) -> list[NodeId]:
        """The usable nodes that are priced by an estimate."""
        usable = [node for tier in Tier for node in self._roster.usable(stream.served, tier)]
        return [node for node in usable if self._roster.is_estimated(stream.served, node)]

    def _is_measured_now(self, stream: _Stream) -> bool:
        """Whether the present plan was estimated for nodes that have all measured themselves meanwhile."""
        plan, served, roster = stream.plan, stream.served, self._roster
        return (
            bool(stream.unsure)
            and plan is not None
            and not any(roster.is_estimated(served, node) for node in stream.unsure)
            and not any(roster.why_unusable(served, node) for node in plan.nodes.values())
        )

    def _price_anew(
        self, name: StreamId, stream: _Stream, graph: ModelGraph, choices: Sequence[Choice]
    ) -> list[PlannerAction]:
        """Say the present plan's price by measured profiles. To nodes the same epoch of the same moment is no news."""
        plan = stream.plan
        assert plan is not None
        predicted = predict(graph, plan.placement, self._roster.costs(stream.served, plan.nodes))
        was = f"estimated at {plan.predicted.seconds * 1e3:.1f} ms a frame at first, measured since"
        reason = f"{was}; {_compare(graph, predicted, choices)}"
        stream.plan, stream.unsure = replace(plan, predicted=predicted, reason=reason), frozenset()
        return [PublishPlan(stream.plan, graph), Log(logging.INFO, f"stream {name}: epoch {plan.epoch}: {reason}")]

    def _next_epoch(self, name: StreamId, stream: _Stream) -> int:
        """Above everything that any node has seen, so that a planner which forgot is not mistaken for an old one."""
        plans = (stream.plan, self._seen_plans.get(name))
        return 1 + max([self._roster.highest_seen(name), *(plan.epoch for plan in plans if plan is not None)])

    def _why_not(self, stream: _Stream, forced: Placement | None) -> str:
        return self._roster.why_no_choice(stream.served, set(forced or ()) | {Tier.DEVICE})

    @staticmethod
    def _say(stream: _Stream, text: str) -> list[PlannerAction]:
        """Log what holds for a while once, not at each tick."""
        if stream.said == text:
            return []
        stream.said = text
        return [Log(logging.WARNING, text)]


def _planner(stream: _Stream, best: Choice) -> str:
    return FORCED if best.placement == stream.forced else EXACT


def _by_whom(stream: _Stream, best: Choice) -> str:
    return "placed by hand" if best.placement == stream.forced else "handed back to the planner"


def _fits(plan: Plan, graph: ModelGraph) -> bool:
    try:
        check(graph, plan.placement)
    except PlanError:
        return False
    return plan.digest == graph.digest


def _price(choice: Choice) -> tuple[float, int]:
    return choice.predicted.seconds, len(choice.nodes)


def _compare(graph: ModelGraph, predicted: Prediction, choices: Sequence[Choice]) -> str:
    """A plan's price beside that of each tier alone."""
    parts = [f"predicted {predicted.seconds * 1e3:.1f} ms a frame"]
    for tier, only in _ALONE.items():
        staffed = [choice.costs for choice in choices if tier in choice.costs.seconds]
        if staffed:
            alone = min(predict(graph, only(graph, costs), costs).seconds for costs in staffed)
            parts.append(f"{tier.label} alone {alone * 1e3:.1f} ms")
    return ", ".join(parts)
