"""Law 2 on a thousand random graphs: exact equals brute force, whatever the objective and the constraints."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from pipeline.coding import CodecCosts, CodecSpeed
from pipeline.cost import Costs, Link, predict
from pipeline.energy import Draw
from pipeline.errors import Infeasible
from pipeline.graph import ModelGraph
from pipeline.partition import PLANNERS, exact, hpa
from pipeline.partition.constraints import (
    Constraint,
    EnergyLimit,
    Forbid,
    MemoryLimit,
    MinDepth,
    Pin,
    RawStays,
    ShareLimit,
    TimeLimit,
    UploadLimit,
    Uses,
)
from pipeline.partition.objective import LATENCY, THROUGHPUT, Objective
from pipeline.placement import Tier, check
from pipeline.shared_cores import SharedCores
from tests.brute_force import AllPlacements, random_graph
from tests.effort import TIMES, examples

GRAPHS = 1000
SHARDS = 10
ENERGY = Objective(energy=1.0)
WEIGHTED = Objective(latency=1.0, period=0.5, backbone=0.3, price=2.0, energy=0.2)
OBJECTIVES = (LATENCY, THROUGHPUT, ENERGY, WEIGHTED)
"""Each graph has one of them in an ordinary run, and all of them in a longer one."""
TOLERANCE = 5e-6
"""The mixed-integer solver proves 1e-6, and latency decides ties with a weight of 1e-6."""


def random_costs(rng: np.random.Generator, graph: ModelGraph, *, with_codecs: bool = True) -> Costs:
    tiers = [Tier.DEVICE, *(tier for tier in (Tier.EDGE, Tier.CLOUD) if rng.random() < 0.85)]
    seconds = {tier: (10 ** rng.uniform(-4, -1, len(graph))).tolist() for tier in tiers}
    for times in seconds.values():
        times[0] = 0.0
    below, above = (Link(float(10 ** rng.uniform(5, 8)), float(rng.choice([0.0, 1e-3, 2e-2]))) for _ in range(2))
    prices = {tier: float(rng.uniform(0, 1)) for tier in tiers}
    draws = {tier: Draw(float(rng.uniform(0, 20)), float(10 ** rng.uniform(-8, -5))) for tier in tiers}
    together = [tier for tier in tiers if rng.random() < 0.7]
    shared = SharedCores("here", 2.0, {tier: float(rng.uniform(0.3, 1)) for tier in together})
    return Costs(
        seconds,
        below,
        above,
        prices=prices,
        codecs=random_codecs(rng, graph, tiers) if with_codecs else None,
        draws=draws,
        cores=(shared,) if len(together) > 1 else (),
    )


def random_codecs(rng: np.random.Generator, graph: ModelGraph, tiers: Sequence[Tier]) -> CodecCosts | None:
    """Some codecs on some tensors; some nodes do not know one, some are much slower than the next tier's."""
    if rng.random() < 0.3:
        return None
    names = ["bitmap", "bitmap-zstd", "shuffle-zstd"]
    ratios = {
        tensor.id: {name: float(rng.uniform(0.8, 6)) for name in names if rng.random() < 0.7}
        for tensor in graph.tensors
        if rng.random() < 0.8
    }
    speeds = {
        tier: {name: random_speed(rng) for name in names if rng.random() < 0.8} for tier in tiers if rng.random() < 0.9
    }
    return CodecCosts(ratios, speeds)


def random_speed(rng: np.random.Generator) -> CodecSpeed:
    return CodecSpeed(*(10 ** rng.uniform(5, 9.5, 2)).tolist(), *rng.choice([0.0, 1e-5, 1e-3], 2).tolist())


def random_constraints(rng: np.random.Generator, graph: ModelGraph, costs: Costs) -> list[Constraint]:
    """One to three, of sizes that sometimes leave nothing."""
    block = int(rng.integers(1, len(graph)))
    tier = Tier(int(rng.integers(0, 3)))
    lower = Tier(int(rng.integers(0, 2)))
    total = sum(costs.seconds[Tier.DEVICE])
    sizes = sorted(t.nbytes for t in graph.tensors)
    kinds: list[Constraint] = [
        Pin(block, tier),
        Forbid(block, tier),
        RawStays(Tier(int(rng.integers(0, 2)))),
        MinDepth(int(rng.integers(1, 4))),
        UploadLimit(lower, float(rng.choice(sizes) * rng.choice([0.5, 1, 1, 2]))),
        EnergyLimit(float(total * rng.uniform(0, 10))),
        TimeLimit(tier, float(total * rng.uniform(0, 1))),
        ShareLimit(tier, float(rng.uniform(0, 1))),
        MemoryLimit(tier, float(rng.uniform(0, 16e6))),
        Uses(tier),
    ]
    return [kinds[i] for i in rng.choice(len(kinds), int(rng.integers(1, 4)), replace=False)]


