"""Lossless codecs of tensors: how fast, and how far they shrink what networks send.

    python benchmarks/codecs.py speed [--repeats 15]
    python benchmarks/codecs.py ratios [MODEL ...] [--frames 8]

`speed`: gigabytes of the tensor per second of the thread's processor time (cores may be shared), each way, the median
and the best of the repeats, by size and share of zeros. `ratios`: for each network on photos, seeded weights, engine
litert: times fewer bytes with each codec, medians and extremes over frames and the tensors of a kind, and the narrowest
place to cut with and without codecs. Every tensor is decoded again and compared bit by bit.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nodes.cli import sample_images
from nodes.config.model_settings import preprocess_of
from nodes.config.sections import ModelSection
from nodes.tier.loading import load
from pipeline import codecs
from pipeline.codecs import Array
from pipeline.frames.inputs import to_inputs
from pipeline.graph import ModelGraph
from pipeline.models.source import named

SIZES = (64 << 10, 1 << 20, 4 << 20)
ZEROS = (0.0, 0.5, 0.8)
MODELS = ("mobilenet_v2", "resnet18", "vgg16", "alexnet", "darknet53", "inception_v4")
RELU, LINEAR, INPUT = "behind a ReLU", "linear", "input"
ZERO_SHARE = 0.2
"""From so many zeros on, a tensor counts as one behind a ReLU."""


def main() -> None:
    """Print one of the two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "ratios"))
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--frames", type=int, default=8)
    arguments = parser.parse_args()
    if arguments.what == "speed":
        speed(arguments.repeats)
        return
    for name in arguments.models:
        ratios(name, arguments.frames)


def speed(repeats: int) -> None:
    """A row for each array and codec."""
    print("| array | bytes | codec | encode GB/s, median (best) | decode GB/s, median (best) | times fewer |")
    print("|---|---|---|---|---|---|")
    for label, array in _arrays():
        for name in codecs.candidates(array.dtype.name, array.shape):
            encode_s, coded = _timed(lambda: codecs.encode(name, array), repeats)  # noqa: B023 - called at once
            if coded.codec != name:
                continue
            data, out = memoryview(b"".join(coded.buffers)), np.empty_like(array)
            decode_s, _ = _timed(lambda: codecs.decode(name, data, out), repeats)  # noqa: B023
            assert out.tobytes() == array.tobytes()
            rates = " | ".join(
                f"{array.nbytes / statistics.median(took) / 1e9:.2f} ({array.nbytes / min(took) / 1e9:.2f})"
                for took in (encode_s, decode_s)
            )
            print(f"| {label} | {array.nbytes:,} | {name} | {rates} | {array.nbytes / coded.nbytes:.2f} |", flush=True)


def _arrays() -> Iterator[tuple[str, Array]]:
    rng = np.random.default_rng(0)
    for nbytes in SIZES:
        for share in ZEROS:
            values = rng.normal(size=(1, nbytes // 4)).astype(np.float32)
            yield f"normal, {share:.0%} zeros", np.where(rng.random(values.shape) < share, 0, values).astype(np.float32)
    photo = np.asarray(sample_images.bundled_photos()[0].resize((224, 224)))[None]
    yield "photo, uint8", photo
    yield "photo, float32", photo / np.float32(127.5) - np.float32(1)


def _timed(call: Callable[[], codecs.Coded | None], repeats: int) -> tuple[list[float], codecs.Coded]:
    took = []
    for _ in range(repeats + 1):
        began = time.thread_time()
        made = call()
        took.append(time.thread_time() - began)
    return took[1:], made if made is not None else codecs.Coded("", ())


def ratios(name: str, frames: int) -> None:
    """A row for each kind of tensor, and the narrowest cuts."""
    engine, models = load("litert", {name: named(name)}, 1, "everywhere")
    graph = models[name].graph
    segment = engine.compile(models[name], range(len(graph)), graph.inputs, tuple(range(len(graph.tensors))))
    preprocess = preprocess_of(ModelSection(source=name))
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    sent = np.zeros((frames, len(graph.tensors)))
    for number, image in enumerate(sample_images.frames(frames)):
        for tensor, array in segment.run(to_inputs(image, graph, preprocess)).items():
            sent[number, tensor] = array.nbytes
            for codec in codecs.candidates(array.dtype.name, array.shape):
                coded = codecs.encode(codec, np.ascontiguousarray(array))
                _check(coded, array)
                found[_kind(graph, tensor, array)][codec].append(array.nbytes / coded.nbytes)
                sent[number, tensor] = min(sent[number, tensor], coded.nbytes)
    for kind in (INPUT, RELU, LINEAR):
        for codec, values in found[kind].items():
            if max(values) > 1:
                low, high = min(values), max(values)
                print(f"| {name} | {kind} | {codec} | {statistics.median(values):.2f} | {low:.2f} to {high:.2f} |")
    plain = _narrowest(graph, np.array([float(t.nbytes) for t in graph.tensors]))
    coded_cut = _narrowest(graph, sent.mean(axis=0))
    print(
        f"narrowest cut of {name}: {plain[0]}, {plain[1]:,.0f} bytes; coded {coded_cut[0]}, {coded_cut[1]:,.0f}",
        flush=True,
    )


def _kind(graph: ModelGraph, tensor: int, array: Array) -> str:
    if tensor in graph.inputs:
        return INPUT
    return RELU if np.mean(array == 0) >= ZERO_SHARE else LINEAR


def _check(coded: codecs.Coded, array: Array) -> None:
    if coded.codec != codecs.NONE:
        out = np.empty_like(array)
        codecs.decode(coded.codec, memoryview(b"".join(coded.buffers)), out)
        assert out.tobytes() == array.tobytes()


def _narrowest(graph: ModelGraph, nbytes: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[str, float]:
    """The block before which least crosses, in the middle half of the blocks' order, and how many bytes that is."""
    crossing = {}
    for at in range(len(graph) // 4, 3 * len(graph) // 4):
        crossing[at] = sum(
            nbytes[t] for t, readers in enumerate(graph.consumers) if readers and graph.producer[t] < at <= readers[-1]
        )
    best = min(crossing, key=lambda at: crossing[at])
    return f"before {graph.blocks[best].name}", float(crossing[best])


if __name__ == "__main__":
    main()
