"""Prices of tiled stacks: every stack in every layout of a worker pool, without cutting anything.

A tile's seconds at a block are the block's in one piece times the tile's part of its map, halo included.
`tiled_stack_costs` prices all stacks of a network in one walk; `balanced` then moves one tiling's borders.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, combinations, pairwise, product
from math import ceil, comb, prod

import numpy as np

from pipeline.graph import ModelGraph
from pipeline.tiles.grid import spans
from pipeline.tiles.split import Tile, nbytes, size_of
from pipeline.tiles.tile_codings import cheapest_coder, coded, coder
from pipeline.tiles.tile_layouts import LayoutArrays, TileLayout, tile_layouts
from pipeline.tiles.tiling import Tiling
from pipeline.tiles.walk import Walk, legal
from pipeline.tiles.worker_pool import Bools, Floats, Ints, Moved, TileWorkers, Timed, WorkerPool, timed
from pipeline.tiles_cost import TileCost, TilesCost

MOST_LAST_BLOCKS = 64
"""Last blocks that are tried: those after which one tensor is all that is needed first, then by what can be gained."""
_MOST_SPLITS = 2000
"""Where a map can be divided in no more ways than this, all are tried."""
_MOST_ROUNDS = 12


@dataclass(frozen=True, slots=True)
class TiledStackCost:
    """The cost of a stack in tiles: `seconds` until it is whole, and `alone_seconds` on the coordinator in one piece.

    The coordinator computes for `own_seconds` of them; the busiest worker, link or machine is occupied for
    `busy_seconds`, and workers take all of their machines' cores for `cores_seconds`, by their names. `joules` are
    those of all nodes, `alone_joules` those of the coordinator with the stack in one piece.
    """

    tiling: Tiling
    seconds: float
    alone_seconds: float
    own_seconds: float
    busy_seconds: float
    joules: float = 0.0
    alone_joules: float = 0.0
    cores_seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def gain_s(self) -> float:
        """Seconds of a frame that the tiles save."""
        return self.alone_seconds - self.seconds

    @property
    def period_s(self) -> float:
        """Seconds between frames that the stack allows by itself."""
        return max(self.own_seconds, self.busy_seconds)


def tiled_stack_costs(
    graph: ModelGraph, pool: WorkerPool, *, most_last_blocks: int = MOST_LAST_BLOCKS
) -> list[TiledStackCost]:
    """For each stack the quickest way and the one with the shortest period, where that beats the coordinator alone."""
    if not pool.workers:
        return []
    lasts = _last_blocks(graph, pool, most_last_blocks)
    if not lasts.size:
        return []
    tried = tile_layouts(pool)
    layout = LayoutArrays.from_layouts(pool, tried)
    spans = layout.spans(graph, lasts)
    stacks, alone, amounts = _amounts(graph, pool, layout, lasts, spans)
    found = _priced(layout.tile_workers, alone, amounts)
    made: dict[tuple[int, int], TiledStackCost] = {}
    for values in (found.seconds, np.maximum(found.own_seconds, found.busy_seconds)):
        best = values.argmin(axis=1)
        for place in np.flatnonzero(values.min(axis=1) < alone).tolist():
            (first, job), tile_layout = stacks[place], int(best[place])
            if (place, tile_layout) not in made:
                tiling = coded(graph, pool, _tiling(graph, first, int(lasts[job]), tried[tile_layout]))
                made[place, tile_layout] = _cost_of(pool, tiling, float(alone[place]), found, (place, tile_layout))
    return list(made.values())


def tiled_stack_cost(graph: ModelGraph, pool: WorkerPool, tiling: Tiling) -> TiledStackCost:
    """The price of a tiling that is given. Raises TileError for one that the graph does not have, KeyError for a node
    that the pool does not have.
    """
    tiling.tile_map(graph)
    found, alone = _price_splits(graph, pool, tiling, [(tiling.rows, tiling.columns)])
    return _cost_of(pool, tiling, alone, found, (0,))


def cost(graph: ModelGraph, pool: WorkerPool, given: TiledStackCost) -> TilesCost:
    """The price of a tiled stack with those of its tiles."""
    tiling, tile_map = given.tiling, given.tiling.tile_map(graph)
    tile_workers, priced = TileWorkers.from_pool(pool, [tiling.workers]), []
    sent, returned = (way.where(tile_workers.is_remote) for way in _moved(graph, pool, tiling, tile_workers))
    coding_s, result_coding_s = sent.encode_s + sent.decode_s, returned.encode_s + returned.decode_s
    transfer_s = (
        sent.nbytes * (1 / tile_workers.coordinator_up + 1 / tile_workers.down)
        + returned.nbytes * (1 / tile_workers.up + 1 / tile_workers.coordinator_down)
        + 2 * tile_workers.latency_s * tile_workers.is_remote
        + coding_s
        + result_coding_s
    )
    for place, (node, tile) in enumerate(zip(tiling.workers, tile_map.tiles, strict=True)):
        priced.append(
            TileCost(
                node,
                ceil(sent.nbytes[0, place]),
                ceil(returned.nbytes[0, place]),
                float(transfer_s[0, place]),
                tile_seconds(graph, tile_map.stack.blocks, tile, pool.member(node).seconds),
                float(coding_s[0, place]),
                float(result_coding_s[0, place]),
            )
        )
    times = (given.seconds, given.alone_seconds, given.own_seconds, given.busy_seconds)
    return TilesCost(*times, tile_map.extra_work, given.joules, tuple(priced), given.cores_seconds)


def _moved(graph: ModelGraph, pool: WorkerPool, tiling: Tiling, tile_workers: TileWorkers) -> tuple[Moved, Moved]:
    """The tiles there and back, `[0, tile]`, with the tiling's codecs."""
    tile_map, member = tiling.tile_map(graph), tile_workers.member

    def way(tensor: int, *, is_back: bool) -> Moved:
        sizes = np.array([[float(nbytes(graph, tensor, tile.regions[tensor])) for tile in tile_map.tiles]])
        return coder(pool, graph.tensors[tensor], tiling.codec_of(tensor), is_back=is_back).moved(member, sizes)

    sent = Moved.nothing(member.shape)
    for tensor in tile_map.stack.inputs:
        sent += way(tensor, is_back=False)
    return sent, way(tile_map.stack.output, is_back=True)


