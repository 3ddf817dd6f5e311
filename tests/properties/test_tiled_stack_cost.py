"""Law 2 for tiles: what is chosen costs what brute force finds, by a price that is reckoned the plain way."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.codecs import CODECS, NONE
from pipeline.coding import CodecSpeed
from pipeline.cost import Costs, Link, predict
from pipeline.energy import Draw
from pipeline.graph import ModelGraph
from pipeline.partition import exact, tiled
from pipeline.partition.objective import LATENCY, THROUGHPUT, Objective
from pipeline.partition.priced_plan import NodeSet
from pipeline.partition.search import choose
from pipeline.placement import NodeId, Tier
from pipeline.shared_cores import SharedCores
from pipeline.tiles import Grid, split, stacks
from pipeline.tiles.split import heights, nbytes, size_of
from pipeline.tiles.tile_layouts import tile_layouts
from pipeline.tiles.tiled_stack_cost import TiledStackCost, balanced, tile_seconds, tiled_stack_cost, tiled_stack_costs
from pipeline.tiles.tiling import TensorCodec, Tiling
from pipeline.tiles.worker_pool import TileNode, WorkerPool
from pipeline.tiles_cost import TilesCost
from tests import naive
from tests.effort import examples
from tests.graphs import all_placements

seeds = given(seed=st.integers(0, 2**32 - 1))
laws = settings(max_examples=examples(20))
OBJECTIVES = [LATENCY, THROUGHPUT, Objective(latency=1, period=2), Objective(latency=1, energy=0.05)]


def random_pool(graph: ModelGraph, draw: random.Random, most_workers: int = 3) -> WorkerPool:
    """A coordinator and workers whose blocks take about what they compute, at speeds of their own."""

    def member(name: str) -> TileNode:
        speed, rate = draw.choice([1.0, 1.0, 0.5, 3.0]), draw.choice([1e6, 1e8, float("inf")])
        seconds = tuple(draw.uniform(0.5, 2.0) * 1e-3 / speed for _ in graph.blocks)
        gather_s = draw.choice([0.0, 1e-3])
        draws = Draw(draw.uniform(0, 20), draw.choice([0.0, 1e-6]))
        return TileNode(
            NodeId(name),
            seconds,
            rate,
            rate * draw.choice([1, 2]),
            draw.choice([0.0, 1e-4]),
            draws,
            gather_s,
            random_speeds(draw),
            draw.choice(["here", "there"]),
            draw.choice([0.25, 0.5, 1.0]),
        )

    coordinator, *workers = (
        member("coordinator"),
        *(member(f"worker-{n}") for n in range(draw.randint(1, most_workers))),
    )
    ratios = {t.id: {codec: draw.uniform(0.8, 6) for codec in CODECS} for t in graph.tensors if draw.random() < 0.7}
    return WorkerPool(coordinator, tuple(workers), ratios if draw.random() < 0.7 else {})


def random_speeds(draw: random.Random) -> dict[str, CodecSpeed]:
    """Codecs of a node, most of which it knows."""
    rates, calls = [1e5, 1e6, 1e9], [0.0, 1e-4]
    return {
        codec: CodecSpeed(*draw.choices(rates, k=2), *draw.choices(calls, k=2))
        for codec in sorted(CODECS)
        if draw.random() < 0.9
    }


def coding(pool: WorkerPool, tensor: int, codec: str, node: str, nbytes: int) -> tuple[float, float, float]:
    """A tile's bytes with this codec, and the seconds that the node would take to encode and to decode it."""
    if codec == NONE:
        return float(nbytes), 0.0, 0.0
    speed = pool.member(NodeId(node)).codecs[codec]
    encode_s = nbytes / speed.encode_bytes_per_s + speed.encode_call_s
    return nbytes / pool.ratios[tensor][codec], encode_s, nbytes / speed.decode_bytes_per_s + speed.decode_call_s


