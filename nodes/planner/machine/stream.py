"""One stream as its planner remembers it, and when two plans are the same way of running it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from nodes.config.plan_request import WishesSection, as_written
from nodes.planner.costs.drift import departures
from nodes.planner.costs.snapshot import Condition
from nodes.planner.machine.problem import Question
from nodes.planner.machine.registry import Served
from pipeline.errors import PlanError
from pipeline.graph import ModelGraph
from pipeline.partition.choice import Choice
from pipeline.placement import Placement, Tier
from pipeline.plan import NodeId, Plan
from pipeline.tiles.tiling import Tiling

FORCED = "forced"

Way: TypeAlias = tuple[Placement, tuple[tuple[Tier, str], ...], Tiling | None]
"""A placement on these nodes, with these tiles, whatever its epoch."""


@dataclass(slots=True)
class PlannedStream:
    """`unsure` are nodes that were priced by an estimate when the present plan was published.

    `asked` are wishes that a person has sent, in place of the configuration's. `proven` is the last plan that its
    device made active, `turned_down` what its device refused, with its session; `preparing` since when each node is
    at it. `whole_only` are heads that refused tiles, with their sessions. `priced_at` is when the present plan's
    price was last said. `assumed` is what the last decision went by, `before` the one before it; `news` says what has
    left its band since the last word on it.
    """

    served: Served
    configured: WishesSection
    asked: WishesSection | None = None
    plan: Plan | None = None
    adopted: bool = False
    forced: Placement | None = None
    forced_tiles: Tiling | None = None
    hurry: bool = False
    published_at: float = 0.0
    priced_at: float = 0.0
    said: str = ""
    unsure: frozenset[NodeId] = frozenset()
    proven: Plan | None = None
    turned_down: dict[Way, str] = field(default_factory=dict)
    preparing: dict[tuple[NodeId, str, int], float] = field(default_factory=dict)
    whole_only: dict[NodeId, str] = field(default_factory=dict)
    assumed: Mapping[NodeId, Condition] = field(default_factory=dict)
    before: Mapping[NodeId, Condition] = field(default_factory=dict)
    news: tuple[str, ...] = ()
    solved: dict[Placement | None, tuple[Any, Question, list[Choice]]] = field(default_factory=dict)

    def assume(self, now: Mapping[NodeId, Condition], band: float) -> None:
        """Go by what holds now, if other nodes are there or something has left its band."""
        if now.keys() == self.assumed.keys():
            left = [text for node in now for text in departures(node, self.assumed[node], now[node], band)]
            if not left:
                return
            self.news = tuple(left)
        self.before, self.assumed = self.assumed, now

    @property
    def wishes(self) -> WishesSection:
        """What its plans are for."""
        return self.asked or self.configured

    @property
    def asked_as_written(self) -> Mapping[str, Any] | None:
        """The wishes that a person has sent, as the plan remembers them for the next planner process."""
        return as_written(self.asked) if self.asked is not None else None

    def planner_of(self, best: Choice) -> str:
        """The name of what chose it."""
        return FORCED if best.placement == self.forced else self.wishes.planner

    def by_whom(self, best: Choice) -> str:
        """Why it is published at once, in words."""
        if best.placement == self.forced:
            return "placed by hand"
        planned_by_hand = self.plan is not None and self.plan.planner == FORCED
        return "handed back to the planner" if planned_by_hand else f"asked for {self.wishes.objective}"


def way(plan: Plan) -> Way:
    """How it runs the stream."""
    return plan.placement, _nodes(plan), plan.tiles


def way_of(choice: Choice) -> Way:
    """How it would run the stream."""
    return choice.placement, _nodes(choice), choice.tiling


def fits(plan: Plan, graph: ModelGraph) -> bool:
    """Whether the plan is one of this graph."""
    try:
        plan.check(graph)
    except PlanError:
        return False
    return plan.digest == graph.digest


def _nodes(of: Plan | Choice) -> tuple[tuple[Tier, str], ...]:
    return tuple(sorted((tier, str(node)) for tier, node in of.nodes.items()))
