"""What is learned of nodes and links from their telemetry: every report is an equation of one filter. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nodes.planner.costs.block_seconds import Basis, StageSeconds, TileShare
from nodes.planner.costs.constants import (
    CLOCK_S,
    DOUBT,
    FASTEST,
    LEAST_SECONDS,
    NOISE,
    PROBE_NOISE,
    QUIET_S,
    STEP,
    WIDENING,
)
from nodes.planner.costs.cost_filter import Part, Term
from nodes.planner.costs.drift import drift
from nodes.planner.costs.equations import PRIORS, Equations
from nodes.planner.costs.snapshot import NodeSnapshot
from nodes.planner.costs.transfers import Leg, legs_of
from nodes.protocol.messages import (
    LegSeconds,
    LinkMeasured,
    LinkReport,
    Report,
    SegmentSeconds,
    TileSeconds,
)
from nodes.protocol.reports import WHOLE
from pipeline.cost import INTERVAL, INTERVAL_DEVIATIONS, Prediction
from pipeline.placement import Tier
from pipeline.plan import NodeId, Plan, StreamId
from pipeline.profiling.profile import Profile

T4_BY_MAD = 0.7407 / 0.6745
"""The median absolute deviation of Student's t with four degrees of freedom, by that of a normal distribution."""
MEASURED_BYTES = 1e6
"""That a rate stands for: a byte by itself takes less than LEAST_SECONDS."""
NO_RATES: Mapping[str, None] = {"up_bytes_per_s": None, "down_bytes_per_s": None}


