"""Law 2: the exact planner's cost equals brute force, is never above a baseline's, and respects what was asked."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cost import Costs, Link, predict
from pipeline.errors import Infeasible, PlanError
from pipeline.graph import Block, ModelGraph, Tensor
from pipeline.partition import PLANNERS, Constraint, exact, planner
from pipeline.partition.constraints import EnergyLimit, Forbid, MemoryLimit, Pin, UploadLimit, Uses, broken
from pipeline.partition.cut_family import all_cuts_of
from pipeline.partition.exact import partition
from pipeline.partition.narrowing import narrowed
from pipeline.partition.objective import LATENCY, THROUGHPUT, Objective
from pipeline.partition.program import PROOF, TIE
from pipeline.placement import Placement, Tier, check
from pipeline.shared_cores import SharedCores
from tests.effort import examples
from tests.graphs import all_placements, chain, costs, graphs
from tests.properties.test_search import Nodes

laws = settings(max_examples=examples(45))
OBJECTIVES = [LATENCY, THROUGHPUT, Objective(latency=1, period=1), Objective(latency=1, energy=0.1, price=0.1)]


def seconds(graph: ModelGraph, placement: Placement, priced: Costs) -> float:
    return predict(graph, placement, priced).seconds


def satisfies(placement: Placement, constraints: Sequence[Constraint]) -> bool:
    pins = all(placement[c.block] == c.tier for c in constraints if isinstance(c, Pin))
    return pins and all(placement[c.block] != c.tier for c in constraints if isinstance(c, Forbid))


@laws
@given(st.data())
def test_exact_costs_what_brute_force_finds(data: st.DataObject) -> None:
    graph = data.draw(graphs())
    priced = data.draw(costs(graph))
    chosen = partition(graph, priced)
    check(graph, chosen)
    best = min(seconds(graph, p, priced) for p in all_placements(graph, frozenset(priced.seconds)))
    assert seconds(graph, chosen, priced) == pytest.approx(best, rel=2 * TIE, abs=1e-15)


@laws
@given(st.data())
def test_exact_under_pins_and_prohibitions_costs_what_brute_force_finds(data: st.DataObject) -> None:
    graph = data.draw(graphs(max_blocks=7))
    priced = data.draw(costs(graph))
    block, tier = st.integers(0, len(graph) - 1), st.sampled_from(Tier)
    constraints: list[Constraint] = [Pin(*pin) for pin in data.draw(st.dictionaries(block, tier, max_size=2)).items()]
    constraints += [Forbid(*pair) for pair in data.draw(st.frozensets(st.tuples(block, tier), max_size=4))]
    allowed = [p for p in all_placements(graph, frozenset(priced.seconds)) if satisfies(p, constraints)]
    if not allowed:
        with pytest.raises(Infeasible):
            partition(graph, priced, constraints)
        return
    chosen = partition(graph, priced, constraints)
    check(graph, chosen)
    assert satisfies(chosen, constraints)
    best = min(seconds(graph, p, priced) for p in allowed)
    assert seconds(graph, chosen, priced) == pytest.approx(best, rel=2 * TIE, abs=1e-15)


@laws
@given(st.data())
def test_what_is_better_than_a_narrowed_placement_lies_within_its_intervals(data: st.DataObject) -> None:
    graph = data.draw(graphs())
    priced = data.draw(costs(graph).filter(lambda c: len(c.seconds) == len(Tier)))
    if data.draw(st.booleans()):  # shared cores are the bottleneck
        fast = Link(1e12, 0.0)
        shared = SharedCores("here", 4.0, dict.fromkeys(Tier, data.draw(st.sampled_from([0.7, 1.0]))))
        priced = replace(priced, device_edge=fast, edge_cloud=fast, cores=(shared,))
    known = (Tier.DEVICE,) * len(graph)
    within = narrowed(graph, THROUGHPUT.judging(priced), (), THROUGHPUT, known)

    def period(placement: Placement) -> float:
        return THROUGHPUT.value(predict(graph, placement, priced))

    check(graph, within.placement)
    assert period(within.placement) <= period(known)
    for placement in all_placements(graph, frozenset(Tier)):
        assert within.bound <= period(placement) * (1 + PROOF)
        if period(placement) < period(within.placement) * (1 - 2 * PROOF):
            assert within.first is not None
            assert within.second is not None
            for lower, (least, most) in zip((Tier.DEVICE, Tier.EDGE), (within.first, within.second), strict=True):
                inside = np.array(placement) <= lower
                assert (inside | ~least).all()
                assert (most | ~inside).all()


@laws
@given(graphs(), st.integers(0, 2**32 - 1), st.sampled_from(OBJECTIVES))
def test_a_program_costs_what_all_pairs_of_cuts_do(graph: ModelGraph, seed: int, objective: Objective) -> None:
    """With codecs, draws and limits: what is priced at once and what is solved as a program are two ways to say it."""
    draw = random.Random(seed)
    node_set = draw.choice(Nodes(graph, draw, 1, 1, slowest_codec=6).candidates())
    if draw.random() < 0.5 and len(node_set.costs.seconds) > 1:  # links so fast that shared cores are the bottleneck
        cores = SharedCores("here", 4.0, {tier: draw.choice([0.7, 1.0]) for tier in node_set.costs.seconds})
        fast = Link(1e12, 0.0)
        node_set = replace(node_set, costs=replace(node_set.costs, device_edge=fast, edge_cloud=fast, cores=(cores,)))
    priced = objective.judging(node_set.costs)
    limits = [UploadLimit(Tier.DEVICE, 10 ** draw.uniform(4, 6)), MemoryLimit(Tier.EDGE, 10 ** draw.uniform(5, 7))]
    limits += [EnergyLimit(10 ** draw.uniform(-3, 0)), Uses(Tier.CLOUD), Forbid(draw.randrange(len(graph)), Tier.EDGE)]
    asked = draw.sample(limits, draw.randrange(3))
    assert all_cuts_of(graph) is not None
    try:
        programmed = exact.programmed(graph, priced, asked, objective).placement
    except Infeasible:
        with pytest.raises(Infeasible):
            exact.solve(graph, priced, asked, objective)
        return
    chosen = exact.solve(graph, priced, asked, objective).placement
    assert not broken(graph, chosen, priced, asked)
    least = objective.value(predict(graph, programmed, priced))
    assert objective.value(predict(graph, chosen, priced)) == pytest.approx(least, rel=2 * PROOF, abs=1e-15)


@pytest.mark.parametrize("tiers", [(Tier.DEVICE, Tier.EDGE), (Tier.DEVICE, Tier.CLOUD), tuple(Tier)])
def test_a_program_knows_that_cores_are_shared(tiers: tuple[Tier, ...]) -> None:
    graph, fast = chain(*[10] * 7), Link(1e12, 0.0)
    shared = SharedCores("here", 4.0, dict(zip(tiers, (1.0, 0.8, 0.6), strict=False)))
    seconds = {tier: [0.0, *[0.9 + 0.1 * tier] * 6] for tier in tiers}
    for priced in (Costs(seconds, fast, fast), Costs(seconds, fast, fast, cores=(shared,))):
        least = min(predict(graph, placement, priced).period_s for placement in all_placements(graph, frozenset(tiers)))
        for found in (exact.programmed(graph, priced, (), THROUGHPUT), exact.solve(graph, priced, (), THROUGHPUT)):
            assert predict(graph, found.placement, priced).period_s == pytest.approx(least, rel=1e-5)
            assert found.gap == 0.0


@laws
@given(st.data())
def test_exact_is_never_above_a_baseline(data: st.DataObject) -> None:
    graph = data.draw(graphs(max_blocks=30))
    priced = data.draw(costs(graph))
    chosen = seconds(graph, partition(graph, priced), priced)
    for name, baseline in PLANNERS.items():
        try:
            single = baseline(graph, priced)
        except Infeasible:
            assert name.partition("-")[0] not in {tier.label for tier in priced.seconds}
        else:
            assert chosen <= seconds(graph, single, priced) * (1 + 2 * TIE) + 1e-15


@given(graphs())
def test_what_costs_nothing_anywhere_stays_on_the_device(graph: ModelGraph) -> None:
    free = Link(float("inf"), 0.0)
    nothing = Costs({tier: [0.0] * len(graph) for tier in Tier}, free, free)
    assert partition(graph, nothing) == (Tier.DEVICE,) * len(graph)


@laws
@given(st.data())
def test_the_same_costs_give_the_same_placement(data: st.DataObject) -> None:
    graph = data.draw(graphs())
    priced = data.draw(costs(graph))
    assert partition(graph, priced) == partition(graph, priced)


def test_hours_and_microseconds_in_one_model_do_not_blur_the_optimum() -> None:
    graph = chain(1000, 1000, 1000, 1000)
    times: Mapping[Tier, list[float]] = {
        Tier.DEVICE: [0.0, 3e-6, 2e-6, 3600.0],
        Tier.EDGE: [0.0, 1e-6, 2.1e-6, 1e-6],
        Tier.CLOUD: [0.0, 3600.0, 3600.0, 3600.0],
    }
    link = Link(1e12, 0.0)
    assert partition(graph, Costs(times, link, link)) == (Tier.DEVICE, Tier.EDGE, Tier.EDGE, Tier.EDGE)


def test_a_thousand_blocks_with_skips_are_planned_in_well_under_a_second() -> None:
    random = np.random.default_rng(7)
    count = 1000
    tensors = tuple(Tensor(i, f"t{i}", (1, int(random.integers(1_000, 800_000))), "float32") for i in range(count))
    blocks = tuple(
        Block(i, f"b{i}", "Add", (), tuple(sorted({i - 1, max(0, i - 3)})) if i else (), (i,)) for i in range(count)
    )
    graph = ModelGraph("skips", "0", tensors, blocks, (0,), (count - 1,))
    base = random.uniform(1e-5, 1e-3, count)
    times = {tier: (base * factor).tolist() for tier, factor in zip(Tier, (10, 3, 1), strict=True)}
    priced = Costs(times, Link(1e7, 2e-3), Link(3e6, 2e-2))
    chosen = partition(graph, priced)
    check(graph, chosen)
    for name in ("device-only", "edge-only", "cloud-only"):
        assert seconds(graph, chosen, priced) <= seconds(graph, planner(name)(graph, priced), priced)


def test_an_infeasible_wish_names_both_blocks() -> None:
    graph = chain(10, 10, 10, 10)
    link = Link(1e6, 0.0)
    priced = Costs({tier: [1.0] * 4 for tier in Tier}, link, link)
    with pytest.raises(
        Infeasible, match=r"these 2 constraints conflict: block 'b1' runs on the edge; block 'b3' runs on the device"
    ):
        partition(graph, priced, [Pin(1, Tier.EDGE), Forbid(2, Tier.CLOUD), Pin(3, Tier.DEVICE)])


def test_a_pin_to_a_tier_without_a_node_says_so() -> None:
    graph = chain(10, 10)
    link = Link(1e6, 0.0)
    priced = Costs({Tier.DEVICE: [1.0, 1.0]}, link, link)
    with pytest.raises(Infeasible, match=r"cannot be had: block 'b1' runs on the cloud .* the cloud has no node"):
        partition(graph, priced, [Pin(1, Tier.CLOUD)])
    with pytest.raises(Infeasible, match="not everything on the edge: block 'b1' does not run on the edge"):
        planner("edge-only")(
            graph,
            Costs({Tier.DEVICE: [1.0, 1.0], Tier.EDGE: [1.0, 1.0]}, link, link),
            [Forbid(1, Tier.EDGE)],
        )


def test_a_constraint_on_a_block_that_is_not_there_is_refused() -> None:
    graph = chain(10, 10)
    link = Link(1e6, 0.0)
    with pytest.raises(PlanError, match="names block 5"):
        partition(graph, Costs({Tier.DEVICE: [1.0, 1.0]}, link, link), [Pin(5, Tier.DEVICE)])


def test_an_unknown_planner_is_answered_with_the_known_ones() -> None:
    with pytest.raises(PlanError, match="unknown planner 'hpo': exact, hpa"):
        planner("hpo")
