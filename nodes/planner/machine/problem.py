"""From what the registry knows to priced plans: each combination of nodes, planned as the stream's request says,
cheapest first.

Pure, and without memory: whoever calls it keeps what was solved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from nodes.config.plan_request import PlanRequest, constraints_of
from nodes.planner.costs.snapshot import NodeSnapshot
from nodes.planner.machine.binding import StreamBinding
from nodes.planner.machine.registry import Registry
from nodes.planner.machine.static_costs import StaticCosts, combinations
from nodes.planner.machine.worker_pools import WorkerPools, priced_with, words
from pipeline.coding import PlannedCodecs
from pipeline.cost import Costs
from pipeline.errors import Infeasible, PlanError
from pipeline.graph import ModelGraph
from pipeline.partition import PLANNERS, baselines, hpa
from pipeline.partition.constraints import Constraint, broken
from pipeline.partition.cut_family import all_cuts_of
from pipeline.partition.cuts import best_cuts
from pipeline.partition.explain import kind_of
from pipeline.partition.priced_plan import NodeSet, PricedPlan, priced, rank
from pipeline.partition.search import Lazily, choose
from pipeline.partition.set_bounds import SetBound, bounds_of_each, fewest_bytes, is_coded, without_doubles
from pipeline.placement import Placement, Tier
from pipeline.plan import NodeId, Plan
from pipeline.tiles.tile_codings import coded
from pipeline.tiles.tiling import Tiling

EXACT, HPA = "exact", "hpa"
NO_BOUND = SetBound(0.0, 0.0)
ROUNDING = 1e-9
"""By such a share bounds may be off."""
_ALONE = {Tier.DEVICE: baselines.device_only, Tier.EDGE: baselines.edge_only, Tier.CLOUD: baselines.cloud_only}


@dataclass(frozen=True, slots=True)
class PlanningProblem:
    """A stream's graph, the node sets it may be placed on, its plan request and, where known, lower bounds of the sets
    with their nodes.
    """

    graph: ModelGraph
    node_sets: Sequence[NodeSet]
    plan_request: PlanRequest
    bounds: Sequence[tuple[SetBound, Mapping[Tier, str]]] | None = None

    @property
    def least(self) -> Sequence[float] | None:
        """What no plan on each node set is worth less than, but for ROUNDING."""
        return [bound.least for bound, _ in self.bounds] if self.bounds is not None else None

    def priced_plans(self, forced: Placement | None = None, tiles: Tiling | None = None) -> Sequence[PricedPlan]:
        """The best plans on combinations of nodes, the cheapest first, exact ones made when they are looked at.

        With `forced`, that placement with `tiles` on each. Empty when no combination has what `forced` needs. Raises
        Infeasible when the request leaves nothing, PlanError when `forced` breaks a constraint, ModelError for a
        constraint on a block that the model does not have.
        """
        constraints, objective = (
            constraints_of(self.graph, self.plan_request.constraints),
            self.plan_request.parsed_objective(),
        )
        if forced is not None:
            able = [c for c in self.node_sets if set(forced) <= c.nodes.keys()]
            kept = [c for c in able if not broken(self.graph, forced, c.costs, (*constraints, *c.constraints))]
            if able and not kept:
                against = broken(self.graph, forced, able[0].costs, (*constraints, *able[0].constraints))
                raise PlanError(
                    f"it breaks: {'; '.join(c.describe(self.graph) for c in against)}; `trisect objective` changes that"
                )
            found = [priced_with(self.graph, forced, c, objective, self._coded(tiles, c)) for c in kept]
            return sorted(found, key=rank)
        if self.plan_request.planner == EXACT:
            return choose(self.graph, self.node_sets, constraints, objective, self.least)
        found, why_not = [], None
        for node_set in self.node_sets:
            asked = (*constraints, *node_set.constraints)
            try:
                placement = PLANNERS[self.plan_request.planner](self.graph, node_set.costs, asked, objective)
            except Infeasible as error:
                why_not = why_not or error
            else:
                found.append(priced(self.graph, placement, node_set, objective))
        if not found and why_not is not None:
            raise why_not
        return sorted(found, key=rank)

    def _coded(self, tiles: Tiling | None, node_set: NodeSet) -> Tiling | None:
        return coded(self.graph, node_set.pool, tiles) if tiles is not None and node_set.pool is not None else tiles

    def quick_plans(self) -> list[PricedPlan]:
        """For each set of nodes the best of its single tiers and of what two cuts of the blocks' order give.

        Good plans in a tenth of the time, none of them proved, and none in tiles. Empty where none of them respects
        the constraints, or where another planner than the exact one is asked for.
        """
        constraints, objective = (
            constraints_of(self.graph, self.plan_request.constraints),
            self.plan_request.parsed_objective(),
        )
        found = []
        for node_set in self.node_sets if self.plan_request.planner == EXACT else ():
            asked = (*constraints, *node_set.constraints)
            for placement in best_cuts(self.graph, objective.judging(node_set.costs), objective):
                if not broken(self.graph, placement, node_set.costs, asked):
                    found.append(priced(self.graph, placement, node_set, objective))
                    break
        return sorted(found, key=rank)

    def adjusted(self, present: Plan, node_set: NodeSet, before: Costs, band: float) -> PricedPlan | None:
        """D3's local adjustment of the present plan to the node set's costs; `before` are those it was made with.

        None when the outcome breaks a constraint.
        """
        constraints = (*constraints_of(self.graph, self.plan_request.constraints), *node_set.constraints)
        affected = hpa.affected(self.graph, present.placement, before, node_set.costs, band)
        try:
            placement = hpa.adjust(self.graph, present.placement, node_set.costs, affected, constraints)
        except Infeasible:
            return None
        return priced(self.graph, placement, node_set, self.plan_request.parsed_objective())

    def alone(self, *, constrained: bool = True) -> dict[Tier, PricedPlan]:
        """Each tier by itself at its cheapest, where the constraints allow it; or whatever the plan request forbids."""
        constraints = constraints_of(self.graph, self.plan_request.constraints) if constrained else ()
        return {tier: plan for tier in _ALONE if (plan := self._alone(tier, constraints)) is not None}

    def _alone(self, tier: Tier, constraints: Sequence[Constraint]) -> PricedPlan | None:
        """The tier by itself on its cheapest node, by number where two are equal; sets by their bounds, if known."""
        best: tuple[float, int, PricedPlan] | None = None
        sets = self.bounds or [(NO_BOUND, node_set.nodes) for node_set in self.node_sets]
        # a node that does not serve makes nothing cheaper
        able = [(bound.alone, n) for n, (bound, nodes) in enumerate(sets) if nodes.keys() == {Tier.DEVICE, tier}]
        for least, number in sorted(able):
            if best is not None and least > best[0] * (1 + ROUNDING):
                break
            node_set = self.node_sets[number]
            with suppress(Infeasible):
                placement = _ALONE[tier](self.graph, node_set.costs, (*constraints, *node_set.constraints))
                plan = priced(self.graph, placement, node_set, self.plan_request.parsed_objective())
                best = min(best or (plan.value, number, plan), (plan.value, number, plan), key=lambda one: one[:2])
        return best[2] if best is not None else None

    def in_brief(self, best: PricedPlan) -> tuple[str, None]:
        """A choice's price by itself, in words."""
        return f"predicted {self.plan_request.parsed_objective().phrase(best.value)}", None

    def compared(self, best: PricedPlan, priced_plans: Sequence[PricedPlan]) -> tuple[str, dict[str, Any] | None]:
        """A choice's price beside that of each tier alone, in words, and the next best there is, for the plan."""
        objective = self.plan_request.parsed_objective()
        text, alone = objective.text, self.alone()
        is_free = not constraints_of(self.graph, self.plan_request.constraints)
        forbidden = {} if is_free else {t: c for t, c in self.alone(constrained=False).items() if t not in alone}
        parts = [
            f"predicted {objective.phrase(best.value)}",
            *(f"{t.label} alone {text(c.value)}" for t, c in alone.items()),
            *(f"{t.label} alone, which the constraints forbid, {text(c.value)}" for t, c in forbidden.items()),
        ]
        if self.plan_request.objective != "latency":
            parts.append(f"{best.predicted.seconds * 1e3:.1f} ms latency")
        if objective.period and best.predicted.bottleneck:
            parts.append(f"the period is that of {best.predicted.bottleneck}")
        if best.gap:
            parts.append(f"proved to within {best.gap:.2%} of the optimum")
        if shared := words(self.graph, best):
            parts.append(shared)
        is_best = (best.placement, best.nodes, best.tiling)
        others = [c for c in (*priced_plans, *alone.values()) if (c.placement, c.nodes, c.tiling) != is_best]
        other = min(others, key=rank, default=None)
        if other is not None and other not in alone.values():
            tiled = " in tiles" if other.tiling else ""
            parts.append(f"next best {kind_of(self.graph, other.placement)}{tiled} {text(other.value)}")
        return ", ".join(parts), _runner_up(self.graph, other) if other else None