@dataclass(slots=True)
class NodeCosts(Equations):
    """The equations' parts as they were learned, and how far single frames are from them."""

    _widths: dict[tuple[StreamId, bool], float] = field(default_factory=dict)
    """Of plans of which no frame was measured before, and of those that run."""
    _epochs: dict[StreamId, int] = field(default_factory=dict)
    """Of which plan frames were measured last."""
    _measured_at: dict[tuple[NodeId, str], float] = field(default_factory=dict)
    _measured: dict[tuple[str, NodeId], float] = field(default_factory=dict)
    _probed: set[NodeId] = field(default_factory=set)
    _settled: dict[tuple[NodeId, str], NodeSnapshot] = field(default_factory=dict)
    _settled_at: dict[tuple[NodeId, str], tuple[Any, ...]] = field(default_factory=dict)
    """Of what was learned the state in which each was looked at last."""

    # what was learned

    def factor(self, node: NodeId, model: str, basis: Basis) -> float:
        """The factor by which telemetry corrects the node's foreseen seconds of the model."""
        return self.filter.factor(*self.factors(node, model, basis))

    def input_factor(self, node: NodeId) -> float:
        """The factor by which telemetry corrects the node's foreseen seconds of the input's own blocks."""
        return self.filter.factor(*self.input_factors(node))

    def overhead_s(self, node: NodeId) -> float:
        """Seconds that a frame takes the node to receive, to be called for, and to send."""
        return self.filter.seconds([self.overhead(node, name) for name in ("receive", "call", "send")])

    def frame_overhead_s(self, node: NodeId, model: str) -> float:
        """Seconds that a device takes to read a frame and to answer it, and that the frame waits between threads."""
        return self.filter.seconds([self.overhead(node, name, model) for name in ("frame", "wait")])

    def gather_s(self, node: NodeId) -> float:
        """Seconds in which the node as a coordinator cuts a frame's tiles, hands them out and puts them together."""
        return self.filter.seconds([self.overhead(node, "gather")])

    def link(self, node: NodeId) -> LinkReport | None:
        """The node's link as it is now, None before it has measured it."""
        first = self.first.get(node)
        if first is None or not first.makes_sense:
            return first
        up_s, down_s, round_trip_s = (self.filter.factor(Part(node, name)) for name in ("up", "down", "round_trip"))
        up, down = (min(1 / seconds, FASTEST) for seconds in (up_s, down_s))
        return replace(first, up_bytes_per_s=up, down_bytes_per_s=down, round_trip_s=round_trip_s)

    def settled(self, node: NodeId, model: str, basis: Basis) -> NodeSnapshot | None:
        """The node as plans see it: what was learned, where that has moved by STEP since it was taken up last.

        None while its link makes no sense.
        """
        state = self.filter.revision(node), self.first.get(node), basis
        if self._settled_at.get((node, model)) == state:
            return self._settled[node, model]
        link = self.link(node)
        if link is None or not link.makes_sense:
            return None
        now = NodeSnapshot(
            basis,
            self.factor(node, model, basis),
            link,
            input_factor=self.input_factor(node),
            overhead_s=self.overhead_s(node),
            frame_overhead_s=self.frame_overhead_s(node, model),
            gather_s=self.gather_s(node),
        )
        before = self._settled.get((node, model))
        if before is None or any(drift(node, before, now, STEP)):
            before = self._settled[node, model] = now
        self._settled_at[node, model] = state
        return before

    def deviation(self, plan: Plan) -> float | None:
        """Standard deviation of the logarithm of a frame's seconds under a plan; None while it cannot be priced."""
        terms = self.frame(plan)
        return None if terms is None else self._deviation(plan, terms)

    def _deviation(self, plan: Plan, terms: Sequence[Term]) -> float:
        own = self.filter.variance(terms) / self.filter.seconds(terms) ** 2
        single = max(NOISE, self.filter.deviation(("whole", plan.stream)) or 0.0)
        return math.exp(self._width(plan)) * math.sqrt(own + single**2)

    def _is_measured(self, plan: Plan) -> bool:
        return self._epochs.get(plan.stream) == plan.epoch

    def _width(self, plan: Plan) -> float:
        is_measured = self._is_measured(plan)
        return self._widths.get((plan.stream, is_measured), 0.0 if is_measured else WIDENING)

    def is_stale(self, node: NodeId, model: str, now: float) -> bool:
        """True when the node has computed the model for a plan, and not of late: it may be as it was, or not."""
        return now - self._measured_at.get((node, model), math.inf) > QUIET_S

    # telemetry

    def learn_profile(self, node: NodeId, profile: Profile) -> None:
        """Take a node's profile of a model, and forget what was learned against what was foreseen without it."""
        if self.blocks.learn_profile(node, profile):
            self.filter.forget(Part(node, f"model:{profile.model}"))

    def learn(self, node: NodeId, report: Report, plans: Sequence[Plan], now: float) -> None:
        """Take a node's report; `plans` are the present ones that it has a part in."""
        self.filter.advance(node, now)
        # what the broker's line takes is no part of a leg that goes directly: there legs alone show it
        self.learn_measured(node, replace(report.link, **NO_RATES) if report.direct else report.link, now)
        if report.probe_seconds is not None:
            self.learn_probe(node, report.probe_seconds, now, is_confirmed=report.probe_agrees)
        for plan in plans:
            if plan.device == node:
                self._learn_width(plan, report.legs)
        self.learn_segments(node, report.segments, plans, now)
        coordinated = [plan for plan in plans if plan.tiles is not None and plan.nodes.get(Tier.EDGE) == node]
        self.learn_tiles(node, report.tiles, coordinated, now)
        self.learn_gathers(node, report, coordinated, now)
        self.learn_legs(report.legs, [p for p in plans if p.device == node], now)
        self.learn_frames(report.legs, [p for p in plans if p.device == node], now)

    def learn_link(self, report: LinkReport, now: float) -> None:
        """Take a node's first measurement; the same one again, as at each connect, changes nothing."""
        if self.first.get(report.node) == report:
            return
        self.first[report.node] = report
        if report.makes_sense:
            rates = (min(rate, FASTEST) for rate in (report.up_bytes_per_s, report.down_bytes_per_s))
            taken = *(1 / rate for rate in rates), max(report.round_trip_s, LEAST_SECONDS)
            for name, seconds in zip(("up", "down", "round_trip"), taken, strict=True):
                prior = PRIORS[name]._replace(mean=math.log(seconds))
                self.filter.expect(Part(report.node, name), prior, now)

    def learn_measured(self, node: NodeId, measured: LinkMeasured, now: float) -> None:
        """Take a running node's rates and round trip, if it has measured its link before."""
        first = self.first.get(node)
        if first is None or not first.makes_sense:
            return
        for name, rate in (("up", measured.up_bytes_per_s), ("down", measured.down_bytes_per_s)):
            if rate and self._is_news((name, node), rate):
                # a change is said once several samples agree on it
                terms, seconds = [Term(MEASURED_BYTES, (Part(node, name),))], MEASURED_BYTES / min(rate, FASTEST)
                self.filter.observe((name, node), terms, seconds, NOISE, now, is_confirmed=True)
        if measured.round_trip_s and self._is_news(("round_trip", node), measured.round_trip_s):
            noise = _noise(measured.round_trip_s, besides_s=CLOCK_S)
            terms = [Term(1.0, (Part(node, "round_trip"),))]
            self.filter.observe(("round_trip", node), terms, measured.round_trip_s, noise, now)

    def _is_news(self, name: tuple[str, NodeId], measured: float) -> bool:
        """A node reports its link until it has measured it again: the same number again is no measurement."""
        is_same = self._measured.get(name) == measured
        self._measured[name] = measured
        return not is_same

    def learn_probe(self, node: NodeId, seconds: float, now: float, *, is_confirmed: bool = False) -> None:
        """Take what a small fixed computation took on a node that computes nothing else, confirmed by another one."""
        factor, probe = Part(node, "factor"), Part(node, "probe")
        if node not in self._probed:
            self._probed.add(node)
            prior = PRIORS["probe"]._replace(mean=math.log(seconds / self.filter.factor(factor)))
            self.filter.expect(probe, prior, now)
        terms = [Term(1.0, (probe, factor))]
        self.filter.observe(("probe", node), terms, seconds, PROBE_NOISE, now, is_confirmed=is_confirmed)

    def learn_segments(
        self, node: NodeId, segments: Iterable[SegmentSeconds], plans: Iterable[Plan], now: float
    ) -> None:
        """Take a node's measured seconds under the present plans."""
        measured = {(segment.stream, segment.epoch): segment for segment in segments}
        for plan in plans:
            took, tier = measured.get((plan.stream, plan.epoch)), plan.tier_of(node)
            basis = self.blocks.basis(node, plan.model, plan.digest)
            if took is None or tier is None or basis is None:
                continue
            self._measured_at[node, plan.model] = now
            foreseen, seconds = self.blocks.stage_seconds(basis, plan, tier), took.compute_seconds
            if foreseen.input and 0 < took.input_seconds < seconds:
                self._learn_input(node, foreseen.input, took, now)
                foreseen, seconds = foreseen._replace(input=0.0), seconds - took.input_seconds
            if foreseen.network or foreseen.input:
                terms = self.computing(node, plan.model, basis, foreseen)
                noise = _noise(seconds, took.frames, took.deviation)
                self.filter.observe(("segment", node, plan.model), terms, seconds, noise, now)

    def _learn_input(self, node: NodeId, foreseen_s: float, took: SegmentSeconds, now: float) -> None:
        """Take what decoding took by itself: no network's kernels are charged with it, here or elsewhere."""
        noise = _noise(took.input_seconds, took.frames, took.deviation)
        terms = [Term(foreseen_s, self.input_factors(node))]
        self.filter.observe(("input", node, took.stream), terms, took.input_seconds, noise, now)

    def learn_tiles(self, coordinator: NodeId, tiles: Iterable[TileSeconds], plans: Iterable[Plan], now: float) -> None:
        """Take what tiles took on their workers and on the way there and back, as their coordinator measured it.

        A worker with several tiles is judged by their sum, and only once all of them have been seen.
        """
        measured = {(tile.stream, tile.epoch, tile.tile, tile.worker): tile for tile in tiles}
        for plan in plans:
            found = [(tile, measured.get((plan.stream, plan.epoch, *tile[:2]))) for tile in self.blocks.tiles(plan)]
            for node in dict.fromkeys(tile.worker for tile, _ in found):
                self._learn_tiles_of(node, plan, [one for one in found if one[0].worker == node], now)
            if coordinator in self.first:
                self._learn_transfers(coordinator, found, now)

    def _learn_tiles_of(
        self, node: NodeId, plan: Plan, found: Sequence[tuple[TileShare, TileSeconds | None]], now: float
    ) -> None:
        basis, took = self.blocks.basis(node, plan.model, plan.digest), [seen for _, seen in found if seen is not None]
        if basis is None or not took or len(took) < len(found):
            return
        seconds, blocks = sum(one.compute_seconds for one in took), self.blocks.foreseen(basis, plan.digest)
        terms = self.computing(node, plan.model, basis, StageSeconds(sum(tile.seconds_of(blocks) for tile, _ in found)))
        noise = _noise(seconds)
        self.filter.observe(("segment", node, plan.model), terms, seconds, noise, now)

    def _learn_transfers(
        self, coordinator: NodeId, found: Sequence[tuple[TileShare, TileSeconds | None]], now: float
    ) -> None:
        sent = 0
        for tile, seen in found:
            if tile.worker == coordinator:
                continue
            if seen is not None and seen.alone_seconds is not None and tile.worker in self.first:
                back = self.way(Leg("", tile.worker, coordinator, tile.result_nbytes, tile.result_coding_s))
                terms = [*self.transfer(coordinator, tile, sent), *back]
                noise = _noise(seen.alone_seconds, besides_s=CLOCK_S)
                self.filter.observe(("tile", coordinator, tile.worker), terms, seen.alone_seconds, noise, now)
            sent += tile.nbytes

    def learn_gathers(self, coordinator: NodeId, report: Report, plans: Iterable[Plan], now: float) -> None:
        """Take what a coordinator took to have its plans' tiles computed and to put them together.

        What the tiles themselves took is in the same report: so the rest is not charged to their workers.
        """
        measured = {(gather.stream, gather.epoch): gather for gather in report.gathers}
        for plan in plans:
            name = plan.stream, plan.epoch
            took = measured.get(name)
            computed_s = {t.tile: t.compute_seconds for t in report.tiles if (t.stream, t.epoch) == name}
            terms = self.gather(plan, computed_s) if took is not None and coordinator in self.first else None
            if took is not None and terms is not None:
                noise = _noise(took.seconds, took.frames, took.deviation)
                self.filter.observe(("gather", coordinator, plan.model), terms, took.seconds, noise, now)

    def learn_legs(self, legs: Iterable[LegSeconds], plans: Iterable[Plan], now: float) -> None:
        """Take what frames of these plans took between their nodes, as their device measured it."""
        measured = {(leg.stream, leg.epoch): leg for leg in legs}
        for plan in plans:
            took = measured.get((plan.stream, plan.epoch))
            for leg in legs_of(plan) if took is not None else ():
                if took is not None and leg.name in took.seconds and {leg.sender, leg.receiver} <= self.first.keys():
                    seconds, terms = took.seconds[leg.name], self.way(leg)
                    most_s = max(seconds, self.filter.seconds(terms))
                    noise = _noise(most_s, took.frames, took.deviations.get(leg.name, 0.0), CLOCK_S)
                    self.filter.observe(("leg", leg.sender, leg.receiver), terms, seconds, noise, now)

    def _learn_width(self, plan: Plan, legs: Iterable[LegSeconds]) -> None:
        """Widen the interval of the stream's frames by those that are outside it, so that INTERVAL of them are inside.

        Adaptive conformal inference (Gibbs and Candes 2021): it holds in the long run however frames are spread. What
        was foreseen of a plan before it ran is further off, and has a width of its own.
        """
        took = next((leg for leg in legs if (leg.stream, leg.epoch) == (plan.stream, plan.epoch)), None)
        terms = self.frame(plan) if took is not None and WHOLE in took.seconds else None
        if took is None or terms is None:
            return
        deviation = self._deviation(plan, terms)
        seconds = max(took.seconds[WHOLE], CLOCK_S)
        off, half = math.log(seconds / self.filter.seconds(terms)), INTERVAL_DEVIATIONS * deviation
        single = max(took.deviations.get(WHOLE, 0.0), CLOCK_S) / seconds
        inside = _below((half - off) / single) - _below((-half - off) / single)
        self._widths[plan.stream, self._is_measured(plan)] = self._width(plan) + WIDENING * (INTERVAL - inside)
        self._epochs[plan.stream] = plan.epoch

    def learn_frames(self, legs: Iterable[LegSeconds], plans: Iterable[Plan], now: float) -> None:
        """Take what whole frames took: beyond their parts, that is waiting."""
        measured = {(leg.stream, leg.epoch): leg for leg in legs if WHOLE in leg.seconds}
        for plan in plans:
            took = measured.get((plan.stream, plan.epoch))
            terms = self.frame(plan) if took is not None else None
            if took is not None and terms is not None:
                noise = _noise(took.seconds[WHOLE], took.frames, took.deviations.get(WHOLE, 0.0))
                self.filter.observe(("whole", plan.stream), terms, took.seconds[WHOLE], noise, now)

    def learn_frame_overhead(self, node: NodeId, model: str, seconds: float, now: float) -> None:
        """Take what a device took to read a frame and to answer it."""
        noise = _noise(max(seconds, CLOCK_S), besides_s=CLOCK_S)
        self.filter.observe(("frame", node, model), [self.overhead(node, "frame", model)], seconds, noise, now)