def cheapest(graph: ModelGraph, pool: WorkerPool, tensor: int, *, is_back: bool) -> str:
    """The codec of a tensor's tiles that takes least of coordinator, links and the mean worker."""
    nbytes, members = graph.tensors[tensor].nbytes, (pool.coordinator, *pool.workers)

    def seconds(codec: str) -> float:
        total = 0.0
        for node in pool.workers:
            (sent, encode_s, _), (_, _, decode_s) = (
                coding(pool, tensor, codec, one, nbytes)
                for one in ((node.node, pool.coordinator.node) if is_back else (pool.coordinator.node, node.node))
            )
            up, down = (node, pool.coordinator) if is_back else (pool.coordinator, node)
            total += encode_s + sent / up.up_bytes_per_s + sent / down.down_bytes_per_s + decode_s
        return total

    known = pool.ratios.get(tensor, {})
    able = [c for c, ratio in known.items() if ratio > 1 and all(c in member.codecs for member in members)]
    return min([NONE, *able], key=seconds)


def plain(graph: ModelGraph, pool: WorkerPool, tiling: Tiling) -> TiledStackCost:
    """The price event by event, of the tiles that `split` gives."""
    tile_map = tiling.tile_map(graph)
    stack, coordinator = tile_map.stack, pool.coordinator
    here, own, back, busy = coordinator.node, 0.0, [], {name: [0.0] * 5 for name in tiling.workers}
    free: dict[str, float] = {}
    cores: dict[str, dict[str, float]] = {}
    encoding = sending = up = down = decoding = joules = 0.0
    for node, tile in zip(tiling.workers, tile_map.tiles, strict=True):
        worker = pool.member(node)
        computed = tile_seconds(graph, stack.blocks, tile, worker.seconds)
        joules += worker.draw.watts * computed
        taken = cores.setdefault(worker.machine, {})
        taken[node] = taken.get(node, 0.0) + worker.core_share * computed
        if node == here:
            own += computed
            continue
        sizes = {t: nbytes(graph, t, tile.regions[t]) for t in (*stack.inputs, stack.output)}
        coded = {t: [coding(pool, t, tiling.codec_of(t), n, size) for n in (here, node)] for t, size in sizes.items()}
        sent, encode_s = (sum(coded[t][0][at] for t in stack.inputs) for at in (0, 1))
        decode_s = sum(coded[t][1][2] for t in stack.inputs)
        (returned, _, result_decode_s), (_, result_encode_s, _) = coded[stack.output]
        encoding += encode_s
        sending = max(sending, encoding) + sent / coordinator.up_bytes_per_s
        there = sending + coordinator.latency_s + worker.latency_s + sent / worker.down_bytes_per_s + decode_s
        free[node] = max(there, free.get(node, 0.0)) + computed
        broker = free[node] + result_encode_s + returned / worker.up_bytes_per_s
        back.append((broker + coordinator.latency_s + worker.latency_s, returned, result_decode_s))
        ways = (sent / worker.down_bytes_per_s, returned / worker.up_bytes_per_s)
        for place, spent in enumerate((computed, *ways, decode_s, result_encode_s)):
            busy[node][place] += spent
        up, down, decoding = up + sent, down + returned, decoding + result_decode_s
        joules += (sent + returned) * (coordinator.draw.joules_per_byte + worker.draw.joules_per_byte)
        joules += coordinator.draw.watts * (encode_s + result_decode_s)
        joules += worker.draw.watts * (decode_s + result_encode_s)
    received = decoded = 0.0
    for arrived, returned, decode_s in sorted(back):
        received = max(received, arrived) + returned / coordinator.down_bytes_per_s
        decoded = max(decoded, received) + decode_s
    link_s = (up / coordinator.up_bytes_per_s, down / coordinator.down_bytes_per_s, encoding, decoding)
    on = Counter(member.machine for member in (coordinator, *pool.workers))
    by_machine = [sum(taken.values()) for machine, taken in cores.items() if on[machine] > 1]
    busiest = max(*link_s, *by_machine, *(spent for all_spent in busy.values() for spent in all_spent))
    cores_s = {node: seconds for taken in cores.values() for node, seconds in taken.items() if node != here}
    alone_s = sum(coordinator.seconds[b] for b in stack.blocks)
    alone_joules = coordinator.draw.watts * alone_s
    seconds = max(decoded, own) + coordinator.gather_s
    return TiledStackCost(tiling, seconds, alone_s, own, busiest, joules, alone_joules, cores_s)


