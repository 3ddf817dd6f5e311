"""Prove the first law on one model: random placements, run segment by segment, give the bits of the unsplit model.

Each tensor that leaves a stage goes through the wire format and back, as between nodes. Knows no node and no broker.
"""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from pipeline.engines import Array, Engine, Segment, unsplit
from pipeline.frames.decode import Preprocess, to_input
from pipeline.graph import ModelGraph, Tensor
from pipeline.models import ModelSource, mode_of
from pipeline.models.build import make
from pipeline.placement import Placement, Stage, Tier, stages
from pipeline.prepare.model import PreparedModel, prepared_from
from pipeline.prepare.unsupported import check_model
from pipeline.reassembly import Assembler
from pipeline.tensorflow_runtime import keras, tf
from pipeline.wire import FrameKey, Received, encode

TOLERANCE = 1e-5
"""Largest difference from the original model, relative to the output's largest element."""

_KEPT_SEGMENTS = 6
_KEY = FrameKey(stream="verify", epoch=1, sequence=1, attempt=1, oldest_open=1)


@dataclass(frozen=True, slots=True)
class Prepared:
    """The first step: the model is ready. `seconds` counts building, weights and preparing."""

    graph: ModelGraph
    seconds: float


@dataclass(frozen=True, slots=True)
class Original:
    """The unsplit prepared model, compared with the Keras model as it was built or loaded.

    `relative_error` is the largest difference over the largest element, the worst of all outputs; `same_top` is true
    if the largest element is at the same place in each.
    """

    relative_error: float
    same_top: bool
    seconds: float

    @classmethod
    def compared(cls, made: Sequence[Array], expected: Sequence[Array], began: float) -> Original:
        """Compare both models' outputs, in order; `began` is the performance counter's value at the start."""
        pairs = list(zip(made, expected, strict=True))
        return cls(
            relative_error=max(_relative_error(a, b) for a, b in pairs),
            same_top=all(np.argmax(a) == np.argmax(b) for a, b in pairs),
            seconds=time.perf_counter() - began,
        )

    @property
    def holds(self) -> bool:
        """True when the prepared model computes what the original does, within TOLERANCE."""
        return self.same_top and self.relative_error <= TOLERANCE


@dataclass(frozen=True, slots=True)
class Split:
    """One placement: its tiers' first letters block by block, the bytes sent, and which outputs differed."""

    tiers: str
    sent_tensors: int
    sent_bytes: int
    differing: tuple[str, ...]
    seconds: float

    @property
    def equal(self) -> bool:
        """True when every bit of every output was the same."""
        return not self.differing


Step: TypeAlias = Prepared | Original | Split


@dataclass(frozen=True, slots=True)
class Verdict:
    """The sum of all steps, for a table or JSON."""

    model: str
    digest: str
    engine: str
    blocks: int
    placements: int
    equal: int
    relative_error: float
    same_top: bool
    seconds: float
    unequal: tuple[Split, ...]

    @property
    def holds(self) -> bool:
        """True when every placement was bit-equal and the original within TOLERANCE."""
        return self.placements == self.equal and self.same_top and self.relative_error <= TOLERANCE


def verdict(steps: Sequence[Step], engine: Engine) -> Verdict:
    """Sum up a finished run of `verify`."""
    graph = next(step.graph for step in steps if isinstance(step, Prepared))
    original = next(step for step in steps if isinstance(step, Original))
    splits = [step for step in steps if isinstance(step, Split)]
    return Verdict(
        model=graph.name,
        digest=graph.digest,
        engine=engine.name,
        blocks=len(graph),
        placements=len(splits),
        equal=sum(split.equal for split in splits),
        relative_error=original.relative_error,
        same_top=original.same_top,
        seconds=sum(step.seconds for step in steps),
        unequal=tuple(split for split in splits if not split.equal),
    )


def verify(engine: Engine, source: ModelSource, *, placements: int = 20, seed: int = 0) -> Iterator[Step]:
    """Yield each step as it is done: Prepared, Original, then a Split per placement. Raises what loading raises."""
    began = time.perf_counter()
    model, given, expected = ready(source, seed)
    graph = model.graph
    yield Prepared(graph, time.perf_counter() - began)
    began = time.perf_counter()
    whole = unsplit(engine, model).run(given)
    whole = {tensor: np.array(array) for tensor, array in whole.items()}
    yield Original.compared([whole[t] for t in graph.outputs], expected, began)
    yield from splits(engine, model, given, whole, placements=placements, seed=seed)


def ready(source: ModelSource, seed: int) -> tuple[PreparedModel, dict[int, Array], list[Array]]:
    """The prepared model, a random frame by tensor id, and the original Keras model's outputs for it."""
    keras_model, flat = make(source)
    frame = _frame(flat.input_names, [flat.specs[t] for t in flat.inputs], source, _words(flat.calls), seed)
    expected = _answer(keras_model, frame)
    del keras_model
    flat.trace = None
    model = prepared_from(flat)
    return model, dict(zip(model.graph.inputs, frame, strict=True)), expected


def splits(
    engine: Engine,
    model: PreparedModel,
    frame: Mapping[int, Array],
    whole: Mapping[int, Array],
    *,
    placements: int,
    seed: int = 0,
) -> Iterator[Split]:
    """One Split for each of `placements` random placements; `whole` are the unsplit model's outputs by tensor id."""
    runner = _Runner(engine, model)
    draw = random.Random(seed)
    for _ in range(placements):
        began = time.perf_counter()
        placement = random_placement(model.graph, draw)
        made, sent = runner.run(placement, frame)
        yield Split(
            tiers="".join(tier.label[0] for tier in placement),
            sent_tensors=len(sent),
            sent_bytes=sum(sent),
            differing=tuple(
                model.graph.tensors[t].name for t in whole if not np.array_equal(whole[t], made[t], equal_nan=True)
            ),
            seconds=time.perf_counter() - began,
        )


