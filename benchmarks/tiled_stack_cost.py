"""What sharing feature maps out is predicted to save, and how long it takes to find the best stack and grid.

    python benchmarks/tiled_stack_cost.py gain [MODEL...] 2, 4 and 6 workers like the coordinator, which may have a tile
    too python benchmarks/tiled_stack_cost.py uneven [MODEL...] workers of speeds 1 : 1 : 2 : 4, even and balanced tiles
    python benchmarks/tiled_stack_cost.py times [MODEL...] processor seconds of the choice, and with placement

Nodes are priced by a speed, `--gmacs` a second (other rates in proportion), ways by `--mbit` and `--latency-ms`.
Nothing is run: these are the planner's prices.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

from pipeline.cost import Costs, Link
from pipeline.estimator import Speed, estimate
from pipeline.graph import ModelGraph
from pipeline.models import PAPERS
from pipeline.models.graphs import shipped_graph
from pipeline.partition.priced_plan import NodeSet
from pipeline.partition.search import choose
from pipeline.placement import NodeId, Tier
from pipeline.tiles.grid import spans
from pipeline.tiles.split import size_of
from pipeline.tiles.tiled_stack_cost import TiledStackCost, balanced, cost, tiled_stack_cost, tiled_stack_costs
from pipeline.tiles.tiling import Tiling
from pipeline.tiles.worker_pool import TileNode, WorkerPool

FIVE = ("vgg16", "resnet18", "darknet53", "inception_v4", "alexnet")
REPEATS = 3
UNEVEN = (1.0, 1.0, 2.0, 4.0)


def main() -> None:
    """Price and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["gain", "uneven", "times"])
    parser.add_argument("models", nargs="*")
    parser.add_argument("--gmacs", type=float, default=5.0)
    parser.add_argument("--mbit", type=float, default=1000.0)
    parser.add_argument("--latency-ms", type=float, default=0.25)
    asked = parser.parse_args()
    if asked.what == "times":
        print_times(asked.models or PAPERS, asked)
    elif asked.what == "uneven":
        print_uneven(asked.models or FIVE, asked)
    else:
        print_gains(asked.models or FIVE, asked)


def node(graph: ModelGraph, name: str, asked: argparse.Namespace, speed: float = 1.0) -> TileNode:
    """A node `speed` times as fast as `--gmacs` says."""
    macs, rate = asked.gmacs * 1e9 * speed, asked.mbit * 125_000.0
    like = Speed(
        macs_per_s=macs,
        depthwise_macs_per_s=macs / 4,
        bytes_per_s=macs / 2,
        weight_bytes_per_s=macs / 2,
        operation_s=2e-5 / speed,
    )
    seconds = estimate(graph, like)
    return TileNode(NodeId(name), seconds, rate, rate, asked.latency_ms / 1e3)


def pool_of(graph: ModelGraph, speeds: Sequence[float], asked: argparse.Namespace) -> WorkerPool:
    """A coordinator of speed 1 and workers of these."""
    workers = tuple(node(graph, f"worker-{n}", asked, speed) for n, speed in enumerate(speeds, start=1))
    return WorkerPool(node(graph, "coordinator", asked), workers)


def best(graph: ModelGraph, pool: WorkerPool) -> TiledStackCost:
    """The stack that saves most, its tiles balanced."""
    return balanced(graph, pool, max(tiled_stack_costs(graph, pool), key=lambda s: s.gain_s))


