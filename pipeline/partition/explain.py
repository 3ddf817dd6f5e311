"""Explanations of a plan: the price of every baseline, the loss from splitting, the breakpoints of the decision, and
the shadow price of each constraint. Needs neither broker nor TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.cost import LINKS, Link, link_label
from pipeline.critical_path import critical_path_s
from pipeline.errors import Infeasible
from pipeline.frames.input_blocks import first_block
from pipeline.graph import ModelGraph
from pipeline.partition import PLANNERS
from pipeline.partition.constraints import Constraint, Uses
from pipeline.partition.objective import LATENCY, Objective
from pipeline.partition.priced_plan import NodeSet, PricedPlan, priced, rank
from pipeline.partition.search import choose
from pipeline.placement import Placement, Tier

SINGLE = "-only"
"""Ends the names of planners that take one tier alone."""
_SPAN = 1000.0
"""Bandwidths are searched from this much less to this much more."""
_STEPS = 24
"""Of that search in each direction, even in the logarithm; a turn there and back within one step is missed."""
_PRECISION = 0.01
"""Share of a bandwidth to which a turning point is found."""
_NOTHING = 1e-6
"""A constraint that costs less than this share is not binding."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another planner's plan on the same nodes, or None with the reason in `why_not`.

    `forbidden` is then a single tier's plan without the constraints, None where it cannot run it at all.
    """

    planner: str
    priced_plan: PricedPlan | None
    why_not: str = ""
    forbidden: PricedPlan | None = None


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """From this bandwidth on (downwards if it is below the present one), another kind of plan is best."""

    lower: Tier
    bandwidth_bytes_per_s: float
    kind: str
    value: float


@dataclass(frozen=True, slots=True)
class ShadowPrice:
    """A constraint, in words, with the objective's value of the best plan without it."""

    constraint: str
    value_without: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """The best plan, the next best, all baselines, the best split if one tier wins, breakpoints and shadow prices."""

    best: PricedPlan
    runner_up: PricedPlan | None
    alternatives: tuple[Alternative, ...]
    split: PricedPlan | None
    breakpoints: tuple[Breakpoint, ...]
    shadow_prices: tuple[ShadowPrice, ...]
    objective: Objective
    graph: ModelGraph

    def sentence(self) -> str:
        """The decision in plain words."""
        best, kind, text = self.best, kind_of(self.graph, self.best.placement), self.objective.text
        proof = f"proved to within {best.gap:.2%} of the optimum" if best.gap else "proved optimal"
        tiled = ", the edge's feature maps in tiles," if best.tiling else ""
        decided = f"is best with {text(best.value)} a frame ({proof})"
        if self.objective.period and best.predicted.bottleneck:
            decided += f", whose period is that of {best.predicted.bottleneck}"
        if "+" in kind:
            singles = [a.priced_plan for a in self.alternatives if a.priced_plan and a.planner.endswith(SINGLE)]
            if not singles:
                return f"Splitting over {kind}{tiled} {decided}: no tier alone respects the constraints."
            one = min(singles, key=rank)
            single = f"the {kind_of(self.graph, one.placement)} alone takes {self._against(one)}"
            return f"Splitting over {kind}{tiled} {decided}: {single}."
        if self.split is None:
            return f"The {kind} alone{tiled} {decided}: no split over two tiers is possible under the constraints."
        split = kind_of(self.graph, self.split.placement)
        return f"The {kind} alone{tiled} {decided}: the best split, over {split}, takes {self._against(self.split)}."

    def _against(self, other: PricedPlan) -> str:
        times = f", {other.value / self.best.value:.3g} times as much" if self.best.value > 0 else ""
        return self.objective.text(other.value) + times

    def to_json(self, graph: ModelGraph) -> dict[str, Any]:
        """All of it, as plain JSON values."""
        return {
            "model": graph.name,
            "objective": str(self.objective),
            "sentence": self.sentence(),
            "best": priced_plan_json(graph, self.best),
            "runner_up": priced_plan_json(graph, self.runner_up) if self.runner_up else None,
            "baselines": [
                {
                    "planner": a.planner,
                    "ratio": a.priced_plan.value / self.best.value if a.priced_plan and self.best.value else None,
                    "plan": priced_plan_json(graph, a.priced_plan) if a.priced_plan else None,
                    "why_not": a.why_not or None,
                    "without_constraints": priced_plan_json(graph, a.forbidden) if a.forbidden else None,
                }
                for a in self.alternatives
            ],
            "best_split": priced_plan_json(graph, self.split) if self.split else None,
            "break_even": [
                {
                    "link": link_label(point.lower),
                    "bandwidth_bytes_per_s": point.bandwidth_bytes_per_s,
                    "becomes": point.kind,
                    "value": point.value,
                }
                for point in self.breakpoints
            ],
            "constraints": [
                {
                    "constraint": t.constraint,
                    "value_without": t.value_without,
                    "costs": self.best.value - t.value_without,
                }
                for t in self.shadow_prices
            ],
        }