@dataclass(slots=True)
class Solved:
    """A problem as it was posed from what it `rests_on`; its plans are made when they are first asked for."""

    rests_on: tuple[Any, ...]
    problem: PlanningProblem
    _make: Callable[[], Sequence[PricedPlan]]
    _plans: Sequence[PricedPlan] | None = None

    @property
    def plans(self) -> Sequence[PricedPlan]:
        """Best plans first. Raises what `PlanningProblem.priced_plans` does."""
        if self._plans is None:
            self._plans = self._make()
        return self._plans


def planning_problem(
    registry: Registry,
    static_costs: StaticCosts,
    binding: StreamBinding,
    graph: ModelGraph,
    plan_request: PlanRequest,
    tiers: Mapping[Tier, Sequence[NodeId]],
    snapshots: Mapping[NodeId, NodeSnapshot],
    pools: WorkerPools,
) -> PlanningProblem:
    """Pose the problem for the usable nodes of each tier under these snapshots, with their worker pools."""
    objective, is_exact = plan_request.parsed_objective(), plan_request.planner == EXACT
    known = [node for usable in tiers.values() for node in usable]
    seconds = {node: registry.seconds(binding, snapshots[node]) for node in known}
    links = {node: snapshots[node].available_link for node in known}
    ratios = pools.ratios if plan_request.codecs else {}
    pools = replace(pools, ratios=ratios, worth=objective.coding_worth, draws=static_costs.draws)
    sets = list(combinations(tiers, plan_request.constraints.exclude_nodes))

    def made(number: int) -> NodeSet:
        nodes = sets[number]
        costs = objective.judging(registry.costs(binding, nodes, snapshots, seconds, links))
        costs = costs if plan_request.codecs else replace(costs, fixed=PlannedCodecs())
        node_set = static_costs.node_set(nodes, costs, registry.kept_from_decoding(binding, nodes))
        return pools.joined(graph, node_set, choose=is_exact)

    family, bounds = all_cuts_of(graph), None
    if is_exact and family is not None and not pools.workers and not objective.period:
        terms = {n: static_costs.terms(n, seconds[n], links[n], snapshots[n].overheads_s, objective) for n in known}
        nbytes = fewest_bytes(graph, ratios, family.nbytes)
        found = bounds_of_each(graph, family, nbytes, objective, sets, terms, static_costs.links)
        is_free = not static_costs.memory_bytes and not constraints_of(graph, plan_request.constraints)
        is_free &= not any(registry.kept_from_decoding(binding, nodes) for nodes in sets)
        # only bounds that are reached say which nodes the best plan has
        is_reached = objective.latency > 0 and not objective.energy and not is_coded(ratios)
        bounds = list(zip(without_doubles(found, sets) if is_free and is_reached else found, sets, strict=True))
    return PlanningProblem(graph, Lazily(len(sets), made), plan_request, bounds)


def _runner_up(graph: ModelGraph, other: PricedPlan) -> dict[str, Any]:
    return {
        "kind": kind_of(graph, other.placement),
        "nodes": {tier.label: node for tier, node in other.nodes.items()},
        "value": other.value,
        "predicted": other.predicted.to_json(),
    }
