"""What a leg takes whose tensors go directly: its price follows what is measured, whatever the broker's lines take."""

from __future__ import annotations

import pytest

from nodes.planner.costs.block_seconds import BlockSeconds
from nodes.planner.costs.constants import FASTEST, NOISE
from nodes.planner.costs.node_costs import NodeCosts
from nodes.planner.costs.transfers import Leg
from nodes.protocol.messages import LinkMeasured, LinkReport, Report, to_bytes
from nodes.protocol.reports import direct_metric, read_report
from pipeline.plan import NodeId

EDGE, CLOUD = NodeId("edge-1"), NodeId("cloud-1")
LEG = Leg("edge_cloud", EDGE, CLOUD, 1_000_000, 0.0)
SLOW = 12.5e6


def after_reports(leg_s: float, *, direct: bool, number: int = 10) -> float:
    """Seconds foreseen for the leg after reports of it, and of the lines to the broker at 100 Mbit/s."""
    costs = NodeCosts(BlockSeconds({}, {}))
    ends = {EDGE: CLOUD, CLOUD: EDGE}
    for node in ends:
        costs.learn_link(LinkReport(node, "s", SLOW, SLOW, 1e-3), 0.0)
    for now in map(float, range(1, number + 1)):
        for node, other in ends.items():
            rate = SLOW * (1 + now / 1e4)  # another number: it was measured again
            link = LinkMeasured(rate, rate, 1e-3)
            costs.learn(node, Report(link=link, direct=(other,) if direct else ()), [], now)
        costs.filter.observe(("leg", EDGE, CLOUD), costs.way(LEG), leg_s, NOISE, now)
    return costs.filter.seconds(costs.way(LEG))


@pytest.mark.parametrize("leg_s", [0.012, 0.082, 0.3])
def test_a_leg_costs_what_its_direct_way_takes(leg_s: float) -> None:
    assert after_reports(leg_s, direct=True) == pytest.approx(leg_s, rel=0.05)


def test_through_the_broker_its_lines_are_believed_too() -> None:
    assert after_reports(0.162, direct=False) == pytest.approx(0.162, rel=0.05)
    assert after_reports(0.012, direct=False) > 1.05 * after_reports(0.012, direct=True)


def test_a_report_says_to_whom_tensors_go_directly() -> None:
    report = {direct_metric(EDGE): 1, direct_metric(CLOUD): 0, "direct.x y.stands": 1, direct_metric(NodeId("b")): True}
    assert read_report(to_bytes(report)).direct == (EDGE, "b")


def test_a_node_next_to_its_broker_is_credited_with_no_more_than_a_memory() -> None:
    costs = NodeCosts(BlockSeconds({}, {}))
    costs.learn_link(LinkReport(EDGE, "s", 4e9, 4e9, 1e-4), 0.0)
    for now in range(1, 30):
        costs.learn_measured(EDGE, LinkMeasured(1e11 + now, 2e9 + now), float(now))
    link = costs.link(EDGE)
    assert link is not None
    assert link.up_bytes_per_s == pytest.approx(FASTEST)
    assert link.up_bytes_per_s <= FASTEST
    assert link.down_bytes_per_s == pytest.approx(2e9, rel=0.05)