def every_tiling(graph: ModelGraph, pool: WorkerPool) -> Iterator[Tiling]:
    """Each stack that reads one tensor (any, where none with its last block does) in each way, shares by speed."""
    found = list(stacks(graph))
    narrow = {stack.last for stack in found if len(stack.inputs) == 1}
    for stack in (one for one in found if len(one.inputs) == 1 or one.last not in narrow):
        size = size_of(graph, stack.output)
        for tile_layout in tile_layouts(pool):
            if len(tile_layout.grid.rows) <= size[0] and len(tile_layout.grid.columns) <= size[1]:
                tile_map = split(graph, stack, tile_layout.grid)
                rows, columns = (tuple(span.size for span in side) for side in (tile_map.rows, tile_map.columns))
                ways = [*((t, False) for t in stack.inputs), (stack.output, True)]
                chosen = ((t, cheapest(graph, pool, t, is_back=is_back)) for t, is_back in ways)
                codecs = tuple(TensorCodec(tensor, codec) for tensor, codec in chosen if codec != NONE)
                yield Tiling(stack.first, stack.last, rows, columns, tile_layout.nodes, codecs)


@laws
@seeds
def test_prices_of_all_stacks_are_those_of_the_tiles_that_split_gives(seed: int) -> None:
    draw = random.Random(seed)
    graph = naive.random_graph(draw)
    pool = random_pool(graph, draw)
    found = {s.tiling: s for s in tiled_stack_costs(graph, pool, most_last_blocks=len(graph))}
    for tiling, priced in found.items():
        wanted = plain(graph, pool, tiling)
        for one in (priced, tiled_stack_cost(graph, pool, tiling)):
            assert one.seconds == pytest.approx(wanted.seconds, rel=1e-9)
            assert one.alone_seconds == pytest.approx(wanted.alone_seconds, rel=1e-9)
            assert one.own_seconds == pytest.approx(wanted.own_seconds, rel=1e-9)
            assert one.busy_seconds == pytest.approx(wanted.busy_seconds, rel=1e-9)
            assert one.joules == pytest.approx(wanted.joules, rel=1e-9)
            assert one.alone_joules == pytest.approx(wanted.alone_joules, rel=1e-9)
            assert one.cores_seconds == pytest.approx(wanted.cores_seconds, rel=1e-9)


@laws
@seeds
def test_the_best_stack_and_grid_cost_what_brute_force_finds(seed: int) -> None:
    draw = random.Random(seed)
    graph = naive.random_graph(draw)
    pool = random_pool(graph, draw)
    found = tiled_stack_costs(graph, pool, most_last_blocks=len(graph))
    most = max((plain(graph, pool, tiling).gain_s for tiling in every_tiling(graph, pool)), default=0.0)
    assert max([0.0, *(s.gain_s for s in found)]) == pytest.approx(max(most, 0.0), abs=1e-12)


