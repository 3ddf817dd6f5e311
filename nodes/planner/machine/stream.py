"""One stream as its planner remembers it, and when two plans are the same way of running it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from nodes.config.plan_request import PlanRequest, as_written
from nodes.planner.costs.drift import drift
from nodes.planner.costs.snapshot import NodeSnapshot
from nodes.planner.machine.allowance import Allowance
from nodes.planner.machine.binding import StreamBinding
from nodes.planner.machine.problem import Solved
from pipeline.errors import PlanError
from pipeline.graph import ModelGraph
from pipeline.partition.priced_plan import PricedPlan
from pipeline.placement import Placement, Tier
from pipeline.plan import ByHand, NodeId, Plan, StreamId
from pipeline.tiles.tiling import Tiling

FORCED = "forced"

Assignment: TypeAlias = tuple[Placement, tuple[tuple[Tier, str], ...], Tiling | None]
"""A placement on these nodes, with these tiles, whatever its epoch."""


@dataclass(slots=True)
class PlannedStream:
    """`unsure` are nodes that were priced by an estimate when the present plan was published.

    `rolled_from` is the plan of the model's version before, which runs until a plan of this one is ready;
    `rolled_at` when that was.
    `requested` is the request that a person sent, in place of the configured one. `last_good` is the last plan that
    its device made active, `refused_by_device` what its device refused, with its session; `preparing` since when each
    node is at it. `why_in_brief` is the present plan's reason while it is not said how it compares with others.
    `untiled_only` are coordinators that refused tiles, with their sessions. `priced_at` is when the
    present plan's price was last said. `tried_instead_of` is the plan that a trial replaced, None if the
    present one is no trial; another may follow from `next_trial_at` on. `assumed` is what the last decision went by,
    `before` the one before it; `drift_reasons` says what has left its band since the last word on it.
    """

    name: StreamId
    binding: StreamBinding
    configured: PlanRequest
    requested: PlanRequest | None = None
    plan: Plan | None = None
    adopted: bool = False
    forced: Placement | None = None
    forced_tiles: Tiling | None = None
    force: bool = False
    published_at: float = 0.0
    priced_at: float = 0.0
    last_logged: str = ""
    unsure: frozenset[NodeId] = frozenset()
    why_in_brief: str = ""
    tried_instead_of: Plan | None = None
    next_trial_at: float = 0.0
    last_good: Plan | None = None
    refused_by_device: dict[Assignment, str] = field(default_factory=dict)
    preparing: dict[tuple[NodeId, str, int], float] = field(default_factory=dict)
    untiled_only: dict[NodeId, str] = field(default_factory=dict)
    assumed: Mapping[NodeId, NodeSnapshot] = field(default_factory=dict)
    before: Mapping[NodeId, NodeSnapshot] = field(default_factory=dict)
    drift_reasons: tuple[str, ...] = ()
    rolled_from: Plan | None = None
    rolled_at: float = 0.0
    by_people: Allowance = field(default_factory=Allowance)
    solved: dict[Placement | None, Solved] = field(default_factory=dict)

    def assume(self, now: Mapping[NodeId, NodeSnapshot], band: float) -> None:
        """Go by what holds now, if other nodes are there or something has left its band."""
        if now.keys() == self.assumed.keys():
            left = [text for node in now for text in drift(node, self.assumed[node], now[node], band)]
            if not left:
                return
            self.drift_reasons = tuple(left)
        self.before, self.assumed = self.assumed, now

    def validate(self) -> None:
        """Assert what always holds."""
        assert self.forced is not None or self.forced_tiles is None
        if self.plan is None:
            assert not self.preparing
            return
        assert self.plan.epoch >= 1
        assert self.plan.device == self.binding.device == self.plan.nodes[Tier.DEVICE]
        assert self.last_good is None or self.last_good.epoch <= self.plan.epoch
        assert all(epoch <= self.plan.epoch for _, _, epoch in self.preparing)

    @property
    def plan_request(self) -> PlanRequest:
        """The request that its plans follow: a person's, else the configured one."""
        return self.requested or self.configured

    @property
    def requested_as_written(self) -> Mapping[str, Any] | None:
        """The request that a person sent, as the plan keeps it for the next planner process; None if there is none."""
        return as_written(self.requested) if self.requested is not None else None

    @property
    def by_hand(self) -> ByHand | None:
        """What a person has placed by hand, as the plan keeps it for the next planner process."""
        return ByHand(self.forced, self.forced_tiles) if self.forced is not None else None

    def planner_of(self, best: PricedPlan) -> str:
        """The name of what chose it."""
        return FORCED if best.placement == self.forced else self.plan_request.planner

    def by_whom(self, best: PricedPlan) -> str:
        """The reason to publish it at once, in words."""
        if best.placement == self.forced:
            return "placed by hand"
        planned_by_hand = self.plan is not None and self.plan.planner == FORCED
        return "handed back to the planner" if planned_by_hand else f"asked for {self.plan_request.objective}"


def assignment(plan: Plan) -> Assignment:
    """The plan's placement, nodes and tiles, whatever the codecs."""
    return plan.placement, _nodes(plan), plan.tiles.uncoded if plan.tiles else None


def assignment_of(priced_plan: PricedPlan) -> Assignment:
    """The priced plan's placement, nodes and tiles, whatever the codecs."""
    return priced_plan.placement, _nodes(priced_plan), priced_plan.tiling.uncoded if priced_plan.tiling else None


def fits(plan: Plan, graph: ModelGraph) -> bool:
    """True when the plan fits this graph and names its digest."""
    try:
        plan.check(graph)
    except PlanError:
        return False
    return plan.digest == graph.digest


def stream_named(streams: Mapping[StreamId, PlannedStream], name: StreamId) -> PlannedStream:
    """The stream of this name. Raises PlanError, which names those that are known."""
    stream = streams.get(name)
    if stream is None:
        known = ", ".join(sorted(streams)) or "none"
        raise PlanError(f"unknown stream {name!r}; known: {known}; a stream is known when its device node is ready")
    return stream


def _nodes(plan: Plan | PricedPlan) -> tuple[tuple[Tier, str], ...]:
    return tuple(sorted((tier, str(node)) for tier, node in plan.nodes.items()))
