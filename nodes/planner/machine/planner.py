"""The planner's machine: from what nodes say of themselves to plans, one per stream, numbered by epoch.

It is off the data path: without it the last plan goes on. It publishes only when there is no plan, when the plan uses a
node that is gone or refuses, when a person asks, or when another plan is better by a margin (hysteresis).
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nodes.config.plan_request import WishesSection, as_written, constraints_of, read_wishes
from nodes.planner.machine.events import (
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
    WishesRequested,
)
from nodes.planner.machine.failure_detector import Silence
from nodes.planner.machine.manual_tiling import tiling_by_hand
from nodes.planner.machine.problem import HPA, Question, question
from nodes.planner.machine.registry import Roster, Served
from nodes.planner.machine.static_costs import Terms
from nodes.planner.machine.stream import FORCED, PlannedStream, Way, fits, way, way_of
from nodes.planner.machine.tile_teams import Teams, priced_with
from nodes.planner.machine.utilisation import Flow, Rates
from nodes.protocol.messages import LifeState
from nodes.tier.machine.actions import Log
from nodes.tier.machine.events import ConnectionLost, ConnectionRestored, PeerAppliedArrived, PeerStateArrived, Tick
from pipeline.errors import PlanError, TrisectError
from pipeline.graph import ModelGraph
from pipeline.partition.choice import Choice
from pipeline.partition.constraints import broken
from pipeline.placement import Placement, Tier, split_at
from pipeline.plan import NodeId, Plan, StreamId
from pipeline.tiles.tiling import Tiling

LOST_GRACE_S = 0.5
"""A broker that shuts down sends everybody's will: a moment later it is gone itself, and its nodes are not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerSettings:
    """A new plan must be better by `margin` (a share), `min_seconds_between_plans` after the last one.

    Nothing is decided before `settle_s` after each connect, so that retained messages are in. A living node that has
    not prepared its part of a plan `prepare_timeout_s` after it could is treated like one that refuses, and one from
    which nothing has come for `lost_after_s` like one that is lost, until it speaks again. `band` is the share by which
    a time or a rate may differ from what the present plan assumed without being reason to think again.
    """

    margin: float = 0.1
    min_seconds_between_plans: float = 5.0
    settle_s: float = 1.0
    prepare_timeout_s: float = 120.0
    lost_after_s: float = 4.0
    band: float = 0.2