def print_gains(models: Sequence[str], asked: argparse.Namespace) -> None:
    """The table of docs/benchmarks.md."""
    heads = "workers", "stack", "tiles", "stack alone", "in tiles", "faster", "extra work", "transfer", "network faster"
    print(f"| network | {' | '.join(heads)} |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for model in models:
        graph = shipped_graph(model)
        for count in (2, 4, 6):
            pool = pool_of(graph, [1.0] * count, asked)
            print(f"| {model} | {count} | {row(graph, pool, best(graph, pool))} |", flush=True)


def row(graph: ModelGraph, pool: WorkerPool, chosen: TiledStackCost) -> str:
    """Cells of a table about one tiled stack."""
    tiling, priced, whole_s = chosen.tiling, cost(graph, pool, chosen), sum(pool.coordinator.seconds)
    names = f"{graph.blocks[tiling.first].name} to {graph.blocks[tiling.last].name}"
    cells = (
        names,
        f"{len(tiling.rows)}x{len(tiling.columns)}",
        f"{chosen.alone_seconds * 1e3:,.0f} ms",
        f"{chosen.seconds * 1e3:,.0f} ms",
        f"{chosen.alone_seconds / chosen.seconds:.2f}x",
        f"{priced.extra_work:.0%}",
        f"{priced.transfer_share:.0%}",
        f"{whole_s / (whole_s - chosen.gain_s):.2f}x",
    )
    return " | ".join(cells)


def print_uneven(models: Sequence[str], asked: argparse.Namespace) -> None:
    """Even tiles beside balanced ones on the four workers, for the stack that saves most."""
    print("| network | stack | even rows | balanced rows | even | balanced | faster |")
    print("|---|---|---|---|---|---|---|")
    for model in models:
        graph = shipped_graph(model)
        pool = pool_of(graph, UNEVEN, asked)
        workers = tuple(worker.node for worker in pool.workers)
        stack = best(graph, pool).tiling
        height, width = size_of(graph, graph.blocks[stack.last].outputs[0])
        rows = tuple(span.size for span in spans((1,) * len(workers), height, "rows"))
        even = tiled_stack_cost(graph, pool, Tiling(stack.first, stack.last, rows, (width,), workers))
        moved = balanced(graph, pool, even)
        names = f"{graph.blocks[stack.first].name} to {graph.blocks[stack.last].name}"
        written = [", ".join(map(str, s.tiling.rows)) for s in (even, moved)]
        times = [f"{s.seconds * 1e3:,.0f} ms" for s in (even, moved)]
        cells = (model, names, *written, *times, f"{even.seconds / moved.seconds:.2f}x")
        print(f"| {' | '.join(cells)} |", flush=True)


def print_times(models: Sequence[str], asked: argparse.Namespace) -> None:
    """Medians: all stacks and grids priced; the plan of one device, edge and cloud without tiles, and with them."""
    print("| network | blocks | tiled stacks | priced for 4 | priced for 8 | plan without tiles | with tiles of 8 |")
    print("|---|---|---|---|---|---|---|")
    for model in models:
        graph = shipped_graph(model)
        four, eight = (pool_of(graph, [1.0] * count, asked) for count in (4, 8))
        found = tuple(tiled_stack_costs(graph, eight))
        seconds = {Tier.DEVICE: node(graph, "d", asked, 0.2).seconds, Tier.EDGE: eight.coordinator.seconds}
        seconds[Tier.CLOUD] = node(graph, "c", asked, 8.0).seconds
        costs = Costs(seconds, Link(84.95 * 125_000, 0.002), Link(31.53 * 125_000, 0.01))
        nodes = dict(zip(Tier, ("d", "coordinator", "c"), strict=True))
        plain, tiled = NodeSet(nodes, costs), NodeSet(nodes, costs, (), eight, found)
        times = (
            median_s(lambda: tiled_stack_costs(graph, four)),  # noqa: B023 - called at once
            median_s(lambda: tiled_stack_costs(graph, eight)),  # noqa: B023
            median_s(lambda: choose(graph, [plain])),  # noqa: B023
            median_s(lambda: choose(graph, [tiled])),  # noqa: B023
        )
        cells = (model, len(graph), len(found), *(f"{s * 1e3:,.0f} ms" for s in times))
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


def median_s(do: Callable[[], object]) -> float:
    """The median processor time of a few runs: what else the machine does is not in it."""
    taken = []
    for _ in range(REPEATS):
        began = time.process_time()
        do()
        taken.append(time.process_time() - began)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
