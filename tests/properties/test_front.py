"""Pareto fronts against all placements of small graphs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cost import predict
from pipeline.errors import PlanError
from pipeline.partition.front import MEASURES, front, measures
from pipeline.partition.objective import NAMED
from pipeline.partition.priced_plan import NodeSet
from pipeline.placement import Tier
from tests.brute_force import AllPlacements, random_graph
from tests.effort import examples
from tests.properties.test_planners import random_costs

PAIRS = [(a, b) for number, a in enumerate(MEASURES) for b in list(MEASURES)[number + 1 :]]
_CLOSE = 1e-3
"""Weight and tolerance with which the second measure decides ties."""


@settings(max_examples=examples(12))
@given(seed=st.integers(0, 2**32 - 1), by=st.sampled_from(PAIRS))
def test_a_front_is_what_no_placement_dominates(seed: int, by: tuple[str, str]) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, most=6)
    costs = NAMED[by[0]].judging(random_costs(rng, graph))
    nodes = {tier: tier.label for tier in costs.seconds}
    found = front(graph, [NodeSet(nodes, costs)], by, most=1000)
    first, second = (MEASURES[name].of for name in by)
    placements = [tuple(Tier(int(tier)) for tier in row) for row in AllPlacements(graph, costs).placed]
    every = [(first(p), second(p)) for p in (predict(graph, placement, costs) for placement in placements)]
    for plan in found:
        a, b = first(plan.predicted), second(plan.predicted)
        assert not any(x < a * (1 - _CLOSE) and y < b * (1 - _CLOSE) for x, y in every)
    for x, y in every:  # each is dominated by one that was found
        assert any(
            first(plan.predicted) <= x * (1 + _CLOSE) + 1e-12 and second(plan.predicted) <= y * (1 + _CLOSE) + 1e-12
            for plan in found
        )
    assert [first(plan.predicted) for plan in found] == sorted(first(plan.predicted) for plan in found)


def test_a_front_needs_two_different_measures() -> None:
    assert measures("energy, latency") == ("latency", "energy")
    for wrong in ("latency", "latency,latency", "latency,joy"):
        with pytest.raises(PlanError, match="two of latency, throughput"):
            measures(wrong)
