"""How long planners take, and how good they are.

Run: python benchmarks/planning.py times [MODEL...]     seconds of exact, HPA and its adjustment on the papers' graphs
     python benchmarks/planning.py quality [--raw-stays-on device] [--shared DIR]
                                                        all planners in D3's four networks, Scission's systems as speeds
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from pipeline.cost import Costs, Link, predict
from pipeline.errors import Infeasible
from pipeline.graph import ModelGraph
from pipeline.models import PAPERS
from pipeline.models.graphs import shipped_graph
from pipeline.partition import PLANNERS, exact, hpa
from pipeline.partition.baselines import scission_best
from pipeline.partition.constraints import Constraint, RawStays
from pipeline.partition.explain import kind_of
from pipeline.partition.objective import LATENCY, THROUGHPUT
from pipeline.placement import Placement, Tier

CASES = 20
D3 = {"Wi-Fi": 31.53, "4G": 13.79, "5G": 22.75, "optical": 50.23}
D3_DEVICE_EDGE = 84.95
MBIT = 125_000.0
SYSTEMS = {Tier.DEVICE: "device-raspi4", Tier.EDGE: "edge-2500", Tier.CLOUD: "cloud-6700k-gpu"}
SCISSIONS_NAME = {
    "inception_resnet_v2": "inceptionresnet_v2",
    "mobilenet_v2": "mobilenetv2",
    "nasnet_large": "nasnetlarge",
    "nasnet_mobile": "nasnetmobile",
}
NOT_MEASURED = {"alexnet": "vgg16", "resnet18": "resnet50", "darknet53": "resnet50", "inception_v4": "inception_v3"}
"""Scission has no times for these: they take what the other network takes per multiply-accumulate."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["times", "quality"])
    parser.add_argument("models", nargs="*", default=list(PAPERS))
    parser.add_argument("--raw-stays-on", choices=["device", "edge"])
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "scission")
    asked = parser.parse_args()
    if asked.what == "times":
        print_times(asked.models)
    else:
        constraints = [RawStays(Tier.named(asked.raw_stays_on))] if asked.raw_stays_on else []
        print_quality(asked.models, asked.shared, constraints)


def print_times(models: Sequence[str]) -> None:
    """A line per model: median and worst milliseconds of processor over random speeds and links."""
    print("| model | blocks | exact, latency | exact, throughput | not proved | hpa | adjust |")
    print("|---|---|---|---|---|---|---|")
    for name in models:
        graph = shipped_graph(name)
        taken: dict[str, list[float]] = {"latency": [], "throughput": [], "hpa": [], "adjust": []}
        gaps = []
        for case in range(CASES + 1):
            costs, changed = random_costs(graph, case)
            seconds, gap = planned(graph, costs, changed)
            if case:  # the first one imports SciPy
                gaps.append(gap)
                for what, value in seconds.items():
                    taken[what].append(value)
        cells = [f"{statistics.median(s) * 1e3:.1f}, {max(s) * 1e3:.1f}" for s in taken.values()]
        loose = [gap for gap in gaps if gap]
        proved = f"{len(loose)} of {len(gaps)}, {max(loose):.2%}" if loose else "0"
        print(f"| {name} | {len(graph)} | {cells[0]} | {cells[1]} | {proved} | {cells[2]} | {cells[3]} |", flush=True)


def planned(graph: ModelGraph, costs: Costs, changed: Costs) -> tuple[dict[str, float], float]:
    """Processor seconds of each planner, and how far the throughput's optimum was not proved."""
    marks = [time.process_time()]
    exact.partition(graph, costs)
    marks.append(time.process_time())
    gap = exact.solve(graph, costs, (), THROUGHPUT).gap
    marks.append(time.process_time())
    placement = hpa.partition(graph, costs)
    marks.append(time.process_time())
    hpa.adjust(graph, placement, changed, hpa.affected(graph, placement, costs, changed))
    marks.append(time.process_time())
    seconds = (after - before for before, after in pairwise(marks))
    return dict(zip(("latency", "throughput", "hpa", "adjust"), seconds, strict=True)), gap


