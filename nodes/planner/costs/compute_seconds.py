"""Seconds of each block on each node: measured by the node, else estimated, corrected by telemetry. Pure."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from nodes.planner.costs.constants import Constants
from nodes.planner.costs.corrections import LEAST_REST_SECONDS, LEAST_SECONDS, Corrections
from nodes.protocol.messages import NodeInfo, SegmentSeconds, TileSeconds
from nodes.protocol.reports import tells
from pipeline.errors import ModelError, TileError
from pipeline.estimator import Speed, estimate
from pipeline.frames.input_blocks import DECODE, has_input
from pipeline.graph import ModelGraph
from pipeline.placement import Tier
from pipeline.plan import NodeId, Plan, StreamId
from pipeline.profiling.profile import Profile
from pipeline.tiles.tiled_stack_cost import tile_seconds

CALL_S = 5e-3
"""Of a segment as long as that, half of what it takes beyond what was foreseen is put down to its being called at all:
for a turn on a short processor, for cold caches. A shorter one says nothing of how fast the node computes. As much of a
call may be coldness, which nodes that were not called share.
"""
MOST_PROFILES = 128
"""Of one node."""
GAIN = 0.5
"""The part of that which one report adds."""
MOST_BIAS = 3.0
"""What is off by more says something about the node, and nothing about the others."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A node's speed, and by how much estimates of the model were off on nodes that have measured it (a factor).

    An estimator errs about a model much the same on every node. Were it not for `bias`, the first node to be measured
    would look better or worse than those that are still estimated for no other reason, and blocks would go to and fro.
    """

    speed: Speed
    bias: float


Basis = Profile | Estimate
"""What a node's seconds follow from, before telemetry corrects them."""