class PlannerMachine:
    """`handle(event, now, wall_ts)` returns the actions to perform; `now` only advances, `wall_ts` stamps plans."""

    def __init__(
        self,
        settings: PlannerSettings,
        *,
        started_at: float,
        terms: Terms | None = None,
        wishes: Mapping[StreamId, WishesSection] | None = None,
    ) -> None:
        self._settings, self._terms, self._wishes = settings, terms or Terms(), wishes or {}
        self._decide_after = started_at + settings.settle_s
        self._lost_at: dict[NodeId, float] = {}
        self._roster = Roster()
        self._silence = Silence(settings.lost_after_s, started_at)
        self._rates = Rates()
        self._now = started_at
        self._seen_plans: dict[StreamId, Plan] = {}
        self._streams: dict[StreamId, PlannedStream] = {}
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

    def handle(
        self, event: PlannerEvent, now: float, wall_ts: float, *, more_wait: bool = False
    ) -> list[PlannerAction]:
        """Take one event; decide for every stream, unless more events wait to be known as well: then with the last."""
        self._now = now
        if isinstance(event, PlaceRequested):
            return self._place_requested(event, now, wall_ts)
        if isinstance(event, WishesRequested):
            return self._wishes_requested(event, now, wall_ts)
        actions = self._learn[type(event)](event, now) + self._fall_silent(now)
        if more_wait or now < self._decide_after:
            return actions
        for name, stream in self._streams.items():
            actions += self._decide(name, stream, now, wall_ts)
        return actions

    def _connection_lost(self, event: ConnectionLost, now: float) -> list[PlannerAction]:
        self._decide_after = math.inf
        self._silence.cut_off()
        return []

    def _fall_silent(self, now: float) -> list[PlannerAction]:
        peers, before = self._roster.peers, self._roster.silent
        self._roster.silent = frozenset(n for n in peers.states if peers.alive(n) and self._silence.of(n, now))
        after_s = self._settings.lost_after_s
        fallen = [Log(logging.WARNING, f"nothing from {n} for {after_s:g} s") for n in self._roster.silent - before]
        back = [Log(logging.INFO, f"{n} is heard again") for n in before - self._roster.silent if peers.alive(n)]
        return [*fallen, *back]

    def _connection_restored(self, event: ConnectionRestored, now: float) -> list[PlannerAction]:
        self._decide_after = now + self._settings.settle_s
        self._silence.listening(now)
        for stream in self._streams.values():
            stream.preparing.clear()
        return []

    def _state_arrived(self, event: PeerStateArrived, now: float) -> list[PlannerAction]:
        state = event.state
        self._silence.heard(state.node, now)
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
                configured = self._wishes.get(name) or WishesSection()
                self._streams[name] = PlannedStream(Served(info.node, model), configured)
                self._adopt(name)
        return [Log(logging.WARNING, wrong)] if wrong else []

    def _profile_arrived(self, event: ProfileArrived, now: float) -> list[PlannerAction]:
        self._roster.compute.learn_profile(event.node, event.profile)
        return []

    def _link_arrived(self, event: LinkArrived, now: float) -> list[PlannerAction]:
        self._roster.ways.learn_report(event.report)
        return []

    def _telemetry_arrived(self, event: TelemetryArrived, now: float) -> list[PlannerAction]:
        self._silence.heard(event.node, now)
        plans = [stream.plan for stream in self._streams.values() if stream.plan is not None]
        report = event.report
        self._roster.compute.learn_telemetry(event.node, report.segments, plans, report.probe_seconds)
        self._roster.learn_tiles(event.node, report.tiles, [p for p in plans if p.nodes.get(Tier.EDGE) == event.node])
        if not any(event.node in plan.workers for plan in plans):
            self._roster.handling.fade(event.node)
        self._roster.learn_ways(report.ways, [p for p in plans if p.device == event.node])
        if not any(event.node in plan.nodes.values() and len(plan.nodes) > 1 for plan in plans):
            self._roster.ends.rest(event.node, report.probe_seconds)
        self._roster.ways.learn_measured(event.node, report.link)
        own = {name: stream.served for name, stream in self._streams.items() if stream.served.device == event.node}
        for segment in report.segments:
            if segment.stream in own:
                self._rates.counted(segment.stream, segment.frames, now)
        for name in own.keys() & report.intakes.keys():
            self._roster.learn_intake(own[name], report.intakes[name])
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
            if plan.planner == FORCED:
                stream.forced, stream.forced_tiles = plan.placement, plan.tiles
            if plan.wishes is not None:
                with contextlib.suppress(TrisectError):  # of another version of trisect: the configuration's hold
                    stream.asked = read_wishes(plan.wishes)

    def _applied_arrived(self, event: PeerAppliedArrived, now: float) -> list[PlannerAction]:
        self._roster.peers.applied[event.applied.node] = event.applied
        for name, stream in self._streams.items():
            held = event.applied.streams.get(name)
            active = held is not None and stream.plan is not None and held.active == stream.plan.epoch
            if active and event.applied.node == stream.served.device:
                stream.proven = stream.plan
        return []

    def _refusals(self, name: StreamId, stream: PlannedStream) -> list[PlannerAction]:
        """A node that refuses the present plan is left out of this stream for as long as its process lives.

        Not so the device, without which there is no stream: what it refuses is not asked of it again, and the plan that
        it had is published anew.
        """
        actions: list[PlannerAction] = []
        for node, applied in self._roster.peers.applied.items():
            held = applied.streams.get(name)
            refused = held.refused.get(stream.plan.epoch) if held and stream.plan else None
            if refused is not None and stream.plan and self._refuses_tiles(stream, node, applied.session):
                text = (
                    f"{node} refuses epoch {stream.plan.epoch}: {refused}: it shares out no tiles until it starts anew"
                )
                actions += self._say(stream, text)
            elif refused is not None and stream.plan and stream.served.banned.get(node) != applied.session:
                stream.served.banned[node] = applied.session
                actions.append(Log(logging.WARNING, f"{node} refuses epoch {stream.plan.epoch}: {refused}"))
            if refused is not None and stream.plan and node == stream.served.device:
                stream.turned_down[way(stream.plan)] = applied.session
                if stream.plan.placement == stream.forced:
                    stream.forced = stream.forced_tiles = None
        return actions

    def _overdue(self, stream: PlannedStream, now: float) -> list[PlannerAction]:
        """A living node that never prepares would hold the plan up for ever."""
        plan, peers, waiting = stream.plan, self._roster.peers, {}
        for node in plan.members if plan else ():
            if plan and node != plan.device and peers.alive(node) and not peers.ready_for(node, plan):
                key = (node, peers.states[node].session, plan.epoch)
                waiting[key] = stream.preparing.get(key, now)
        stream.preparing = waiting
        actions: list[PlannerAction] = []
        for (node, session, epoch), since in waiting.items():
            late = now - since >= self._settings.prepare_timeout_s
            if late and stream.served.banned.get(node) != session:
                stream.served.banned[node] = session
                text = f"{node} has not prepared epoch {epoch} within {self._settings.prepare_timeout_s:.0f} s"
                actions.append(Log(logging.WARNING, f"{text}: it is left out until it starts anew"))
        return actions

    def _is_turned_down(self, stream: PlannedStream, way: Way) -> bool:
        device = self._roster.peers.states.get(stream.served.device)
        return device is not None and stream.turned_down.get(way) == device.session

    def _fallback(self, stream: PlannedStream, graph: ModelGraph) -> Choice | None:
        """The plan that the device had before the one it refuses, while its nodes are there."""
        plan, proven = stream.plan, stream.proven
        if plan is None or proven is None or not self._is_turned_down(stream, way(plan)):
            return None
        gone = any(self._roster.why_unusable(stream.served, node) for node in proven.nodes.values())
        if gone or not fits(proven, graph) or self._is_turned_down(stream, way(proven)):
            return None
        return self._present(stream, graph, proven)

    def _place_requested(self, event: PlaceRequested, now: float, wall_ts: float) -> list[PlannerAction]:
        try:
            stream = self._stream(event.stream)
            graph = self._roster.graph_of(stream.served)
            forced = None if event.auto else split_at(graph, event.edge_from, event.cloud_from)
            tiles = tiling_by_hand(self._roster, stream.served, graph, forced, event.tiles)
            if not self._choices(stream, graph, forced)[1]:
                raise PlanError(f"stream {event.stream!r} cannot be placed so: {self._why_not(stream, forced)}")
        except TrisectError as error:
            return [Reply(event.ticket, {"ok": False, "error": str(error)})]
        stream.forced, stream.forced_tiles = forced, tiles
        return self._hurry(event.stream, stream, graph, event.ticket, now, wall_ts)

    def _wishes_requested(self, event: WishesRequested, now: float, wall_ts: float) -> list[PlannerAction]:
        """Take them if there is a plan for them; else all stays as it is, and the answer says what conflicts."""
        stream = self._streams.get(event.stream)
        before = stream.asked if stream else None
        try:
            stream = self._stream(event.stream)
            stream.asked = event.wishes
            graph = self._roster.graph_of(stream.served)
            if not self._choices(stream, graph, stream.forced)[1]:
                raise PlanError(f"stream {event.stream!r} has no plan: {self._why_not(stream, stream.forced)}")
        except TrisectError as error:
            by_hand = stream is not None and stream.forced is not None
            if stream is not None:
                stream.asked = before
            hint = "; the stream is placed by hand: `trisect place --auto` hands it back" if by_hand else ""
            return [Reply(event.ticket, {"ok": False, "error": f"{error}{hint}"})]
        return self._hurry(event.stream, stream, graph, event.ticket, now, wall_ts)

    def _stream(self, name: StreamId) -> PlannedStream:
        stream = self._streams.get(name)
        if stream is None:
            raise PlanError(f"unknown stream {name!r}; known: {', '.join(sorted(self._streams)) or 'none'}")
        return stream

    def _hurry(
        self, name: StreamId, stream: PlannedStream, graph: ModelGraph, ticket: Any, now: float, wall_ts: float
    ) -> list[PlannerAction]:
        """Decide at once, whatever the margin, and answer with the plan."""
        stream.hurry = True
        actions = self._decide(name, stream, now, wall_ts)
        stream.hurry = False
        plan = stream.plan
        assert plan is not None
        answer = {"ok": True, "epoch": plan.epoch, "device": plan.device, "plan": plan.to_json(graph)}
        return [*actions, Reply(ticket, answer)]

    def _choices(
        self, stream: PlannedStream, graph: ModelGraph, forced: Placement | None
    ) -> tuple[Question, list[Choice]]:
        """The best choice for each combination of nodes; solved again only when something that it rests on changed."""
        tiers = {tier: self._roster.usable(stream.served, tier) for tier in Tier}
        flows = self._flows_beside(stream)
        workers = self._workers(stream)
        nodes = [*(node for usable in tiers.values() for node in usable), *workers]
        stream.assume({n: self._roster.condition(stream.served, n, flows) for n in nodes}, self._settings.band)
        tiles = self._forced_tiles(stream) if forced is not None and forced == stream.forced else None
        whole = frozenset(node for node in nodes if self._works_whole(stream, node))
        in_use = stream.plan.tiles if stream.plan is not None else None
        rests_on = (graph.digest, as_written(stream.wishes), tiles, whole, in_use, *stream.assumed.items())
        solved = stream.solved.get(forced)
        if solved is None or solved[0] != rests_on:
            known = stream.assumed
            teams = self._teams(stream)
            asked = question(self._roster, self._terms, stream.served, graph, stream.wishes, tiers, known, teams)
            same_asked = solved is not None and solved[0][:2] == rests_on[:2] and forced is None
            is_news = same_asked and stream.before.keys() == stream.assumed.keys()
            adjusted = self._adjusted(stream, graph, asked) if is_news else None
            solved = rests_on, asked, [adjusted] if adjusted else asked.choices(forced, tiles)
            # the planner's own, and the last one by hand
            stream.solved = {of: known for of, known in stream.solved.items() if of is None}
            stream.solved[forced] = solved
        return solved[1:]

    def _workers(self, stream: PlannedStream) -> list[NodeId]:
        """The nodes that can compute tiles of the stream, and may."""
        excluded = stream.wishes.constraints.exclude_nodes
        return [node for node in self._roster.usable_workers(stream.served) if node not in excluded]

    def _teams(self, stream: PlannedStream) -> Teams:
        workers = [node for node in self._workers(stream) if node in stream.assumed]
        heads = [node for node in stream.assumed if not self._works_whole(stream, node)]
        return Teams.of(self._roster, stream.served, stream.assumed, workers, heads, self._tiles_in_use(stream))

    def _tiles_in_use(self, stream: PlannedStream) -> tuple[NodeId, Tiling] | None:
        plan = stream.plan
        graph = self._roster.graphs.get(plan.digest) if plan is not None else None
        if plan is None or plan.tiles is None or graph is None or not fits(plan, graph):
            return None
        return plan.nodes[Tier.EDGE], plan.tiles

    def _flows_beside(self, stream: PlannedStream) -> list[Flow]:
        """The other streams whose devices are there."""
        return [
            self._roster.flow(other.served, other.plan, self._rates.of(name, self._now))
            for name, other in self._streams.items()
            if other is not stream and other.plan is not None and self._roster.peers.alive(other.served.device)
        ]

    def _adjusted(self, stream: PlannedStream, graph: ModelGraph, asked: Question) -> Choice | None:
        """D3's answer to news: the present plan, on the same nodes, adjusted where something has left its band."""
        plan = stream.plan
        if stream.wishes.planner != HPA or plan is None or plan.planner != HPA or not fits(plan, graph):
            return None
        wider = [c for c in asked.candidates if c.nodes.items() >= plan.nodes.items()]
        candidate = max(wider, key=lambda c: len(c.nodes), default=None)
        if candidate is None or not set(candidate.nodes.values()) <= stream.before.keys():
            return None
        nodes = {tier: NodeId(node) for tier, node in candidate.nodes.items()}
        before = self._terms.candidate(nodes, self._roster.costs(stream.served, nodes, stream.before))
        return asked.adjusted(plan, candidate, before.costs, self._settings.band)

    def _decide(self, name: StreamId, stream: PlannedStream, now: float, wall_ts: float) -> list[PlannerAction]:
        actions = self._refusals(name, stream) + self._overdue(stream, now)
        try:
            graph = self._roster.graph_of(stream.served)
            lacking, (asked, choices) = "", self._choices(stream, graph, stream.forced)
            if not choices and stream.forced is not None:
                lacking = f"not as placed by hand, since {self._why_not(stream, stream.forced)}; "
                asked, choices = self._choices(stream, graph, None)
            if not choices:
                raise PlanError(self._why_not(stream, None))
            choices = [choice for choice in choices if not self._is_turned_down(stream, way_of(choice))]
            if not (fallback := self._fallback(stream, graph)) and not choices:
                raise PlanError(f"{stream.served.device} has refused all there are")
        except TrisectError as error:
            return actions + self._say(stream, f"no plan for stream {name} yet: {error}")
        best = fallback or choices[0]
        why = self._why_publish(stream, graph, best, now)
        wrong = [self._roster.mismatch(stream.served), self._roster.unfit_profiles(stream.served)]
        if any(wrong):
            actions += self._say(stream, "; ".join(filter(None, wrong)))
        if why:
            return actions + self._publish(name, stream, asked, best, choices, lacking + why, now, wall_ts)
        if stream.plan is not None and self._is_measured_now(stream):
            was = f"estimated at {stream.plan.predicted.seconds * 1e3:.1f} ms a frame at first, measured since"
            stream.unsure = frozenset()
            return actions + self._price_anew(name, stream, asked, choices, was, now)
        is_time = now - max(stream.published_at, stream.priced_at) >= self._settings.min_seconds_between_plans
        if stream.news and is_time and not self._has_lost_a_node(stream):
            stays = f"the present plan stays, none is better by {self._settings.margin:.0%}"
            return actions + self._price_anew(name, stream, asked, choices, f"{'; '.join(stream.news)}: {stays}", now)
        if stream.adopted and stream.plan is not None:
            stream.adopted = False
            actions.append(PublishPlan(stream.plan, graph))
        return actions

    def _why_publish(self, stream: PlannedStream, graph: ModelGraph, best: Choice, now: float) -> str:
        """The reason to publish `best`, empty when the present plan stays."""
        plan = stream.plan
        if plan is None or plan.device != stream.served.device or not fits(plan, graph):
            return "first plan"
        if (seen := self._roster.highest_seen(plan.stream)) > plan.epoch:
            return f"a node has seen epoch {seen} and ignores {plan.epoch}"
        if self._is_turned_down(stream, way(plan)):
            return f"{plan.device} refuses epoch {plan.epoch}"
        if way(plan) == way_of(best):
            wanted = (stream.planner_of(best), stream.wishes.objective, stream.asked_as_written)
            changed = stream.hurry and (plan.planner, plan.objective, plan.wishes) != wanted
            return stream.by_whom(best) if changed else ""
        if any(self._may_only_blink(node, now) for node in plan.nodes.values()):
            return ""
        gone = [why for node in plan.nodes.values() if (why := self._roster.why_unusable(stream.served, node))]
        if plan.tiles is not None and self._works_whole(stream, plan.nodes[Tier.EDGE]):
            gone.append(f"{plan.nodes[Tier.EDGE]} refuses tiles")
        gone += [why for node in plan.workers if (why := self._roster.why_no_tiles(stream.served, node))]
        if gone:
            return "; ".join(gone)
        if stream.hurry or best.placement == stream.forced:
            return stream.by_whom(best)
        if now - stream.published_at < self._settings.min_seconds_between_plans:
            return ""
        if breaks := self._breaks(stream, graph, plan):
            return f"the present plan breaks what is asked: {breaks}"
        present = self._present(stream, graph, plan).value
        gain = 1 - best.value / present if present else 0.0
        if gain < self._settings.margin:
            return ""
        less = f"{gain:.0%} less than the present plan's {stream.wishes.parsed_objective().text(present)}"
        return "; ".join([*stream.news, less])

    def _present(self, stream: PlannedStream, graph: ModelGraph, plan: Plan) -> Choice:
        """The plan at today's prices; all its nodes are usable."""
        candidate = self._terms.candidate(plan.nodes, self._roster.costs(stream.served, plan.nodes, stream.assumed))
        if plan.tiles is not None:
            candidate = replace(candidate, team=self._teams(stream).behind(plan.nodes[Tier.EDGE]))
        return priced_with(graph, plan.placement, candidate, stream.wishes.parsed_objective(), plan.tiles)

    def _breaks(self, stream: PlannedStream, graph: ModelGraph, plan: Plan) -> str:
        """What of the wishes the plan does not respect, in words."""
        wishes = stream.wishes.constraints
        candidate = self._terms.candidate(plan.nodes, self._roster.costs(stream.served, plan.nodes, stream.assumed))
        asked = (*constraints_of(graph, wishes), *candidate.constraints)
        against = [constraint.describe(graph) for constraint in broken(graph, plan.placement, candidate.costs, asked)]
        against += [f"{n} gets no blocks" for t, n in plan.nodes.items() if t and n in wishes.exclude_nodes]
        return "; ".join(against)

    def _may_only_blink(self, node: NodeId, now: float) -> bool:
        state = self._roster.peers.states.get(node)
        just_lost = now - self._lost_at.get(node, -math.inf) < LOST_GRACE_S
        return state is not None and state.state is LifeState.LOST and just_lost

    def _publish(
        self,
        name: StreamId,
        stream: PlannedStream,
        asked: Question,
        best: Choice,
        choices: Sequence[Choice],
        why: str,
        now: float,
        wall_ts: float,
    ) -> list[PlannerAction]:
        unsure = self._estimated(stream)
        doubt = f"; estimated, not measured, for {', '.join(unsure)}" if unsure else ""
        compared, runner_up = asked.compared(best, choices)
        plan = Plan(
            stream=name,
            epoch=self._next_epoch(name, stream),
            model=stream.served.model,
            digest=asked.graph.digest,
            nodes={tier: NodeId(node) for tier, node in best.nodes.items()},
            placement=best.placement,
            predicted=best.predicted,
            planner=stream.planner_of(best),
            reason=f"{why}; {compared}{doubt}",
            created_ts=wall_ts,
            objective=stream.wishes.objective,
            runner_up=runner_up,
            wishes=stream.asked_as_written,
            tiles=best.tiling,
        )
        stream.plan, stream.published_at, stream.unsure, stream.news = plan, now, frozenset(unsure), ()
        text = f"stream {name}: epoch {plan.epoch} ({plan.planner}): {plan.reason}"
        return [PublishPlan(plan, asked.graph), Log(logging.INFO, text)]

    def _estimated(self, stream: PlannedStream) -> list[NodeId]:
        """The usable nodes that are priced by an estimate."""
        usable = [node for tier in Tier for node in self._roster.usable(stream.served, tier)]
        usable += self._workers(stream)
        return [node for node in usable if self._roster.is_estimated(stream.served, node)]

    def _is_measured_now(self, stream: PlannedStream) -> bool:
        """Whether the present plan was estimated for nodes that have all measured themselves meanwhile."""
        estimated = any(self._roster.is_estimated(stream.served, node) for node in stream.unsure)
        return bool(stream.unsure) and not estimated and not self._has_lost_a_node(stream)

    def _has_lost_a_node(self, stream: PlannedStream) -> bool:
        """Whether the present plan has a node that cannot be priced now, if only for a moment."""
        nodes = stream.plan.nodes.values() if stream.plan else ()
        return any(self._roster.why_unusable(stream.served, node) for node in nodes)

    def _price_anew(
        self, name: StreamId, stream: PlannedStream, asked: Question, choices: Sequence[Choice], why: str, now: float
    ) -> list[PlannerAction]:
        """Say the present plan's price of today, and why it stays. To nodes an epoch of the same moment is no news."""
        plan = stream.plan
        assert plan is not None
        present = self._present(stream, asked.graph, plan)
        compared, runner_up = asked.compared(present, choices)
        reason = f"{why}; {compared}"
        stream.plan = replace(plan, predicted=present.predicted, reason=reason, runner_up=runner_up)
        stream.news, stream.priced_at = (), now
        text = f"stream {name}: epoch {plan.epoch}: {reason}"
        return [PublishPlan(stream.plan, asked.graph, stays=True), Log(logging.INFO, text)]

    def _next_epoch(self, name: StreamId, stream: PlannedStream) -> int:
        """Above everything that any node has seen, so that a planner which forgot is not mistaken for an old one."""
        plans = (stream.plan, self._seen_plans.get(name))
        return 1 + max([self._roster.highest_seen(name), *(plan.epoch for plan in plans if plan is not None)])

    def _why_not(self, stream: PlannedStream, forced: Placement | None) -> str:
        return self._roster.why_no_choice(stream.served, set(forced or ()) | {Tier.DEVICE})

    @staticmethod
    def _refuses_tiles(stream: PlannedStream, node: NodeId, session: str) -> bool:
        """Whether a head has just refused a plan with tiles: it may run the same blocks in one piece."""
        plan = stream.plan
        is_head = plan is not None and plan.tiles is not None and plan.nodes[Tier.EDGE] == node
        if is_head:
            stream.whole_only[node] = session
        return is_head

    def _works_whole(self, stream: PlannedStream, node: NodeId) -> bool:
        """Whether the node's present process has refused to be the head of tiles."""
        state = self._roster.peers.states.get(node)
        return state is not None and stream.whole_only.get(node) == state.session

    def _forced_tiles(self, stream: PlannedStream) -> Tiling | None:
        """Those placed by hand, while none of their workers refuses; for one that is lost the head stands in."""
        tiles = stream.forced_tiles
        refusing = any(self._roster.why_no_tiles(stream.served, node) for node in tiles.workers) if tiles else False
        head = stream.plan.nodes.get(Tier.EDGE) if stream.plan else None
        refusing |= head is not None and self._works_whole(stream, head)
        return None if refusing else tiles

    @staticmethod
    def _say(stream: PlannedStream, text: str) -> list[PlannerAction]:
        """Log what holds for a while once, not at each tick."""
        if stream.said == text:
            return []
        stream.said = text
        return [Log(logging.WARNING, text)]