def tile_seconds(graph: ModelGraph, blocks: Sequence[int], tile: Tile, seconds: Sequence[float]) -> float:
    """Seconds of a tile on a node whose blocks take `seconds` in one piece."""
    found = 0.0
    for block in blocks:
        (output,) = graph.blocks[block].outputs
        found += seconds[block] * tile.regions[output].area / prod(size_of(graph, output))
    return found


def balanced(
    graph: ModelGraph, pool: WorkerPool, given: TiledStackCost, *, latency: float = 1.0, period: float = 0.0
) -> TiledStackCost:
    """The same stack, grid and nodes with the borders that make `latency * seconds + period * period_s` least.

    All borders are tried where they are few; otherwise they are moved, each as far as it helps, while that helps.
    """
    tiling, best = given.tiling, given
    height, width = size_of(graph, graph.blocks[tiling.last].outputs[0])
    count = comb(height - 1, len(tiling.rows) - 1) * comb(width - 1, len(tiling.columns) - 1)
    for _ in range(1 if count <= _MOST_SPLITS else _MOST_ROUNDS):
        splits = (
            list(product(_divisions(height, len(tiling.rows)), _divisions(width, len(tiling.columns))))
            if count <= _MOST_SPLITS
            else list(_neighbours(best.tiling.rows, best.tiling.columns))
        )
        found, alone = _price_splits(graph, pool, tiling, splits)
        values = latency * found.seconds + period * np.maximum(found.own_seconds, found.busy_seconds)
        at = int(values.argmin())
        if values[at] >= latency * best.seconds + period * best.period_s:
            break
        rows, columns = splits[at]
        moved = replace(tiling, rows=rows, columns=columns)
        best = _cost_of(pool, moved, alone, found, (at,))
    return best


def _cost_of(pool: WorkerPool, tiling: Tiling, alone_s: float, found: Timed, at: tuple[int, ...]) -> TiledStackCost:
    """The tiling with the times that stand `at` this place in the arrays."""
    seconds, own_s, busy_s, joules = (
        float(values[at]) for values in (found.seconds, found.own_seconds, found.busy_seconds, found.joules)
    )
    taken = {worker.node: float(found.cores_seconds[(m, *at)]) for m, worker in enumerate(pool.workers, start=1)}
    cores_s: dict[str, float] = {node: seconds for node, seconds in taken.items() if seconds}
    alone_joules = pool.coordinator.draw.joules(alone_s)
    return TiledStackCost(tiling, seconds, alone_s, own_s, busy_s, joules, alone_joules, cores_s)


