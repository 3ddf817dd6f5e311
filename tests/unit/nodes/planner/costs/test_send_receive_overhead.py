"""What nodes take to send and receive, from what frames took between them."""

from __future__ import annotations

import pytest

from nodes.planner.costs.constants import FADING, LEAST_STEP_S
from nodes.planner.costs.send_receive_overhead import SendReceiveOverhead
from pipeline.plan import NodeId

DEVICE, EDGE, CLOUD, OTHER = map(NodeId, ("device-1", "edge-1", "cloud-1", "edge-2"))
ROUNDS = 60
TOOK = {DEVICE: 0.02, EDGE: 0.01, CLOUD: 0.004}


def circle(overhead: SendReceiveOverhead, *nodes: NodeId, rounds: int = ROUNDS, clock_s: float = 0.0) -> None:
    """Frames go from node to node and back to the first; the second one's clock is `clock_s` ahead."""
    took = {}
    for sender, receiver in zip(nodes, (*nodes[1:], nodes[0]), strict=True):
        ahead_s = clock_s * ((receiver == nodes[1]) - (sender == nodes[1]))
        took[sender, receiver] = TOOK[sender] + TOOK[receiver] + ahead_s
    for _ in range(rounds):
        overhead.learn(took)


def test_three_nodes_in_a_circle_are_told_apart() -> None:
    overhead = SendReceiveOverhead()
    circle(overhead, DEVICE, EDGE, CLOUD)
    for node, seconds in TOOK.items():
        assert overhead.seconds_of(node) == pytest.approx(seconds, abs=2 * LEAST_STEP_S)


def test_two_nodes_share_what_their_ways_take_until_one_is_seen_with_another() -> None:
    overhead = SendReceiveOverhead()
    circle(overhead, DEVICE, EDGE)
    assert [overhead.seconds_of(node) for node in (DEVICE, EDGE)] == pytest.approx([0.015, 0.015], abs=LEAST_STEP_S)
    for _ in range(3):
        circle(overhead, DEVICE, CLOUD)
        circle(overhead, DEVICE, EDGE, CLOUD)
    assert overhead.seconds_of(DEVICE) > overhead.seconds_of(EDGE) > overhead.seconds_of(CLOUD)


def test_clocks_that_differ_change_nothing_in_the_sum() -> None:
    overhead = SendReceiveOverhead()
    circle(overhead, DEVICE, EDGE, clock_s=0.005)
    assert sum(overhead.seconds_of(node) for node in (DEVICE, EDGE)) == pytest.approx(0.03, abs=2 * LEAST_STEP_S)


def test_little_is_nothing_and_less_than_nothing_too() -> None:
    overhead = SendReceiveOverhead()
    for _ in range(ROUNDS):
        overhead.learn({(DEVICE, EDGE): 1.5 * LEAST_STEP_S, (EDGE, DEVICE): 1.5 * LEAST_STEP_S})
        overhead.learn({(CLOUD, OTHER): -0.1})
    assert [overhead.seconds_of(node) for node in (DEVICE, EDGE, CLOUD, OTHER)] == [0.0, 0.0, 0.0, 0.0]


def test_noise_moves_nothing() -> None:
    overhead = SendReceiveOverhead()
    circle(overhead, DEVICE, EDGE)
    before = overhead.seconds_of(DEVICE)
    for number in range(ROUNDS):
        overhead.learn({(DEVICE, EDGE): 0.03 * (1.1 if number % 2 else 0.9)})
        assert overhead.seconds_of(DEVICE) == before


def test_a_node_that_was_never_seen_takes_the_least_of_the_others() -> None:
    overhead = SendReceiveOverhead()
    assert overhead.seconds_of(OTHER) == 0.0
    circle(overhead, DEVICE, EDGE, CLOUD)
    assert overhead.seconds_of(OTHER) == overhead.seconds_of(CLOUD) < overhead.seconds_of(EDGE)


def test_a_node_at_rest_follows_its_processor_and_is_slowly_forgotten() -> None:
    overhead = SendReceiveOverhead()
    circle(overhead, DEVICE, EDGE)
    slow = overhead.seconds_of(EDGE)
    overhead.rest(EDGE, probe_s=0.3)
    overhead.rest(EDGE, probe_s=0.32)
    assert overhead.seconds_of(EDGE) == slow
    overhead.rest(EDGE, probe_s=0.1)
    assert overhead.seconds_of(EDGE) == pytest.approx(slow / 3, rel=0.05)
    for _ in range(10):
        overhead.rest(DEVICE)
    assert overhead.seconds_of(DEVICE) == pytest.approx(0.015, abs=LEAST_STEP_S)
    for _ in range(round(1 / (1 - FADING))):
        overhead.rest(DEVICE)
    assert overhead.seconds_of(DEVICE) < 0.5 * 0.015