def kind_of(graph: ModelGraph, placement: Placement) -> str:
    """The tiers that compute the network, such as `device+cloud`, wherever its input's blocks run."""
    return "+".join(tier.label for tier in sorted(set(placement[first_block(graph) :]))) or Tier.DEVICE.label


def priced_plan_json(graph: ModelGraph, priced_plan: PricedPlan) -> dict[str, Any]:
    """A choice as plain JSON values."""
    return {
        "kind": kind_of(graph, priced_plan.placement),
        "value": priced_plan.value,
        "gap": priced_plan.gap,
        "nodes": {tier.label: node for tier, node in priced_plan.nodes.items()},
        "tiles": priced_plan.tiling.to_json(graph) if priced_plan.tiling else None,
        "placement": [tier.label for tier in priced_plan.placement],
        "predicted": priced_plan.predicted.to_json()
        | priced_plan.predicted.period_json()
        | {
            "critical_path_seconds": critical_path_s(graph, priced_plan.placement, priced_plan.costs),
        },
    }


def explain(
    graph: ModelGraph,
    node_sets: Sequence[NodeSet],
    constraints: Sequence[Constraint] = (),
    objective: Objective = LATENCY,
    *,
    progress: Callable[[str], None] = lambda step: None,
) -> Explanation:
    """Plan and explain; `progress` is told each step. Raises Infeasible with the conflict, PlanError for bad costs."""
    progress("plan")
    priced_plans = choose(graph, node_sets, constraints, objective)
    best = priced_plans[0]
    progress("baselines")
    alternatives = tuple(_alternative(name, graph, node_sets, constraints, objective) for name in PLANNERS)
    others = [*priced_plans[1:], *(a.priced_plan for a in alternatives if a.priced_plan)]
    different = [c for c in others if (c.placement, c.nodes, c.tiling) != (best.placement, best.nodes, best.tiling)]
    progress("splits")
    split = None if "+" in kind_of(graph, best.placement) else _best_split(graph, node_sets, constraints, objective)
    progress("break-even")
    breakpoints = tuple(
        point for lower in LINKS for point in _breakpoints(graph, node_sets, constraints, objective, best, lower)
    )
    progress("constraints")
    return Explanation(
        best=best,
        runner_up=min(different, key=rank, default=None),
        alternatives=alternatives,
        split=split,
        breakpoints=breakpoints,
        shadow_prices=tuple(_shadow_prices(graph, node_sets, constraints, objective, best)),
        objective=objective,
        graph=graph,
    )


def with_bandwidth(node_set: NodeSet, lower: Tier, bandwidth_bytes_per_s: float) -> NodeSet:
    """The same nodes with another bandwidth on the link above `lower`."""
    costs = node_set.costs
    link = Link(bandwidth_bytes_per_s, costs.link(lower).latency_s)
    changed = replace(costs, device_edge=link) if lower == Tier.DEVICE else replace(costs, edge_cloud=link)
    return replace(node_set, costs=changed)


def _alternative(
    name: str,
    graph: ModelGraph,
    node_sets: Sequence[NodeSet],
    constraints: Sequence[Constraint],
    objective: Objective,
) -> Alternative:
    """The planner's best over all combinations of nodes."""
    found: list[PricedPlan] = []
    why_not = ""
    for node_set in sorted(node_sets, key=lambda node_set: -len(node_set.nodes)):
        try:
            placement = PLANNERS[name](graph, node_set.costs, [*constraints, *node_set.constraints], objective)
        except Infeasible as error:
            why_not = why_not or str(error)
        else:
            found.append(priced(graph, placement, node_set, objective))
    best = min(found, key=rank, default=None)
    if best is not None:
        return Alternative(name, best)
    is_single = constraints and name.endswith(SINGLE)
    forbidden = _alternative(name, graph, node_sets, (), objective).priced_plan if is_single else None
    return Alternative(name, None, why_not, forbidden)