def random_costs(graph: ModelGraph, seed: int) -> tuple[Costs, Costs]:
    """Tiers of random speed and random links; the same with one block half as slow again."""
    rng = np.random.default_rng(seed)
    work = work_of(graph)
    speeds = 10 ** rng.uniform(8, 11, len(Tier))
    links = [Link(10 ** rng.uniform(5, 9), 10 ** rng.uniform(-4, -1)) for _ in range(2)]
    seconds = {tier: tuple((work / speed).tolist()) for tier, speed in zip(Tier, speeds, strict=True)}
    slower = np.ones(len(graph))
    slower[rng.integers(1, len(graph))] = 1.5
    changed = {tier: tuple((work * slower / speed).tolist()) for tier, speed in zip(Tier, speeds, strict=True)}
    return Costs(seconds, links[0], links[1]), Costs(changed, links[0], links[1])


def work_of(graph: ModelGraph) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Multiply-accumulates, and bytes made, so that no block is free."""
    work = np.array([block.macs + graph.tensors[block.outputs[0]].nbytes for block in graph.blocks], float)
    work[0] = 0.0
    return work


def print_quality(models: Sequence[str], shared: Path, constraints: Sequence[Constraint]) -> None:
    """The cost of each planner's placement for one frame, as a ratio to exact; what exact does; Scission's five."""
    totals = {tier: seconds_of_models(shared / f"{system}.json") for tier, system in SYSTEMS.items()}
    ratios: dict[str, list[float]] = {name: [] for name in PLANNERS}
    print("| model | network | exact ms | runs on | " + " | ".join(list(PLANNERS)[1:]) + " |")
    print("|---" * (len(PLANNERS) + 3) + "|")
    worse = 0
    for name in models:
        graph = shipped_graph(name)
        work = work_of(graph) / work_of(graph).sum()
        seconds = {tier: tuple((work * total(name, of)).tolist()) for tier, of in totals.items()}
        for network, mbit in D3.items():
            costs = Costs(seconds, Link(D3_DEVICE_EDGE * MBIT, 0.0), Link(mbit * MBIT, 0.0))
            best = exact.partition(graph, costs, constraints)
            best_s = predict(graph, best, costs).seconds
            cells = [name, network, f"{best_s * 1e3:.1f}", kind_of(graph, best)]
            for planner in list(PLANNERS)[1:]:
                placement = _placed(planner, graph, costs, constraints)
                ratio = predict(graph, placement, costs).seconds / best_s if placement else float("nan")
                ratios[planner].append(ratio)
                cells.append(f"{ratio:.3f}" if placement else "-")
            try:
                five = scission_best(graph, costs, constraints)
                worse += any(predict(graph, p, costs).seconds < best_s * (1 - 1e-9) for p in five)
            except Infeasible:
                pass
            print("| " + " | ".join(cells) + " |", flush=True)
    print()
    for planner in list(PLANNERS)[1:]:
        found = [ratio for ratio in ratios[planner] if ratio == ratio]  # noqa: PLR0124 (not NaN)
        if found:
            at_best = sum(ratio < 1 + 1e-6 for ratio in found)
            print(
                f"{planner}: median {statistics.median(found):.3f}, worst {max(found):.2f}, "
                f"optimal in {at_best} of {len(found)}, no placement in {len(ratios[planner]) - len(found)}"
            )
    print(f"cases in which one of Scission's best five beats the exact plan: {worse}")


def _placed(planner: str, graph: ModelGraph, costs: Costs, constraints: Sequence[Constraint]) -> Placement | None:
    try:
        return PLANNERS[planner](graph, costs, constraints, LATENCY)
    except Infeasible:
        return None


def seconds_of_models(path: Path) -> dict[str, float]:
    """The whole of each model on a system, as Scission published it."""
    models = json.loads(path.read_text(encoding="utf-8"))["models"]
    return {name: sum(block["seconds"] for block in blocks) for name, blocks in models.items()}


def total(name: str, measured: dict[str, float]) -> float:
    """Seconds of one of our models on a system."""
    if name in NOT_MEASURED:
        like = NOT_MEASURED[name]
        return total(like, measured) * float(work_of(shipped_graph(name)).sum() / work_of(shipped_graph(like)).sum())
    return measured[SCISSIONS_NAME.get(name, name)]


if __name__ == "__main__":
    main()
