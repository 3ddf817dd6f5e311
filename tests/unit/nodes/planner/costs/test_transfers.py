"""A plan's legs: what passes from node to node, and back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nodes.planner.costs.transfers import legs_of
from pipeline.coding import CodecCosts, CodecSpeed, PlannedCodecs
from pipeline.cost import Costs, Link, predict
from pipeline.placement import Placement
from tests.graphs import chain
from tests.unit.nodes.tier.machine.test_tier import C, D, E, plan

GRAPH = chain(1000, 1000, 1000, 1000, outputs=(2, 3))
KNOWN = CodecCosts(
    {tensor: {"bitmap": 2.0} for tensor in range(4)}, {tier: {"bitmap": CodecSpeed(1e4, 2e4)} for tier in (D, E, C)}
)
COSTS = Costs({tier: [0.0] * 4 for tier in (D, E, C)}, Link(1e6, 0.0), Link(1e6, 0.0), codecs=KNOWN)


@pytest.mark.parametrize(
    ("placement", "back"),
    [
        ((D, D, E, C), (500, 0.15)),  # of the cloud's output alone
        ((D, D, C, C), (1500, 0.15)),  # of both, the other one uncoded
        ((D, E, E, E), (1500, 0.15)),
    ],
)
def test_the_way_back_has_the_coding_of_the_last_tiers_outputs(placement: Placement, back: tuple[int, float]) -> None:
    codecs = PlannedCodecs({1: "bitmap"}, {3: "bitmap"})
    predicted = predict(GRAPH, placement, replace(COSTS, fixed=codecs))
    *_, last = legs_of(replace(plan(1, placement, graph=GRAPH), predicted=predicted, codecs=codecs))
    assert (last.name, last.nbytes) == ("return", back[0])
    assert last.coding_s == pytest.approx(back[1])