def _last_blocks(graph: ModelGraph, pool: WorkerPool, most: int) -> Ints:
    """The last blocks of stacks that are tried, ascending."""
    maps = np.array([block.index for block in graph.blocks[1:] if block.windows is not None], np.int64)
    if not maps.size:
        return maps
    taken, _ = legal(graph, maps)
    alive = _needed_after(graph)
    saved = np.asarray(pool.coordinator.seconds) @ taken
    sent = (
        np.array([graph.tensors[graph.blocks[last].outputs[0]].nbytes for last in maps])
        / pool.coordinator.down_bytes_per_s
    )
    order = sorted(range(len(maps)), key=lambda job: (alive[maps[job]] > 1, sent[job] - saved[job]))
    return np.sort(maps[order[:most]])


def _begins(graph: ModelGraph, lasts: Ints) -> Bools:
    """`[block, job]`: where stacks begin that are tried: where they read one tensor, anywhere if none does."""
    taken, begins = legal(graph, lasts)
    seen, count = np.zeros((len(graph.tensors), len(lasts)), bool), np.zeros(len(lasts), int)
    narrow = begins.copy()
    for block in reversed(graph.blocks):
        count -= seen[list(block.outputs)].sum(axis=0)
        for tensor in dict.fromkeys(block.inputs):
            count += taken[block.index] & ~seen[tensor]
            seen[tensor] |= taken[block.index]
        narrow[block.index] &= count == 1
    return np.where(narrow.any(axis=0), narrow, begins)


def _needed_after(graph: ModelGraph) -> list[int]:
    """For each block, the number of tensors made up to it that later blocks or the result need."""
    made = [0] * (len(graph) + 1)
    for tensor, readers in enumerate(graph.consumers):
        until = len(graph) if tensor in graph.outputs else max(readers, default=graph.producer[tensor])
        made[graph.producer[tensor]] += 1
        made[until] -= 1
    return list(accumulate(made))


@dataclass(frozen=True, slots=True)
class _Amounts:
    """`[stack, layout, tile]`: seconds of computing, ways there and back. `possible`, `[stack, layout]`: no empty
    tile.
    """

    computed: Floats
    sent: Moved
    returned: Moved
    possible: Bools


def _amounts(
    graph: ModelGraph, pool: WorkerPool, layout: LayoutArrays, lasts: Ints, spans: Ints
) -> tuple[list[tuple[int, int]], Floats, _Amounts]:
    """The stacks of these last blocks as (first block, job), the coordinator's seconds for each, and what the tiles
    take.
    """
    walk, tile_workers, begins = Walk(graph, lasts, spans), layout.tile_workers, _begins(graph, lasts)
    there = tile_workers.member < tile_workers.nobody
    shape = (len(lasts), *layout.rows.shape)
    computed, returned, alone = np.zeros(shape), Moved.nothing(shape), np.zeros(len(lasts))
    possible = np.zeros(shape[:2], bool)
    stacks: list[tuple[int, int]] = []
    parts: list[tuple[Floats, Floats, Moved, Moved]] = []
    for step in walk.steps():
        made = _areas(layout, step.shares)
        computed[step.jobs] += made * tile_workers.seconds(pool, step.block)
        alone[step.jobs] += pool.coordinator.seconds[step.block]
        if step.jobs.size and lasts[step.jobs[0]] == step.block:
            output = graph.tensors[graph.blocks[step.block].outputs[0]]
            back = cheapest_coder(pool, output, is_back=True)
            returned.put(step.jobs[0], back.moved(tile_workers.member, made[0] * output.nbytes))
            possible[step.jobs[0]] = (made[0] > 0).all(axis=-1, where=there)
        at = np.flatnonzero(step.is_stack & begins[step.block, step.jobs])
        if at.size:
            sent = Moved.nothing((at.size, *layout.rows.shape))
            for tensor, shares in walk.inputs(step):
                there_coder = cheapest_coder(pool, graph.tensors[tensor], is_back=False)
                read = _areas(layout, shares[at]) * graph.tensors[tensor].nbytes
                sent += there_coder.moved(tile_workers.member, read)
            jobs = step.jobs[at]
            stacks += [(step.block, job) for job in jobs.tolist()]
            parts.append((alone[jobs], computed[jobs], sent, returned[jobs]))
    alones, computing, sends, returns = zip(*parts, strict=True)
    amounts = _Amounts(
        np.concatenate(computing), Moved.joined(sends), Moved.joined(returns), possible[[job for _, job in stacks]]
    )
    return stacks, np.concatenate(alones), amounts


