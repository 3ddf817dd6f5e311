"""What the headline's cases allow at best: every planner's price where nodes and broker take no time of their own.

Nothing is measured: a frame takes the recorded seconds of blocks, its bytes on the two links, and its codecs' seconds.
Edge nodes reach each other at 10 GB/s. So no plan of the exact planner can be better in truth than what stands here,
and ratios to baselines show what splitting, codecs and tiles can give before any overhead. *Perfect* is a bound for
whatever way there may be to share work out: all blocks take an equal part of their seconds on each of the edge nodes,
without halos and transfers.

    python -m benchmarks.headline_bounds RECORDINGS
"""

from __future__ import annotations

import argparse
import statistics
from copy import copy
from dataclasses import replace
from pathlib import Path

from benchmarks.headline import BASELINES, MACHINES, NETWORKS
from benchmarks.planning import D3, D3_DEVICE_EDGE, MBIT
from benchmarks.testbed import AS_PUBLISHED
from nodes.config.plan_request import PlanRequest
from nodes.planner.costs.ratios import Ratios
from nodes.planner.machine.problem import PlanningProblem
from nodes.planner.machine.worker_pools import WorkerPools
from pipeline.coding import CodecCosts
from pipeline.cost import Costs, Link
from pipeline.engines.block_recording import read_recording
from pipeline.engines.pictured import Pictured, PicturedEngine, pictured
from pipeline.engines.replay import Replay, ReplayEngine
from pipeline.frames.decode import Preprocess
from pipeline.frames.input_blocks import NORMALISE
from pipeline.lite.package import Package
from pipeline.models import lookup
from pipeline.partition.priced_plan import NodeSet
from pipeline.placement import NodeId, Tier
from pipeline.profiling import codec_speeds
from pipeline.profiling.input_seconds import with_measured_input
from pipeline.profiling.profile import measure
from pipeline.tiles.worker_pool import TileNode

LAN_BYTES_PER_S = 1e10
NODES = {Tier.DEVICE: "device-1", Tier.EDGE: "edge-1", Tier.CLOUD: "cloud-1"}


class Ideal:
    """A network on machines that compute and send, and take no other time."""

    def __init__(self, name: str, recordings: Path) -> None:
        package, recording = Package(recordings / f"{name}.trisect"), recordings / f"{name}.json"
        shape = lookup(name).input_shape
        model = with_measured_input(pictured(package, Preprocess(shape[:2], lookup(name).preprocess)))
        assert isinstance(model, Pictured)
        self.graph = model.graph
        engines = {t: PicturedEngine(ReplayEngine(Replay(recording, MACHINES[t.label]), 1)) for t in Tier}
        self.seconds = {tier: engine.profile(model).seconds for tier, engine in engines.items()}
        (network,) = read_recording(recording)[0].networks
        self.tile_factor = network.machines[MACHINES["edge"]].tile_factor
        ratios = Ratios()
        ratios.assume(self.graph, measure(engines[Tier.CLOUD], model), band=0.0)
        self.codecs = CodecCosts(ratios.assumed, dict.fromkeys(Tier, codec_speeds.measured()))

    def perfect(self, edges: int) -> Ideal:
        """The same, with an edge that is `edges` times as quick."""
        quick = copy(self)
        first, own = NORMALISE + 1, self.seconds[Tier.EDGE]
        shared = (*own[:first], *(s / edges for s in own[first:]))
        quick.seconds = {**self.seconds, Tier.EDGE: shared}
        return quick

    def seconds_of(self, request: PlanRequest, mbit: float, edges: int = 1) -> float:
        """Predicted seconds of the best plan of a request."""
        costs = Costs(self.seconds, Link(D3_DEVICE_EDGE * MBIT, 0.0), Link(mbit * MBIT, 0.0), codecs=self.codecs)
        tiled = tuple(self.tile_factor * s for s in self.seconds[Tier.EDGE])
        members = [NodeId("edge-1"), *(NodeId(f"worker-{n}") for n in range(1, edges))]
        nodes = {node: TileNode(node, tiled, LAN_BYTES_PER_S, LAN_BYTES_PER_S, 0.0) for node in members}
        pools = WorkerPools(nodes.__getitem__, members[1:], members)
        node_sets = [
            NodeSet({t: NODES[t] for t in tiers}, replace(costs, seconds={t: self.seconds[t] for t in tiers}))
            for tiers in ((Tier.DEVICE,), (Tier.DEVICE, Tier.EDGE), (Tier.DEVICE, Tier.CLOUD), tuple(Tier))
        ]
        joined = [pools.joined(self.graph, each, choose=request.planner == "exact") for each in node_sets]
        return PlanningProblem(self.graph, joined, request).priced_plans()[0].predicted.seconds


def main() -> None:
    """Print a line for each case, and the ratios' best, median and least."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--edges", type=int, default=4)
    asked = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {"a": [], "b": []}
    print(
        "| network | line | exact ms | perfect ms | best a ms | / exact | / perfect | best b ms | / exact | / perfect |"
    )
    print("|---" * 10 + "|")
    for name in asked.networks:
        ideal = Ideal(name, asked.recordings)
        for net, mbit in D3.items():
            exact_s = ideal.seconds_of(PlanRequest(), mbit, asked.edges)
            perfect_s = ideal.perfect(asked.edges).seconds_of(PlanRequest(), mbit)
            cells = [f"| {name} | {net} | {exact_s * 1e3:.1f} | {perfect_s * 1e3:.1f}"]
            for reading, terms in (("a", {}), ("b", AS_PUBLISHED)):
                requests = {n: PlanRequest.model_validate({"planner": n} | terms) for n in BASELINES}
                taken = {n: ideal.seconds_of(request, mbit, asked.edges) for n, request in requests.items()}
                best = min(taken, key=lambda n: taken[n])
                found[reading].append((taken[best] / exact_s, taken[best] / perfect_s))
                ratios = " | ".join(f"{ratio:.2f}" for ratio in found[reading][-1])
                cells.append(f"{best} {taken[best] * 1e3:.1f} | {ratios}")
            print(" | ".join(cells), "|", flush=True)
    for reading, pairs in found.items():
        for what, ratios in zip(("exact", "perfect"), zip(*pairs, strict=True), strict=True):
            best, middle, least = max(ratios), statistics.median(ratios), min(ratios)
            print(f"{reading}, best baseline / {what}: best {best:.2f}, median {middle:.2f}, least {least:.2f}")


if __name__ == "__main__":
    main()
