"""How long the exact plan takes for a model's graph: medians over random speeds and links, loading not counted.

Run: python benchmarks/planning.py [MODEL…]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from pipeline.cost import Costs, Link
from pipeline.graph import ModelGraph
from pipeline.models.source import ModelSource
from pipeline.partition import exact
from pipeline.placement import Tier

CASES = 50


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["mobilenet_v2", "resnet18", "vgg16"])
    for name in parser.parse_args().models:
        from pipeline.prepared import load

        graph = load(ModelSource(name, name)).graph
        seconds = planned(graph)
        print(
            f"{name:20s} {len(graph):5d} blocks  median {statistics.median(seconds) * 1e3:6.1f} ms  "
            f"worst {max(seconds) * 1e3:6.1f} ms  ({CASES} cases)"
        )


def planned(graph: ModelGraph) -> list[float]:
    """Seconds of each plan; block times in proportion to multiply-accumulates, tiers of random speed."""
    rng = np.random.default_rng(0)
    work = np.array([block.macs + graph.tensors[block.outputs[0]].nbytes for block in graph.blocks], float)
    work[0] = 0.0
    taken = []
    for case in range(CASES + 1):
        speeds = 10 ** rng.uniform(8, 11, len(Tier))
        links = [Link(10 ** rng.uniform(5, 9), 10 ** rng.uniform(-4, -1)) for _ in range(2)]
        costs = Costs({tier: tuple(work / speed) for tier, speed in zip(Tier, speeds, strict=True)}, *links)
        began = time.perf_counter()
        exact.partition(graph, costs)
        if case:  # the first one imports SciPy
            taken.append(time.perf_counter() - began)
    return taken


if __name__ == "__main__":
    main()
