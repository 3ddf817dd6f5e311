"""Why a plan is as it is: every baseline's price beside it, what splitting loses, where the decision turns, and what
each constraint costs. Needs neither broker nor TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.cost import LINKS, Link, critical_path_s, link_label
from pipeline.errors import Infeasible
from pipeline.graph import ModelGraph
from pipeline.partition import PLANNERS
from pipeline.partition.choice import Candidate, Choice, choose, priced, rank
from pipeline.partition.constraints import Constraint, Uses
from pipeline.partition.objective import LATENCY, Objective
from pipeline.placement import Placement, Tier

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
    """What a planner would do with the same nodes; `why_not` says why it can't, and the rest is None then."""

    planner: str
    choice: Choice | None
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """From this bandwidth on (downwards if it is below the present one), another kind of plan is best."""

    lower: Tier
    bandwidth_bytes_per_s: float
    kind: str
    value: float


@dataclass(frozen=True, slots=True)
class Toll:
    """What respecting a constraint costs: the objective's value without it, in words which one."""

    constraint: str
    value_without: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Of the best choice: the next best, all baselines, the best split if one tier wins, turning points, tolls."""

    best: Choice
    runner_up: Choice | None
    alternatives: tuple[Alternative, ...]
    split: Choice | None
    turns: tuple[Turn, ...]
    tolls: tuple[Toll, ...]
    objective: Objective

    def sentence(self) -> str:
        """The decision in plain words."""
        best, kind, text = self.best, kind_of(self.best.placement), self.objective.text
        proof = f"proved to within {best.gap:.2%} of the optimum" if best.gap else "proved optimal"
        tiled = ", the edge's feature maps in tiles," if best.tiling else ""
        decided = f"is best with {text(best.value)} a frame ({proof})"
        if "+" in kind:
            singles = [a.choice for a in self.alternatives if a.choice and a.planner.endswith("-only")]
            if not singles:
                return f"Splitting over {kind}{tiled} {decided}: no tier alone respects the constraints."
            one = min(singles, key=rank)
            single = f"the {kind_of(one.placement)} alone takes {self._against(one)}"
            return f"Splitting over {kind}{tiled} {decided}: {single}."
        if self.split is None:
            return f"The {kind} alone{tiled} {decided}: no split over two tiers is possible under the constraints."
        split = kind_of(self.split.placement)
        return f"The {kind} alone{tiled} {decided}: the best split, over {split}, takes {self._against(self.split)}."

    def _against(self, other: Choice) -> str:
        times = f", {other.value / self.best.value:.3g} times as much" if self.best.value > 0 else ""
        return self.objective.text(other.value) + times

    def to_json(self, graph: ModelGraph) -> dict[str, Any]:
        """All of it, as plain JSON values."""
        return {
            "model": graph.name,
            "objective": str(self.objective),
            "sentence": self.sentence(),
            "best": choice_json(graph, self.best),
            "runner_up": choice_json(graph, self.runner_up) if self.runner_up else None,
            "baselines": [
                {
                    "planner": a.planner,
                    "ratio": a.choice.value / self.best.value if a.choice and self.best.value else None,
                    "plan": choice_json(graph, a.choice) if a.choice else None,
                    "why_not": a.why_not or None,
                }
                for a in self.alternatives
            ],
            "best_split": choice_json(graph, self.split) if self.split else None,
            "break_even": [
                {
                    "link": link_label(turn.lower),
                    "bandwidth_bytes_per_s": turn.bandwidth_bytes_per_s,
                    "becomes": turn.kind,
                    "value": turn.value,
                }
                for turn in self.turns
            ],
            "constraints": [
                {
                    "constraint": t.constraint,
                    "value_without": t.value_without,
                    "costs": self.best.value - t.value_without,
                }
                for t in self.tolls
            ],
        }


def kind_of(placement: Placement) -> str:
    """The tiers that compute, such as `device+cloud`; `device` when nothing but the input is placed."""
    return "+".join(tier.label for tier in sorted(set(placement[1:]))) or Tier.DEVICE.label


def choice_json(graph: ModelGraph, choice: Choice) -> dict[str, Any]:
    """A choice as plain JSON values."""
    return {
        "kind": kind_of(choice.placement),
        "value": choice.value,
        "gap": choice.gap,
        "nodes": {tier.label: node for tier, node in choice.nodes.items()},
        "tiles": choice.tiling.to_json(graph) if choice.tiling else None,
        "placement": [tier.label for tier in choice.placement],
        "predicted": choice.predicted.to_json()
        | {
            "period_seconds": choice.predicted.period_s,
            "critical_path_seconds": critical_path_s(graph, choice.placement, choice.costs),
        },
    }


def explain(
    graph: ModelGraph,
    candidates: Sequence[Candidate],
    constraints: Sequence[Constraint] = (),
    objective: Objective = LATENCY,
    *,
    progress: Callable[[str], None] = lambda step: None,
) -> Explanation:
    """Plan and explain. Raises Infeasible with the conflict, PlanError for bad costs."""
    progress("plan")
    choices = choose(graph, candidates, constraints, objective)
    best = choices[0]
    progress("baselines")
    alternatives = tuple(_alternative(name, graph, candidates, constraints, objective) for name in PLANNERS)
    others = [*choices[1:], *(a.choice for a in alternatives if a.choice)]
    different = [c for c in others if (c.placement, c.nodes, c.tiling) != (best.placement, best.nodes, best.tiling)]
    progress("splits")
    split = None if "+" in kind_of(best.placement) else _best_split(graph, candidates, constraints, objective)
    progress("break-even")
    turns = tuple(turn for lower in LINKS for turn in _turns(graph, candidates, constraints, objective, best, lower))
    progress("constraints")
    return Explanation(
        best=best,
        runner_up=min(different, key=rank, default=None),
        alternatives=alternatives,
        split=split,
        turns=turns,
        tolls=tuple(_tolls(graph, candidates, constraints, objective, best)),
        objective=objective,
    )


def with_bandwidth(candidate: Candidate, lower: Tier, bandwidth_bytes_per_s: float) -> Candidate:
    """The same nodes with another bandwidth on the link above `lower`."""
    costs = candidate.costs
    link = Link(bandwidth_bytes_per_s, costs.link(lower).latency_s)
    changed = replace(costs, device_edge=link) if lower == Tier.DEVICE else replace(costs, edge_cloud=link)
    return replace(candidate, costs=changed)


def _alternative(
    name: str,
    graph: ModelGraph,
    candidates: Sequence[Candidate],
    constraints: Sequence[Constraint],
    objective: Objective,
) -> Alternative:
    """The planner's best over all combinations of nodes."""
    found: list[Choice] = []
    why_not = ""
    for candidate in sorted(candidates, key=lambda candidate: -len(candidate.nodes)):
        try:
            placement = PLANNERS[name](graph, candidate.costs, [*constraints, *candidate.constraints], objective)
        except Infeasible as error:
            why_not = why_not or str(error)
        else:
            found.append(priced(graph, placement, candidate, objective))
    best = min(found, key=rank, default=None)
    return Alternative(name, best, "" if best else why_not)


