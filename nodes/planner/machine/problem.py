"""From what the roster knows to choices: each combination of nodes planned as the stream's wishes ask, cheapest first.

Pure, and without memory: whoever calls it keeps what was solved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nodes.config.plan_request import WishesSection, constraints_of
from nodes.planner.costs.snapshot import Condition
from nodes.planner.machine.registry import Roster, Served
from nodes.planner.machine.static_costs import Terms, combinations
from nodes.planner.machine.tile_teams import Teams, priced_with, words
from pipeline.cost import Costs
from pipeline.errors import Infeasible, PlanError
from pipeline.graph import ModelGraph
from pipeline.partition import PLANNERS, baselines, hpa
from pipeline.partition.choice import Candidate, Choice, choose, priced, rank
from pipeline.partition.constraints import broken
from pipeline.partition.explain import kind_of
from pipeline.placement import Placement, Tier
from pipeline.plan import NodeId, Plan
from pipeline.tiles.tiling import Tiling

EXACT, HPA = "exact", "hpa"
_ALONE = {Tier.DEVICE: baselines.device_only, Tier.EDGE: baselines.edge_only, Tier.CLOUD: baselines.cloud_only}


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be placed, where it may be, and what for."""

    graph: ModelGraph
    candidates: Sequence[Candidate]
    wishes: WishesSection

    def choices(self, forced: Placement | None = None, tiles: Tiling | None = None) -> list[Choice]:
        """The best on each combination of nodes, the cheapest first; with `forced`, that one with `tiles` on each.

        Empty when no combination has what `forced` needs. Raises Infeasible when the wishes leave nothing, PlanError
        when `forced` breaks a constraint, ModelError for a constraint on a block that the model does not have.
        """
        constraints, objective = constraints_of(self.graph, self.wishes.constraints), self.wishes.parsed_objective()
        if forced is not None:
            able = [c for c in self.candidates if set(forced) <= c.nodes.keys()]
            kept = [c for c in able if not broken(self.graph, forced, c.costs, (*constraints, *c.constraints))]
            if able and not kept:
                against = broken(self.graph, forced, able[0].costs, (*constraints, *able[0].constraints))
                raise PlanError(
                    f"it breaks: {'; '.join(c.describe(self.graph) for c in against)}; `trisect objective` changes that"
                )
            found = [priced_with(self.graph, forced, c, objective, tiles) for c in kept]
            return sorted(found, key=rank)
        if self.wishes.planner == EXACT:
            return choose(self.graph, self.candidates, constraints, objective)
        found, why_not = [], None
        for candidate in self.candidates:
            asked = (*constraints, *candidate.constraints)
            try:
                placement = PLANNERS[self.wishes.planner](self.graph, candidate.costs, asked, objective)
            except Infeasible as error:
                why_not = why_not or error
            else:
                found.append(priced(self.graph, placement, candidate, objective))
        if not found and why_not is not None:
            raise why_not
        return sorted(found, key=rank)

    def adjusted(self, present: Plan, candidate: Candidate, before: Costs, band: float) -> Choice | None:
        """D3's local adjustment of the present plan to the candidate's costs; `before` are those it was made with.

        None when the outcome breaks a constraint.
        """
        constraints = (*constraints_of(self.graph, self.wishes.constraints), *candidate.constraints)
        affected = hpa.affected(self.graph, present.placement, before, candidate.costs, band)
        try:
            placement = hpa.adjust(self.graph, present.placement, candidate.costs, affected, constraints)
        except Infeasible:
            return None
        return priced(self.graph, placement, candidate, self.wishes.parsed_objective())

    def alone(self) -> dict[Tier, Choice]:
        """Each tier by itself at its cheapest, where the constraints allow it."""
        constraints, objective = constraints_of(self.graph, self.wishes.constraints), self.wishes.parsed_objective()
        found: dict[Tier, Choice] = {}
        for tier, only in _ALONE.items():
            for candidate in self.candidates:
                try:
                    placement = only(self.graph, candidate.costs, (*constraints, *candidate.constraints))
                except Infeasible:
                    continue
                choice = priced(self.graph, placement, candidate, objective)
                if tier not in found or choice.value < found[tier].value:
                    found[tier] = choice
        return found

    def compared(self, best: Choice, choices: Sequence[Choice]) -> tuple[str, dict[str, Any] | None]:
        """A choice's price beside that of each tier alone, in words, and the next best there is, for the plan."""
        text = self.wishes.parsed_objective().text
        alone = self.alone()
        parts = [
            f"predicted {text(best.value)} a frame",
            *(f"{t.label} alone {text(c.value)}" for t, c in alone.items()),
        ]
        if self.wishes.objective != "latency":
            parts.append(f"{best.predicted.seconds * 1e3:.1f} ms latency")
        if best.gap:
            parts.append(f"proved to within {best.gap:.2%} of the optimum")
        if shared := words(self.graph, best):
            parts.append(shared)
        is_best = (best.placement, best.nodes, best.tiling)
        others = [c for c in (*choices, *alone.values()) if (c.placement, c.nodes, c.tiling) != is_best]
        other = min(others, key=rank, default=None)
        if other is not None and other not in alone.values():
            tiled = " in tiles" if other.tiling else ""
            parts.append(f"next best {kind_of(other.placement)}{tiled} {text(other.value)}")
        return ", ".join(parts), _runner_up(other) if other else None


def question(
    roster: Roster,
    terms: Terms,
    served: Served,
    graph: ModelGraph,
    wishes: WishesSection,
    tiers: Mapping[Tier, Sequence[NodeId]],
    conditions: Mapping[NodeId, Condition],
    teams: Teams,
) -> Question:
    """What to ask of the usable nodes of each tier under these conditions of theirs, with their tile workers."""

    def candidates() -> Iterator[Candidate]:
        for nodes in combinations(tiers, wishes.constraints.exclude_nodes):
            yield terms.candidate(nodes, roster.costs(served, nodes, conditions))

    joined = teams.join(graph, list(candidates()), choose=wishes.planner == EXACT)
    return Question(graph, joined, wishes)


def _runner_up(other: Choice) -> dict[str, Any]:
    return {
        "kind": kind_of(other.placement),
        "nodes": {tier.label: node for tier, node in other.nodes.items()},
        "value": other.value,
        "predicted": other.predicted.to_json(),
    }