def _areas(layout: LayoutArrays, shares: Floats) -> Floats:
    """`[job, axis, span]` to `[job, layout, tile]`: a tile's part of the map."""
    return np.take(shares[:, 0], layout.rows, axis=1) * np.take(shares[:, 1], layout.columns, axis=1)


def _priced(tile_workers: TileWorkers, alone: Floats, amounts: _Amounts) -> Timed:
    """`[stack, layout]`; infinite where even the slowest tile alone takes longer than the coordinator for the whole
    stack.
    """
    slowest = amounts.computed.max(axis=-1)
    possible = amounts.possible & (slowest < alone[:, None])
    stack, tile_layout = np.nonzero(possible)
    at = stack, tile_layout
    found = timed(tile_workers[tile_layout], amounts.computed[at], amounts.sent[at], amounts.returned[at])

    def placed(values: Floats) -> Floats:
        whole = np.full((*values.shape[:-1], *possible.shape), np.inf)
        whole[..., stack, tile_layout] = values
        return whole

    return Timed(
        placed(found.seconds),
        placed(found.own_seconds),
        placed(found.busy_seconds),
        placed(found.joules),
        placed(found.cores_seconds),
    )


def _tiling(graph: ModelGraph, first: int, last: int, tile_layout: TileLayout) -> Tiling:
    sizes = size_of(graph, graph.blocks[last].outputs[0])
    rows, columns = (
        tuple(span.size for span in spans(shares, size, "places"))
        for shares, size in zip((tile_layout.grid.rows, tile_layout.grid.columns), sizes, strict=True)
    )
    return Tiling(first, last, rows, columns, tile_layout.nodes)


_Split = tuple[tuple[int, ...], tuple[int, ...]]
"""Heights and widths of tiles."""


def _divisions(size: int, parts: int) -> Iterator[tuple[int, ...]]:
    for ends in combinations(range(1, size), parts - 1):
        bounds = (0, *ends, size)
        yield tuple(stop - start for start, stop in pairwise(bounds))


def _neighbours(rows: tuple[int, ...], columns: tuple[int, ...]) -> Iterator[_Split]:
    """One border moved anywhere between its neighbours, or one tile's edge moved and all after it with it."""
    for axis, sizes in enumerate((rows, columns)):
        for one, other in combinations(range(len(sizes)), 2):
            for moved in range(1 - sizes[one], sizes[other]):
                changed = list(sizes)
                changed[one], changed[other] = changed[one] + moved, changed[other] - moved
                yield (tuple(changed), columns) if axis == 0 else (rows, tuple(changed))


def _price_splits(graph: ModelGraph, pool: WorkerPool, tiling: Tiling, splits: Sequence[_Split]) -> tuple[Timed, float]:
    """The times of each split of a tiling's stack, `[split]`, and the coordinator's seconds alone."""
    stack = tiling.stack(graph)
    high, wide = len(tiling.rows), len(tiling.columns)
    spans = np.zeros((len(splits), 2, 2, max(high, wide)), np.int64)
    for axis, count in enumerate((high, wide)):
        stops = np.cumsum(np.array([split[axis] for split in splits], np.int64), axis=1)
        spans[:, axis, 1, :count] = stops
        spans[:, axis, 0, 1:count] = stops[:, :-1]
    rows, columns = np.repeat(np.arange(high), wide), np.tile(np.arange(wide), high)
    tile_workers = TileWorkers.from_pool(pool, [tiling.workers])
    member = tile_workers.member
    computed, sent = np.zeros((len(splits), high * wide)), Moved.nothing((len(splits), high * wide))
    output = graph.tensors[stack.output]
    back = coder(pool, output, tiling.codec_of(output.id), is_back=True)
    walk = Walk(graph, np.full(len(splits), tiling.last, np.int64), spans)
    for step in walk.steps(tiling.first):
        made = step.shares[:, 0][:, rows] * step.shares[:, 1][:, columns]
        computed += made * tile_workers.seconds(pool, step.block)
        if step.block == tiling.last:
            returned = back.moved(member, made * output.nbytes)
    for tensor, shares in walk.inputs(step):
        there = coder(pool, graph.tensors[tensor], tiling.codec_of(tensor), is_back=False)
        sent += there.moved(member, shares[:, 0][:, rows] * shares[:, 1][:, columns] * graph.tensors[tensor].nbytes)
    found = timed(tile_workers[np.zeros(len(splits), np.int64)], computed, sent, returned)
    alone = sum(pool.coordinator.seconds[block] for block in stack.blocks)
    return found, alone
