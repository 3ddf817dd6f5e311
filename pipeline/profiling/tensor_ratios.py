"""How far codecs shrink a model's tensors, before any frame has passed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline import codecs
from pipeline.codecs import CODECS, Array
from pipeline.engines.checks import noise
from pipeline.frames.fingerprint import sample_frame

if TYPE_CHECKING:
    from pipeline.engines import Engine, Loaded
    from pipeline.graph import ModelGraph

_HELD_BYTES = 1 << 25
"""So much of a model's tensors is held at once."""


def expected_ratios(engine: Engine, model: Loaded) -> dict[str, tuple[float, ...]]:
    """How many times each codec shrinks each tensor of the model, by tensor id, when it is given a picture, or noise.

    1.0 where it does not. What frames really give is measured when they pass (`nodes.tier.codec_ratios`).
    """
    graph = model.graph
    found = {name: [1.0] * len(graph.tensors) for name in CODECS}
    for tensor, array in _tensors(engine, model, graph):
        for name, ratio in codecs.ratios(array).items():
            found[name][tensor] = round(ratio, 3)
    return {name: tuple(values) for name, values in found.items()}


def _tensors(engine: Engine, model: Loaded, graph: ModelGraph) -> Iterator[tuple[int, Array]]:
    """Each tensor of the model once, computed a part of the blocks at a time."""
    first = {t: graph.tensors[t] for t in graph.inputs}
    known: dict[int, Array] = {t: sample_frame() if tensor.varies else noise(tensor) for t, tensor in first.items()}
    yield from known.items()
    blocks: list[int] = []
    for block in graph.blocks[1:]:
        blocks.append(block.index)
        made = [t for index in blocks for t in graph.blocks[index].outputs]
        if block.index < len(graph) - 1 and sum(graph.tensors[t].nbytes for t in made) < _HELD_BYTES:
            continue
        inputs = [t for t in known if any(t in graph.blocks[index].inputs for index in blocks)]
        outputs = engine.compile(model, blocks, inputs, made).run(known)
        yield from outputs.items()
        known |= outputs
        known = {t: array for t, array in known.items() if graph.consumers[t] and graph.consumers[t][-1] > block.index}
        blocks = []