def _best_split(
    graph: ModelGraph, candidates: Sequence[Candidate], constraints: Sequence[Constraint], objective: Objective
) -> Choice | None:
    found: list[Choice] = []
    for pair in ((Tier.DEVICE, Tier.EDGE), (Tier.DEVICE, Tier.CLOUD), (Tier.EDGE, Tier.CLOUD)):
        able = [c for c in candidates if set(pair) <= c.costs.seconds.keys()]
        try:
            found += choose(graph, able, [*constraints, *map(Uses, pair)], objective)[:1]
        except Infeasible:
            continue
    return min(found, key=rank, default=None)


def _turns(
    graph: ModelGraph,
    candidates: Sequence[Candidate],
    constraints: Sequence[Constraint],
    objective: Objective,
    best: Choice,
    lower: Tier,
) -> list[Turn]:
    """The nearest turning points below and above the present bandwidth of a link, all its candidates scaled alike."""
    here = best.costs.link(lower).bandwidth_bytes_per_s
    kind = kind_of(best.placement)
    if here == float("inf"):
        return []

    def at(factor: float) -> Choice | None:
        scaled = [with_bandwidth(c, lower, c.costs.link(lower).bandwidth_bytes_per_s * factor) for c in candidates]
        try:
            return choose(graph, scaled, constraints, objective)[0]
        except Infeasible:
            return None

    found = []
    for direction in (1 / _SPAN, _SPAN):
        inside = 1.0
        for step in range(1, _STEPS + 1):
            outside = direction ** (step / _STEPS)
            choice = at(outside)
            if choice is None:
                break
            if kind_of(choice.placement) == kind:
                inside = outside
                continue
            while max(inside / outside, outside / inside) > 1 + _PRECISION:
                middle = (inside * outside) ** 0.5
                tried = at(middle)
                if tried is not None and kind_of(tried.placement) == kind:
                    inside = middle
                else:
                    outside, choice = middle, tried or choice
            found.append(Turn(lower, here * outside, kind_of(choice.placement), choice.value))
            break
    return found


def _tolls(
    graph: ModelGraph,
    candidates: Sequence[Candidate],
    constraints: Sequence[Constraint],
    objective: Objective,
    best: Choice,
) -> list[Toll]:
    """Of each constraint that is in the way of something better; of several pins and so on, each alone."""
    tolls = []
    for released in constraints:
        without = choose(graph, candidates, [c for c in constraints if c != released], objective)[0]
        if without.value < best.value * (1 - _NOTHING):
            tolls.append(Toll(released.describe(graph), without.value))
    return tolls


NOTHING_POSSIBLE = "no plan"


def decision_map(
    graph: ModelGraph,
    candidates: Sequence[Candidate],
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
        row: list[Choice | None] = []
        for above in edge_cloud:
            there = [with_bandwidth(with_bandwidth(c, Tier.DEVICE, below), Tier.EDGE, above) for c in candidates]
            try:
                row.append(choose(graph, there, constraints, objective)[0])
            except Infeasible:
                row.append(None)
            progress()
        kinds.append([kind_of(choice.placement) if choice else NOTHING_POSSIBLE for choice in row])
        values.append([choice.value if choice else float("inf") for choice in row])
    return kinds, values