def cases(shard: int) -> Iterator[tuple[np.random.Generator, ModelGraph, Costs, AllPlacements]]:
    for seed in range(shard, GRAPHS, SHARDS):
        rng = np.random.default_rng(seed)
        graph = random_graph(rng)
        costs = random_costs(rng, graph)
        yield rng, graph, costs, AllPlacements(graph, costs)


@pytest.mark.parametrize("shard", range(SHARDS))
def test_exact_equals_brute_force_for_every_objective_and_under_constraints(shard: int) -> None:
    infeasible = 0
    for number, (rng, graph, costs, every) in enumerate(cases(shard)):
        constraints = random_constraints(rng, graph, costs)
        for objective in OBJECTIVES if TIMES > 1 else (OBJECTIVES[number % len(OBJECTIVES)],):
            values, judged = every.values(objective), objective.judging(costs)
            allowed = every.allowed(constraints, objective)
            chosen = exact.partition(graph, costs, (), objective)
            check(graph, chosen)
            assert objective.value(predict(graph, chosen, judged)) == pytest.approx(values.min(), rel=TOLERANCE)
            if not allowed.any():
                infeasible += 1
                with pytest.raises(Infeasible):
                    exact.solve(graph, costs, constraints, objective, explain=False)
                continue
            chosen = exact.partition(graph, costs, constraints, objective)
            check(graph, chosen)
            assert objective.value(predict(graph, chosen, judged)) == pytest.approx(
                values[allowed].min(), rel=TOLERANCE
            )
            assert allowed[(every.placed == np.array(chosen)).all(axis=1)].all()
    assert 0 < infeasible < (len(OBJECTIVES) if TIMES > 1 else 1) * GRAPHS / SHARDS / 2


@pytest.mark.parametrize("shard", range(SHARDS))
def test_no_planner_beats_exact_and_all_respect_what_was_asked(shard: int) -> None:
    for rng, graph, costs, every in itertools.islice(cases(shard), 20):
        constraints = random_constraints(rng, graph, costs)
        for asked in ((), constraints):
            allowed = every.allowed(asked)
            best = every.values(LATENCY)[allowed].min(initial=np.inf)
            for name, planner in PLANNERS.items():
                try:
                    placement = planner(graph, costs, asked)
                except Infeasible:
                    continue
                check(graph, placement)
                assert predict(graph, placement, costs).seconds >= best * (1 - TOLERANCE), name
                assert allowed[(every.placed == np.array(placement)).all(axis=1)].all(), name


def test_what_conflicts_is_a_smallest_set() -> None:
    """As many as brute force needs at least, and they do conflict."""
    seen = 0
    for seed in range(examples(150)):
        rng = np.random.default_rng(seed)
        graph = random_graph(rng, most=6)
        costs = random_costs(rng, graph)
        every = AllPlacements(graph, costs)
        constraints = random_constraints(rng, graph, costs) + random_constraints(rng, graph, costs)
        if every.allowed(constraints).any():
            continue
        seen += 1
        smallest = next(
            size
            for size in range(1, len(constraints) + 1)
            if any(not every.allowed(some).any() for some in itertools.combinations(constraints, size))
        )
        with pytest.raises(Infeasible) as caught:
            exact.partition(graph, costs, constraints)
        named = [c for c in dict.fromkeys(constraints) if c.describe(graph) in str(caught.value)]
        assert len(named) == smallest
        assert not every.allowed(named).any()
    assert seen > 15


def test_a_local_adjustment_changes_only_its_neighbourhood_and_stays_a_placement() -> None:
    for seed in range(200):
        rng = np.random.default_rng(seed)
        graph = random_graph(rng)
        costs = random_costs(rng, graph)
        placement = hpa.partition(graph, costs)
        block = int(rng.integers(1, len(graph)))
        slower = {tier: list(times) for tier, times in costs.seconds.items()}
        for times in slower.values():
            times[block] *= float(rng.choice([0.1, 10.0]))
        after = Costs(slower, costs.device_edge, costs.edge_cloud)
        affected = hpa.affected(graph, placement, costs, after)
        assert affected == [block]
        adjusted = hpa.adjust(graph, placement, after, affected)
        check(graph, adjusted)
        may_change = {block, *graph.successors[block], *graph.siblings[block]}
        assert {v for v in range(len(graph)) if adjusted[v] != placement[v]} <= may_change


def test_a_link_within_its_band_affects_nothing_and_beyond_it_the_blocks_at_the_cut() -> None:
    rng = np.random.default_rng(5)
    graph = random_graph(rng)
    costs = random_costs(np.random.default_rng(7), graph)
    placement = (Tier.DEVICE, *[Tier.EDGE] * (len(graph) - 1))
    link = costs.device_edge

    def faster(factor: float) -> Costs:
        return Costs(costs.seconds, Link(link.bandwidth_bytes_per_s * factor, link.latency_s), costs.edge_cloud)

    assert hpa.affected(graph, placement, costs, faster(1.19)) == []
    assert hpa.affected(graph, placement, costs, faster(0.5)) == list(graph.successors[0])