def _below(deviations: float) -> float:
    """Share of single frames below so many of their deviations from the middle: as Student's t of four degrees of
    freedom, since some frames are far off, of which the median absolute deviation tells nothing.
    """
    scaled = T4_BY_MAD * deviations
    slope = scaled / math.sqrt(1 + scaled**2 / 4)
    return 0.5 + 0.375 * slope * (1 - slope**2 / 12)


def _noise(seconds: float, frames: int = 1, deviation: float = 0.0, besides_s: float = 0.0) -> float:
    """Standard deviation of a median of this many frames, as a share of it; of what two clocks measured `besides_s`."""
    seconds = max(seconds, LEAST_SECONDS)
    return math.hypot(NOISE, deviation / seconds / math.sqrt(max(frames, 1)), besides_s / seconds)


def prior_deviation(predicted: Prediction, estimated: Collection[str]) -> float:
    """Standard deviation of the logarithm of a frame's seconds before anything was measured but profiles and links.

    `estimated` are the labels of tiers whose seconds are estimates.
    """
    names = {False: ("factor", "model", "all"), True: ("factor", "model", "all", "estimate", "estimates")}
    stages = (
        seconds**2 * sum(PRIORS[name].deviation ** 2 for name in names[label in estimated])
        for label, seconds in predicted.stages.items()
    )
    links = ((link.busy_seconds * DOUBT) ** 2 for link in predicted.links.values())
    variance = sum(stages) + sum(links)
    return math.sqrt(variance / max(predicted.seconds, CLOCK_S) ** 2 + NOISE**2)
