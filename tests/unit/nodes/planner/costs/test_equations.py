"""The equations by themselves: whose parts are in them."""

from __future__ import annotations

from nodes.planner.costs.block_seconds import BlockSeconds, StageSeconds
from nodes.planner.costs.cost_filter import Part
from nodes.planner.costs.node_costs import NodeCosts
from pipeline.plan import NodeId
from pipeline.profiling.profile import Profile
from tests.unit.nodes.tier.machine.test_tier import GRAPH

NODES = tuple(map(NodeId, ("edge-1", "worker-1", "worker-2")))
FORESEEN = StageSeconds(0.1)
TIMES = (0.0, *(0.01 for _ in GRAPH.blocks[1:]))
BASIS = Profile("chain", GRAPH.digest, "tf", "2", 1, "x86", TIMES, TIMES, 1.0, 0.0)


def after_reports(*machines: str) -> NodeCosts:
    """Of two nodes that take three times as long as foreseen; the third has computed nothing."""
    costs = NodeCosts(BlockSeconds({}, {GRAPH.digest: GRAPH}))
    for node, machine in zip(NODES, machines, strict=True):
        costs.learn_machine(node, machine)
    for now in map(float, range(20)):
        for node in NODES[:2]:
            terms = costs.computing(node, "chain", BASIS, FORESEEN)
            costs.filter.observe(("segment", node, "chain"), terms, 0.3, 0.04, now)
    return costs


def test_the_load_of_a_machine_is_charged_to_all_nodes_on_it() -> None:
    apart, together = (
        after_reports(*machines).factor(NODES[2], "chain", BASIS) for machines in (("a", "b", "c"), ("a", "a", "a"))
    )
    assert 1.0 < apart < together < 3.0


def test_a_node_by_itself_has_no_load_of_its_machine() -> None:
    costs = after_reports("a", "a", "b")
    assert costs.load(NODES[0]) == (Part("*@a", "load"),)
    assert costs.load(NODES[2]) == ()
    costs.learn_machine(NODES[1], "")
    assert costs.load(NODES[0]) == ()


def test_the_probes_of_an_idle_node_say_that_its_processor_came_back() -> None:
    costs, node = NodeCosts(BlockSeconds({}, {GRAPH.digest: GRAPH})), NODES[0]
    costs.learn_probe(node, 0.02, 0.0)

    def computes(slower: float, since: int) -> None:
        for now in map(float, range(since, since + 20)):
            terms = costs.computing(node, "chain", BASIS, FORESEEN)
            costs.filter.observe(("segment", node, "chain"), terms, 0.1 * slower, 0.04, now)

    computes(1.0, 1)
    computes(3.0, 21)
    for now in range(41, 51):
        costs.learn_probe(node, 0.06, float(now))
    assert costs.factor(node, "chain", BASIS) > 2.5
    for now in range(51, 54):
        costs.learn_probe(node, 0.02, float(now))
    assert costs.factor(node, "chain", BASIS) < 1.5