@dataclass(slots=True)
class ComputeSeconds:
    """Reads `infos` by node and `graphs` by digest, which are its owner's. Profiles are by node and model."""

    infos: Mapping[NodeId, NodeInfo]
    graphs: Mapping[str, ModelGraph]
    _profiles: dict[tuple[NodeId, str], Profile] = field(default_factory=dict)
    _speeds: dict[NodeId, Speed] = field(default_factory=dict)
    _estimates: dict[tuple[str, Speed], tuple[float, ...]] = field(default_factory=dict)
    _corrections: Corrections = field(default_factory=Corrections)
    _calls: Constants[NodeId] = field(default_factory=Constants)
    _bases: dict[tuple[NodeId, str, str], Basis | None] = field(default_factory=dict)
    _biases: dict[tuple[str, str], float] = field(default_factory=dict)
    _stages: dict[tuple[StreamId, Tier], tuple[Plan, Basis, float, float]] = field(default_factory=dict)
    frame_work: dict[StreamId, float] = field(default_factory=dict)
    """By stream, how many times the test picture's seconds its frames take to decode."""

    def learn_speed(self, info: NodeInfo) -> str:
        """Take a node's speed; returns what is wrong with it, if anything, and ignores it then."""
        self._speeds.pop(info.node, None)
        self.forget_bases()
        try:
            if info.speed is not None:
                self._speeds[info.node] = Speed.from_json(info.speed)
        except ModelError as error:
            return f"{info.node}: {error}"
        return ""

    def learn_profile(self, node: NodeId, profile: Profile) -> None:
        """Take a node's profile, and forget corrections of what was foreseen without it."""
        if self._profiles.get((node, profile.model)) != profile:
            self._profiles[node, profile.model] = profile
            self.forget_bases()
            self._corrections.forget(node, profile.model)

    def profile_of(self, model: str, digest: str) -> Profile | None:
        """The profile of the model by the first node that has one, by id."""
        fitting = {
            node: profile
            for (node, name), profile in self._profiles.items()
            if name == model and profile.digest == digest and profile.ratios
        }
        return fitting[min(fitting)] if fitting else None

    def has_room_for(self, node: NodeId, profile: Profile) -> bool:
        """True when this profile can be kept: it replaces one, or there is room for one more of the node."""
        known = [model for owner, model in self._profiles if owner == node]
        return profile.model in known or len(known) < MOST_PROFILES

    def learn_telemetry(
        self, node: NodeId, segments: Iterable[SegmentSeconds], plans: Sequence[Plan], probe_s: float | None = None
    ) -> None:
        """Compare a node's measured seconds under the present plans with those foreseen.

        `probe_s` are the seconds of a probe of its processor, which show its speed while it is not in use.
        """
        telling = [s for s in segments if tells(s.frames, s.frames * s.compute_seconds)]
        measured = {(s.stream, s.epoch): s.compute_seconds for s in telling}
        watched, is_called = {plan.model for plan in plans if node in plan.workers}, False
        for plan in plans:
            tier, basis = plan.tier_of(node), self.basis(node, plan.model, plan.digest)
            if tier is None or basis is None:
                continue
            foreseen_s, is_coordinator = (
                self.stage_seconds(basis, plan, tier),
                tier is Tier.EDGE and plan.tiles is not None,
            )
            if foreseen_s < (LEAST_REST_SECONDS if is_coordinator else LEAST_SECONDS):
                continue
            if is_coordinator or foreseen_s >= CALL_S:
                watched.add(plan.model)
            is_called |= not is_coordinator
            took_s = measured.get((plan.stream, plan.epoch))
            if took_s is not None and is_coordinator:
                self._corrections.learn(node, plan.model, basis, took_s / foreseen_s)
            elif took_s is not None:
                self._learn_stage(node, plan.model, basis, foreseen_s, took_s)
        if not is_called:
            self._calls.rest(node, probe_s)
        self._corrections.fade(node, but=watched, probe_s=probe_s)

    def _learn_stage(self, node: NodeId, model: str, basis: Basis, foreseen_s: float, took_s: float) -> None:
        """Divide the unforeseen seconds between the node's factor and its calls, by the segment's length.

        This is the least change of both that explains them, if a factor is as likely off by 1 as a call by `CALL_S`.
        """
        factor = self._corrections.smoothed(node, model, basis)
        missing_s = took_s - factor * foreseen_s - self._calls.smoothed(node)
        of_calls = CALL_S**2 / (CALL_S**2 + foreseen_s**2)
        self._calls.add(node, GAIN * of_calls * missing_s)
        if foreseen_s >= CALL_S:
            self._corrections.learn(node, model, basis, factor + (1 - of_calls) * missing_s / foreseen_s)

    def learn_tiles(self, tiles: Iterable[TileSeconds], plans: Iterable[Plan]) -> None:
        """Compare tiles' measured seconds on their workers under the present plans with those foreseen.

        A worker with several tiles is judged by their sum, and only once all of them have been seen.
        """
        measured = {(t.stream, t.epoch, t.tile, t.worker): t for t in tiles}
        for plan in plans:
            if plan.tiles is None or not self._shared_out(plan):
                continue
            graph = self.graphs[plan.digest]
            try:
                tile_map = plan.tiles.tile_map(graph)
            except TileError:
                continue  # of an earlier planner, for another network: it is about to be replaced
            for node in dict.fromkeys(plan.tiles.workers):
                basis = self.basis(node, plan.model, plan.digest)
                own = [n for n, worker in enumerate(plan.tiles.workers, start=1) if worker == node]
                seen = [measured.get((plan.stream, plan.epoch, number, node)) for number in own]
                took = [one.compute_seconds for one in seen if one is not None]
                telling = any(one is not None and tells(one.frames, one.frames * one.compute_seconds) for one in seen)
                if basis is None or len(took) < len(own) or not telling or node == plan.nodes[Tier.EDGE]:
                    continue  # the coordinator is judged by its segment
                seconds, blocks = self.foreseen(basis, plan.digest), tile_map.stack.blocks
                foreseen_s = sum(tile_seconds(graph, blocks, tile_map.tiles[n - 1], seconds) for n in own)
                if foreseen_s >= LEAST_SECONDS:
                    self._corrections.learn(node, plan.model, basis, sum(took) / foreseen_s)

    def stage_seconds(self, basis: Basis, plan: Plan, tier: Tier) -> float:
        """Foreseen seconds of the blocks that the tier's node runs by itself: those in tiles are not among them."""
        known, work = self._stages.get((plan.stream, tier)), self.frame_work.get(plan.stream, 1.0)
        if known is None or known[0] is not plan or known[1] is not basis or known[2] != work:
            known = plan, basis, work, sum(self._stage(basis, plan, tier))
            self._stages[plan.stream, tier] = known
        return known[3]

    def _stage(self, basis: Basis, plan: Plan, tier: Tier) -> Iterator[float]:
        stack = self._shared_out(plan) if tier is Tier.EDGE else ()
        foreseen = self.foreseen(basis, plan.digest, self.frame_work.get(plan.stream, 1.0))
        for block, (seconds, placed) in enumerate(zip(foreseen, plan.placement, strict=False)):
            if placed is tier and block not in stack:
                yield seconds

    def _shared_out(self, plan: Plan) -> Sequence[int]:
        """Blocks in tiles, which the coordinator's segments do not have; empty if the plan does not fit its graph."""
        graph = self.graphs.get(plan.digest)
        with contextlib.suppress(TileError):
            return plan.tiles.stack(graph).blocks if plan.tiles is not None and graph is not None else ()
        return ()

    def basis(self, node: NodeId, model: str, digest: str) -> Basis | None:
        """The node's fitting profile, else an estimate, None without either."""
        key = node, model, digest
        if key not in self._bases:
            self._bases[key] = self._find_basis(node, model, digest)
        return self._bases[key]

    def forget_bases(self) -> None:
        """Find anew what seconds follow from: a node, a profile or a graph has come."""
        self._bases.clear()
        self._biases.clear()

    def pooled(self, model: str) -> tuple[float, float]:
        """What nodes that are not measured are charged because others are: a factor, and seconds a call."""
        return self._corrections.common(model), min(self._calls.least, CALL_S)

    def _find_basis(self, node: NodeId, model: str, digest: str) -> Basis | None:
        profile, speed = self._profiles.get((node, model)), self._speeds.get(node)
        if profile is not None and not self.why_unfit(node, model, digest):
            return profile
        return Estimate(speed, self._bias(model, digest)) if speed and self._estimated(speed, digest) else None

    def call_seconds(self, node: NodeId) -> float:
        """Seconds per frame of the node's calls, besides its blocks' seconds."""
        return self._calls.seconds_of(node, most_shared_s=CALL_S)

    def factor(self, node: NodeId, model: str, basis: Basis) -> float:
        """The factor by which telemetry corrects the node's foreseen seconds."""
        return self._corrections.factor_of(node, model, basis)

    def why_unfit(self, node: NodeId, model: str, digest: str) -> str:
        """The reason that the node's profile of the model cannot be used; empty if it can, or there is none."""
        profile, info, graph = self._profiles.get((node, model)), self.infos.get(node), self.graphs.get(digest)
        if profile is None or info is None:
            return ""
        here = (digest, info.engine, info.engine_version, info.threads, info.hardware)
        there = (profile.digest, profile.engine, profile.engine_version, profile.threads, profile.hardware)
        differing = [f"{theirs}, not {ours}" for theirs, ours in zip(there, here, strict=True) if theirs != ours]
        if differing:
            return f"{node} has a profile of another {model!r}, engine or machine: {'; '.join(differing)}"
        if graph is not None and len(profile.seconds) != len(graph):
            return f"{node} has a profile of {len(profile.seconds)} blocks for {len(graph)}"
        return ""

    def foreseen(self, basis: Basis, digest: str, frame_work: float = 1.0) -> tuple[float, ...]:
        """Seconds by block, before telemetry corrects them; a frame takes `frame_work` test pictures to decode."""
        if isinstance(basis, Profile):
            seconds = basis.seconds
        else:
            seconds = tuple(basis.bias * seconds for seconds in self._estimated(basis.speed, digest))
        graph = self.graphs.get(digest)
        if frame_work == 1.0 or graph is None or not has_input(graph) or len(seconds) != len(graph):
            return seconds
        return (*seconds[:DECODE], frame_work * seconds[DECODE], *seconds[DECODE + 1 :])

    def _estimated(self, speed: Speed, digest: str) -> tuple[float, ...]:
        """Estimated seconds by block; empty without the graph, and for a speed at which they are not finite."""
        if digest not in self.graphs:
            return ()
        key = digest, speed
        if key not in self._estimates:
            seconds = estimate(self.graphs[digest], speed)
            self._estimates[key] = seconds if math.isfinite(sum(seconds)) else ()
        return self._estimates[key]

    def _bias(self, model: str, digest: str) -> float:
        if (model, digest) not in self._biases:
            self._biases[model, digest] = self._find_bias(model, digest)
        return self._biases[model, digest]

    def _find_bias(self, model: str, digest: str) -> float:
        ratios = []
        for node, speed in self._speeds.items():
            profile, estimated_s = self._profiles.get((node, model)), sum(self._estimated(speed, digest))
            if profile is not None and estimated_s > 0 and not self.why_unfit(node, model, digest):
                ratios.append(sum(profile.seconds) / estimated_s)
        return round(min(max(statistics.median(ratios), 1 / MOST_BIAS), MOST_BIAS), 3) if ratios else 1.0