def _best_split(
    graph: ModelGraph, node_sets: Sequence[NodeSet], constraints: Sequence[Constraint], objective: Objective
) -> PricedPlan | None:
    found: list[PricedPlan] = []
    for pair in ((Tier.DEVICE, Tier.EDGE), (Tier.DEVICE, Tier.CLOUD), (Tier.EDGE, Tier.CLOUD)):
        able = [c for c in node_sets if set(pair) <= c.costs.seconds.keys()]
        try:
            found += choose(graph, able, [*constraints, *map(Uses, pair)], objective)[:1]
        except Infeasible:
            continue
    return min(found, key=rank, default=None)


def _breakpoints(
    graph: ModelGraph,
    node_sets: Sequence[NodeSet],
    constraints: Sequence[Constraint],
    objective: Objective,
    best: PricedPlan,
    lower: Tier,
) -> list[Breakpoint]:
    """The nearest breakpoints below and above the present bandwidth of a link, scaled alike for all node sets."""
    here = best.costs.link(lower).bandwidth_bytes_per_s
    kind = kind_of(graph, best.placement)
    if here == float("inf"):
        return []

    def at(factor: float) -> PricedPlan | None:
        scaled = [with_bandwidth(c, lower, c.costs.link(lower).bandwidth_bytes_per_s * factor) for c in node_sets]
        try:
            return choose(graph, scaled, constraints, objective)[0]
        except Infeasible:
            return None

    found = []
    for direction in (1 / _SPAN, _SPAN):
        inside = 1.0
        for step in range(1, _STEPS + 1):
            outside = direction ** (step / _STEPS)
            priced_plan = at(outside)
            if priced_plan is None:
                break
            if kind_of(graph, priced_plan.placement) == kind:
                inside = outside
                continue
            while max(inside / outside, outside / inside) > 1 + _PRECISION:
                middle = (inside * outside) ** 0.5
                tried = at(middle)
                if tried is not None and kind_of(graph, tried.placement) == kind:
                    inside = middle
                else:
                    outside, priced_plan = middle, tried or priced_plan
            found.append(Breakpoint(lower, here * outside, kind_of(graph, priced_plan.placement), priced_plan.value))
            break
    return found


def _shadow_prices(
    graph: ModelGraph,
    node_sets: Sequence[NodeSet],
    constraints: Sequence[Constraint],
    objective: Objective,
    best: PricedPlan,
) -> list[ShadowPrice]:
    """The shadow prices of the binding constraints, each released alone."""
    shadow_prices = []
    for released in constraints:
        without = choose(graph, node_sets, [c for c in constraints if c != released], objective)[0]
        if without.value < best.value * (1 - _NOTHING):
            shadow_prices.append(ShadowPrice(released.describe(graph), without.value))
    return shadow_prices


NOTHING_POSSIBLE = "no plan"


def decision_map(
    graph: ModelGraph,
    node_sets: Sequence[NodeSet],
    constraints: Sequence[Constraint],
    objective: Objective,
    device_edge: Sequence[float],
    edge_cloud: Sequence[float],
    *,
    progress: Callable[[], None] = lambda: None,
) -> tuple[list[list[str]], list[list[float]]]:
    """The kind of the best plan and its value, `[i][j]` at the bandwidths (bytes/s) `device_edge[i]`, `edge_cloud[j]`.

    Where nothing respects the constraints the kind is `NOTHING_POSSIBLE` and the value infinite.
    """
    kinds: list[list[str]] = []
    values: list[list[float]] = []
    for below in device_edge:
        row: list[PricedPlan | None] = []
        for above in edge_cloud:
            there = [with_bandwidth(with_bandwidth(c, Tier.DEVICE, below), Tier.EDGE, above) for c in node_sets]
            try:
                row.append(choose(graph, there, constraints, objective)[0])
            except Infeasible:
                row.append(None)
            progress()
        kinds.append(
            [kind_of(graph, priced_plan.placement) if priced_plan else NOTHING_POSSIBLE for priced_plan in row]
        )
        values.append([priced_plan.value if priced_plan else float("inf") for priced_plan in row])
    return kinds, values