@laws
@seeds
def test_balanced_borders_cost_what_brute_force_finds(seed: int) -> None:
    draw = random.Random(seed)
    graph = naive.random_graph(draw)
    pool = random_pool(graph, draw)
    stack = draw.choice(list(stacks(graph)))
    height, width = size_of(graph, stack.output)
    count = draw.randint(1, min(3, height, 1 + len(pool.workers)))
    nodes = tuple(member.node for member in (pool.coordinator, *pool.workers))[:count]
    even = split(graph, stack, Grid((1,) * count, (1,)))
    ways = [*((t, False) for t in stack.inputs), (stack.output, True)]
    codecs = tuple(TensorCodec(t, cheapest(graph, pool, t, is_back=is_back)) for t, is_back in ways)
    given = tiled_stack_cost(
        graph, pool, Tiling(stack.first, stack.last, tuple(r.size for r in even.rows), (width,), nodes, codecs)
    )
    best = balanced(graph, pool, given)
    splits = [(a, b - a, height - b) for a in range(1, height) for b in range(a + 1, height)] if count == 3 else []
    splits_2 = [(a, height - a) for a in range(1, height)] if count == 2 else []
    for rows in (*splits, *splits_2):
        tiling = Tiling(stack.first, stack.last, rows, (width,), nodes, codecs)
        assert tuple(span.stop for span in heights(rows))[-1] == height
        assert best.seconds <= plain(graph, pool, tiling).seconds * (1 + 1e-9)


@settings(max_examples=examples(12))
@given(seed=st.integers(0, 2**32 - 1), objective=st.sampled_from(OBJECTIVES))
def test_placement_and_tiles_together_cost_what_brute_force_finds(seed: int, objective: Objective) -> None:
    draw = random.Random(seed)
    graph = naive.random_graph(draw)
    while len(graph) > 9:
        graph = naive.random_graph(draw)
    pool = random_pool(graph, draw, most_workers=2)
    times = {Tier.EDGE: pool.coordinator.seconds}
    times |= {t: tuple(s * draw.uniform(0.2, 6) for s in pool.coordinator.seconds) for t in (Tier.DEVICE, Tier.CLOUD)}
    link = Link(draw.choice([1e6, 1e8]), draw.choice([0.0, 1e-3]))
    draws = {Tier.DEVICE: Draw(draw.uniform(0, 20)), Tier.EDGE: pool.coordinator.draw}
    here = tuple(worker.node for worker in pool.workers if worker.machine == pool.coordinator.machine)
    shares = {Tier.EDGE: pool.coordinator.core_share} | ({Tier.CLOUD: 0.5} if draw.random() < 0.5 else {})
    cores = (SharedCores(pool.coordinator.machine, 4.0, shares, here),)
    costs = Costs(dict(sorted(times.items())), link, link, draws=draws, cores=cores)
    found = tiled_stack_costs(graph, pool, most_last_blocks=len(graph))
    nodes = dict(zip(Tier, ("device", "coordinator", "cloud"), strict=True))
    priced_plan = choose(graph, [NodeSet(nodes, costs, (), pool, tuple(found))], (), objective)[0]
    values = [objective.value(predict(graph, exact.partition(graph, costs, (), objective), costs))]
    for one in found:
        tiles = TilesCost(one.seconds, one.alone_seconds, one.own_seconds, one.busy_seconds, joules=one.joules)
        tiles = replace(tiles, cores_seconds=one.cores_seconds)
        priced = tiled.with_tiles(graph, costs, one.tiling, tiles)
        held = {pin.block for pin in tiled.pins(graph, one.tiling)}
        there = (p for p in all_placements(graph) if all(p[block] is Tier.EDGE for block in held))
        values += [objective.value(predict(graph, placement, priced)) for placement in there]
    # balancing the borders afterwards makes it only better
    assert priced_plan.value * (1 - priced_plan.gap) <= min(values) * (1 + 1e-6)
    if not priced_plan.gap:
        assert priced_plan.value <= min(values) * (1 + 1e-6)
    if priced_plan.tiling is not None:
        again = plain(graph, pool, priced_plan.tiling)
        assert priced_plan.costs.tiles is not None
        assert priced_plan.costs.tiles.seconds == pytest.approx(again.seconds, rel=1e-9)
