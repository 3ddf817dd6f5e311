"""Bytes of a frame on its way, by the form in which it leaves the device: as it came, as its picture, or later.

    python benchmarks/input_blocks.py mobilenet_v2 --frames 20

The demo's photos through the network, each tensor with the codec that makes fewest bytes of it. The last line is the
demo's placement on three tiers. Every answer is compared with the unsplit network's, bit for bit.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np

from nodes.cli import sample_images
from nodes.cli.demo import narrow_cuts
from pipeline import codecs, engines
from pipeline.engines.pictured import PicturedEngine, network_of, pictured
from pipeline.frames.decode import Preprocess
from pipeline.frames.input_blocks import DECODE, NORMALISE, as_given
from pipeline.frames.inputs import to_inputs
from pipeline.models import lookup, store
from pipeline.models.source import ModelSource
from pipeline.placement import Placement, Tier, crossings, stages
from pipeline.wire import Array

THREADS = 1


def main() -> None:
    """Print a table for each network."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--frames", type=int, default=20)
    asked = parser.parse_args()
    print("| network | placement | device to edge, kB | edge to cloud, kB | together, kB | as float32 before | equal |")
    print("|---|---|---|---|---|---|---|")
    for name in asked.models:
        _measure(name, asked.frames)


def _measure(name: str, count: int) -> None:
    zoo = lookup(name)
    preprocess = Preprocess(size=zoo.input_shape[:2], mode=zoo.preprocess)
    model = pictured(store.load(ModelSource(name, name, "seed:0")), preprocess)
    graph, engine = model.graph, PicturedEngine(engines.create("litert", THREADS))
    blocks, (edge, cloud) = len(graph), narrow_cuts(model.graph)
    d, e, c = Tier
    placements: dict[str, Placement] = {
        "cloud, the frame as it came": (d, *[c] * (blocks - 1)),
        "cloud, its picture": (d,) * NORMALISE + (c,) * (blocks - NORMALISE),
        "cloud, the input": (d,) * (NORMALISE + 1) + (c,) * (blocks - NORMALISE - 1),
        "edge and cloud, the frame as it came": (d,) * DECODE + (e,) * (cloud - DECODE) + (c,) * (blocks - cloud),
        "the demo's three tiers": (d,) * edge + (e,) * (cloud - edge) + (c,) * (blocks - cloud),
    }
    whole = engines.unsplit(engine, network_of(model))
    photos = sample_images.frames(count, seed=1)
    expected = [whole.run(to_inputs(photo, network_of(model).graph, preprocess)) for photo in photos]
    for title, placement in placements.items():
        segments = [
            engine.compile(model, stage.blocks, graph.inputs if 0 in stage.blocks else stage.inputs, stage.outputs)
            for stage in stages(graph, placement)
        ]
        crossing = crossings(graph, placement)
        sent: dict[Tier, list[int]] = {d: [], e: []}
        equal = 0
        for photo, wanted in zip(photos, expected, strict=True):
            known: dict[int, Array] = {graph.inputs[0]: as_given(photo)}
            for segment in segments:
                known |= segment.run({t: known[t] for t in segment.inputs})
            equal += all(np.array_equal(known[t], wanted[t]) for t in graph.outputs)
            for lower, seen in sent.items():
                seen.append(sum(_fewest(known[one.tensor]) for one in crossing if one.crosses(lower)))
        up = [statistics.mean(sent[lower]) / 1e3 for lower in (d, e)]
        on_device = tuple(tier if b > NORMALISE else d for b, tier in enumerate(placement))
        uncoded = [(lower, one) for one in crossings(graph, on_device) for lower in (d, e) if one.crosses(lower)]
        plain = sum(graph.tensors[one.tensor].nbytes for _, one in uncoded) / 1e3
        cells = (name, title, *(f"{kb:.1f}" for kb in (*up, sum(up))), f"{plain:.0f}", f"{equal} of {count}")
        print(f"| {' | '.join(cells)} |", flush=True)


def _fewest(array: Array) -> int:
    names = codecs.candidates(array.dtype.name, array.shape)
    return min([array.nbytes, *(codecs.encode(name, np.ascontiguousarray(array)).nbytes for name in names)])


if __name__ == "__main__":
    main()