def random_placement(graph: ModelGraph, draw: random.Random) -> Placement:
    """Draw a monotone placement: a random topological order of the blocks, cut at two random places.

    Any monotone placement may come out: every set of blocks that is closed under its inputs is the beginning of some
    topological order.
    """
    order = _random_order(graph, draw)
    first, second = sorted((draw.randint(1, len(order)), draw.randint(1, len(order))))
    tiers = [Tier.DEVICE] * len(order)
    for place, block in enumerate(order):
        tiers[block] = Tier.DEVICE if place < first else Tier.EDGE if place < second else Tier.CLOUD
    return tuple(tiers)


def _random_order(graph: ModelGraph, draw: random.Random) -> list[int]:
    """A topological order that now stays on one branch, now changes branches, so that some lag far behind others."""
    waits = {b.index: len({graph.producer[t] for t in b.inputs}) for b in graph.blocks}
    readers: dict[int, list[int]] = {b.index: [] for b in graph.blocks}
    for before, after in graph.edges:
        readers[before].append(after)
    wander = draw.random()
    ready = [0, *(b for b, count in waits.items() if count == 0 and b != 0)]
    order: list[int] = []
    while ready:
        at = 0 if not order else draw.randrange(len(ready)) if draw.random() < wander else -1
        order.append(ready.pop(at))
        for after in readers[order[-1]]:
            waits[after] -= 1
            if waits[after] == 0:
                ready.append(after)
    return order


class _Runner:
    """Runs placements stage by stage; the last few segments stay compiled."""

    def __init__(self, engine: Engine, model: PreparedModel) -> None:
        self._engine, self._model = engine, model
        self._segments: OrderedDict[tuple[Any, ...], Segment] = OrderedDict()

    def run(self, placement: Placement, frame: Mapping[int, Array]) -> tuple[dict[int, Array], list[int]]:
        """The model's outputs by tensor id, as they arrive, and the bytes of each tensor that was sent."""
        arrived: dict[int, Array] = {}
        sent: list[int] = []
        for stage in stages(self._model.graph, placement):
            # as on a node: the device has the frame, the others what crossed
            given = dict(frame) if stage.tier is Tier.DEVICE else {t: arrived[t] for t in stage.inputs}
            made = self._segment(stage, tuple(given)).run(given)
            for tensor, array in made.items():
                arrived[tensor] = _over_the_wire(self._model.graph.tensors[tensor], array)
                sent.append(array.nbytes)
        return {t: arrived[t] for t in self._model.graph.outputs}, sent

    def _segment(self, stage: Stage, inputs: tuple[int, ...]) -> Segment:
        key = (stage.blocks, inputs, stage.outputs)
        if key not in self._segments:
            self._segments[key] = self._engine.compile(self._model, stage.blocks, inputs, stage.outputs)
        self._segments.move_to_end(key)
        while len(self._segments) > _KEPT_SEGMENTS:
            self._segments.popitem(last=False)
        return self._segments[key]


def _over_the_wire(tensor: Tensor, array: Array) -> Array:
    assembler = Assembler(lambda key, asked: tensor, limit_bytes=max(tensor.nbytes, 1))
    done = [assembler.add("verify", chunk) for chunk in encode(_KEY, tensor.id, array)]
    received = next(result for result in done if isinstance(result, Received))
    return received.array


def _relative_error(made: Array, expected: Array) -> float:
    a, b = made.astype(np.float64), expected.astype(np.float64)
    largest = float(np.abs(b).max(initial=0.0))
    difference = float(np.abs(a - b).max(initial=0.0))
    return difference / largest if largest > 0 else difference


def _answer(model: Any, frame: Sequence[Array]) -> list[Array]:
    graph = check_model(model, model.name)

    def answer(*tensors: Any) -> Any:
        return graph(keras.tree.pack_sequence_as(graph._inputs_struct, list(tensors)), training=False)

    # not eagerly: an engine's process takes weights for frozen, see `set_up`
    outputs = tf.function(answer, autograph=False)(*(keras.ops.convert_to_tensor(array) for array in frame))
    return [np.asarray(output) for output in keras.tree.flatten(outputs)]


def _words(calls: Sequence[Any]) -> int:
    """Number of values that an integer input may take: the rows of the smallest embedding."""
    return min((c.operation.input_dim for c in calls if isinstance(c.operation, keras.layers.Embedding)), default=4)


def _frame(names: Sequence[str], specs: Sequence[Any], source: ModelSource, words: int, seed: int) -> list[Array]:
    """Draw each input: pixels, preprocessed as the model wants them, or a normal distribution, or indices."""
    rng, mode = np.random.default_rng(seed), mode_of(source)
    made = []
    for number, (name, spec) in enumerate(zip(names, specs, strict=True)):
        tensor = Tensor(number, name, spec.shape, spec.dtype)
        kind = np.dtype(spec.dtype)
        if kind == np.uint8 or mode is not None:
            pixels = rng.integers(0, 256, spec.shape, np.uint8)
            made.append(to_input(pixels, tensor, Preprocess(mode=mode or "none")))
        elif kind.kind == "f":
            made.append(rng.standard_normal(spec.shape).astype(kind))
        else:
            made.append(rng.integers(0, 2 if kind.kind == "b" else words, spec.shape).astype(kind))
    return made
