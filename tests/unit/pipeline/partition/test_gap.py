"""No optimum is said to be proved further than it is: every part that was not searched to its end counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import scipy.optimize

from pipeline.cost import Costs, Link, predict
from pipeline.graph import ModelGraph
from pipeline.partition import exact, search
from pipeline.partition.constraints import Constraint, UploadLimit
from pipeline.partition.objective import LATENCY, Objective
from pipeline.partition.priced_plan import NodeSet
from pipeline.partition.search import choose
from pipeline.placement import Tier
from tests.graphs import chain

D, E, C = Tier
GRAPH = chain(600_000, 100_000, 100_000, 100_000)
LINK = Link(1e7, 1e-3)
COSTS = Costs({D: [0.0, 0.5, 0.5, 0.5], E: [0.0, 0.1, 0.1, 0.1], C: [0.0, 0.2, 0.2, 0.2]}, LINK, LINK)
Solver = Callable[[ModelGraph, Costs, Sequence[Constraint], Objective], exact.Solution]


def test_a_gap_is_what_lies_between_the_bound_and_the_value() -> None:
    assert exact.gap_between(9.0, 10.0) == pytest.approx(0.1)
    assert exact.gap_between(10.0, 10.0) == 0.0
    assert exact.gap_between(11.0, 10.0) == 0.0
    assert exact.gap_between(0.0, 0.0) == 0.0


def test_the_part_without_the_edge_may_hide_a_better_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """With handling at the edge, two programs are solved; the dearer one's gap counts, too."""
    costs = replace(COSTS, send_receive_overhead={E: 0.01})
    solve: Solver = exact._solve_uncharged

    def unsure_without_edge(graph: ModelGraph, costs: Costs, *rest: object) -> exact.Solution:
        found = solve(graph, costs, *rest)  # type: ignore[arg-type]
        return found if E in costs.seconds else exact.Solution(found.placement, 0.9)

    assert exact.programmed(GRAPH, costs, ()).gap == 0.0
    monkeypatch.setattr(exact, "_solve_uncharged", unsure_without_edge)
    found = exact.programmed(GRAPH, costs, ())
    assert E in found.placement
    without = solve(GRAPH, replace(costs, seconds={D: costs.seconds[D], C: costs.seconds[C]}), (), LATENCY)
    hidden = 0.1 * LATENCY.value(predict(GRAPH, without.placement, costs))
    assert found.gap == pytest.approx(1 - hidden / LATENCY.value(predict(GRAPH, found.placement, costs)))


def test_a_search_that_finds_nothing_within_its_branches_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    solve, asked = scipy.optimize.milp, list[dict[str, Any]]()

    def with_nothing_at_first(*args: Any, options: dict[str, Any], **more: Any) -> Any:
        asked.append(dict(options))
        found = solve(*args, options=options, **more)
        if len(asked) == 1:
            found.x, found.status = None, 1
        return found

    monkeypatch.setattr(scipy.optimize, "milp", with_nothing_at_first)
    limit = UploadLimit(D, 150_000)
    assert exact.programmed(GRAPH, COSTS, [limit]).placement == exact.solve(GRAPH, COSTS, [limit]).placement
    assert ["node_limit" in options for options in asked] == [True, False]


def test_nodes_that_were_not_searched_to_the_end_count_in_the_best_choices_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = replace(COSTS, seconds={**COSTS.seconds, E: [0.0, 0.15, 0.15, 0.15]})
    candidates = [NodeSet({D: "d", E: name, C: "c"}, costs) for name, costs in (("fast", COSTS), ("slow", slow))]
    assert [choice.gap for choice in choose(GRAPH, candidates)] == [0.0, 0.0]
    monkeypatch.setattr(search, "all_cuts_of", lambda _: None)  # as if there were too many
    solve, unsure = exact.solve, {slow.seconds[E][1]: 0.5}

    def unsure_of_some(graph: ModelGraph, costs: Costs, *rest: object, **more: object) -> exact.Solution:
        found = solve(graph, costs, *rest, **more)  # type: ignore[arg-type]
        return replace(found, gap=unsure.get(costs.seconds[E][1], 0.0))

    monkeypatch.setattr(exact, "solve", unsure_of_some)
    assert next(iter(choose(GRAPH, candidates))).gap == 0.0, "the bound of both together proves the first"
    unsure[COSTS.seconds[E][1]] = 0.1  # of that bound, and of the first
    best, other = choose(GRAPH, candidates)
    assert (best.nodes[E], other.nodes[E]) == ("fast", "slow")
    assert best.gap == pytest.approx(max(0.1, 1 - 0.5 * other.value / best.value))
    assert other.gap == pytest.approx(0.5)
