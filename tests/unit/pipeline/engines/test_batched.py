"""Frames that end together: the same bits as alone, whatever their number, and one by one where that is not proved."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from itertools import count

import numpy as np
import pytest

from pipeline.engines import litert_side_by_side, litert_together
from pipeline.engines.base import Array, Segment
from pipeline.engines.batched import batch_of, begin, finish
from pipeline.engines.litert import LiteRTEngine
from pipeline.engines.litert_side_by_side import SideBySideSegment
from pipeline.engines.litert_together import Rows, TogetherSegment, dense_tail
from pipeline.lite.package import Package
from pipeline.lite.sketch import Layer, Sketch, packaged

BATCH = 4


@pytest.fixture(scope="module")
def net() -> Package:
    layers = (
        Layer("conv", "conv", ("image",), 3, 8),
        Layer("mean", "mean", ("conv",)),
        Layer("fc1", "dense", ("mean",), 1, 300),
        Layer("fc2", "dense", ("fc1",), 1, 77),
        Layer("skip", "dense", ("fc1",), 1, 77),
        Layer("sum", "add", ("fc2", "skip")),
    )
    return packaged(Sketch("net", (12, 12, 3), layers))


def frames_of(package: Package, number: int) -> list[dict[int, Array]]:
    draw = np.random.default_rng(number)
    graph = package.graph
    return [
        {t: draw.standard_normal(graph.tensors[t].shape).astype(np.float32) for t in graph.inputs}
        for _ in range(number)
    ]


@pytest.fixture(autouse=True)
def whatever_is_gained(monkeypatch: pytest.MonkeyPatch) -> None:
    """On this machine, just now; where a test has no clock of its own."""
    monkeypatch.setattr(litert_together, "LEAST_GAIN", 0.0)
    monkeypatch.setattr(litert_side_by_side, "LEAST_GAIN", 0.0)


def together(package: Package, outputs: tuple[int, ...]) -> TogetherSegment:
    graph = package.graph
    segment = LiteRTEngine(1, batch=BATCH).compile(package, range(len(graph)), graph.inputs, outputs)
    assert isinstance(segment, TogetherSegment)
    assert segment._differing() is None
    assert segment.batch == BATCH
    return segment


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 9])
def test_frames_have_the_bits_that_they_have_alone(net: Package, number: int) -> None:
    graph = net.graph
    made = {tensor.name: tensor.id for tensor in graph.tensors}
    outputs = tuple(t for name, t in made.items() if name.split(":")[0] in {"conv", "fc1", "sum"})
    assert len(outputs) == 3
    alone = LiteRTEngine(1).compile(net, range(len(graph)), graph.inputs, outputs)
    segment, frames = together(net, outputs), frames_of(net, number)
    found = finish(segment, [begin(segment, frame) for frame in frames])
    for frame, got in zip(frames, found, strict=True):
        expected = alone.run(frame)
        assert got.keys() == expected.keys()
        assert all(np.array_equal(got[t], expected[t]) and got[t].shape == expected[t].shape for t in expected)
    assert all(np.array_equal(segment.run(frames[0])[t], found[0][t]) for t in outputs)


def test_a_segment_of_the_last_blocks_alone_has_no_front(net: Package) -> None:
    graph = net.graph
    tail = dense_tail(net, range(1, len(graph)))
    assert [graph.blocks[index].name for index in tail] == ["fc1", "fc2", "skip", "sum"]
    given = graph.blocks[tail[0]].inputs
    segment = LiteRTEngine(1, batch=2).compile(net, tail, given, graph.outputs)
    alone = LiteRTEngine(1).compile(net, tail, given, graph.outputs)
    assert isinstance(segment, TogetherSegment)
    assert segment.batch == 2
    rows = [np.full(graph.tensors[given[0]].shape, value, np.float32) for value in (0.5, -2)]
    found = finish(segment, [begin(segment, {given[0]: row}) for row in rows])
    for row, got in zip(rows, found, strict=True):
        assert np.array_equal(got[graph.outputs[0]], alone.run({given[0]: row})[graph.outputs[0]])


def test_without_dense_layers_at_the_end_or_room_for_them_frames_run_one_by_one(net: Package) -> None:
    graph = net.graph
    until_mean = range(1, 3)
    assert dense_tail(net, until_mean) == ()
    engine = LiteRTEngine(1, batch=BATCH)
    assert batch_of(engine.compile(net, until_mean, graph.inputs, graph.blocks[2].outputs)) == 1
    cramped = LiteRTEngine(1, batch=BATCH, is_room=lambda nbytes: False)
    assert batch_of(cramped.compile(net, range(len(graph)), graph.inputs, graph.outputs)) == 1


class Off:
    """Rows of which the last value of the second is off by a bit."""

    def __init__(self, made: int, alone: object) -> None:
        self._made, self._alone = made, alone

    def run(self, given: Mapping[int, Array]) -> dict[int, Array]:
        (tensor, rows), *_ = given.items()
        made = np.concatenate([self._alone.run({tensor: row[None]})[self._made] for row in rows])  # type: ignore[attr-defined]
        made[1, -1] = np.nextafter(made[1, -1], np.float32(9))
        return {self._made: made}


def test_what_has_other_bits_together_or_gains_nothing_is_run_one_by_one(
    net: Package, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litert_together, "LEAST_GAIN", 1.1)
    graph, engine = net.graph, LiteRTEngine(1)
    (given,), (made,) = graph.blocks[3].inputs, graph.blocks[3].outputs
    alone = engine.compile(net, (3,), (given,), (made,))
    rows = engine._part(net, (3,), (3,), (made,), rows=BATCH)
    ticks = count()
    for of_rows, clock in ((Off(made, alone), None), (rows, lambda: float(next(ticks)))):
        named = {} if clock is None else {"clock": clock}
        segment = TogetherSegment(
            graph,
            None,
            alone,
            of_rows,
            batch=BATCH,
            inputs=(given,),
            outputs=(made,),
            **named,
        )
        assert segment.batch == 1
        row = np.ones(graph.tensors[given].shape, np.float32)
        assert all(
            np.array_equal(one[made], alone.run({given: row})[made]) for one in segment.finish([{given: row}] * 3)
        )
    assert "has other bits in a batch of 4" in caplog.text


class Timed:
    """A segment whose run takes so much of a clock of the test's."""

    def __init__(self, segment: Segment, takes_s: float, now: list[float]) -> None:
        self._segment, self._takes_s, self._now = segment, takes_s, now
        self.inputs, self.outputs = segment.inputs, segment.outputs

    def run(self, tensors: Mapping[int, Array]) -> dict[int, Array]:
        self._now[0] += self._takes_s
        return self._segment.run(tensors)


class TimedRows:
    def __init__(self, rows: Rows, now: list[float]) -> None:
        self._rows, self._now = rows, now

    def run(self, given: Mapping[int, Array]) -> dict[int, Array]:
        self._now[0] += 1
        return self._rows.run(given)


@pytest.mark.parametrize(("front_s", "batch"), [(1.0, BATCH), (100.0, 1)])
def test_what_is_gained_counts_the_blocks_before(
    net: Package, front_s: float, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litert_together, "LEAST_GAIN", 1.1)
    graph, engine, now = net.graph, LiteRTEngine(1), [0.0]
    (given,), (made,) = graph.blocks[3].inputs, graph.blocks[3].outputs
    front = Timed(engine.compile(net, range(1, 3), graph.inputs, (given,)), front_s, now)
    alone = Timed(engine.compile(net, (3,), (given,), (made,)), 1.0, now)
    rows = TimedRows(engine._part(net, (3,), (3,), (made,), rows=BATCH), now)
    segment = TogetherSegment(
        graph, front, alone, rows, batch=BATCH, inputs=graph.inputs, outputs=(made,), clock=lambda: now[0]
    )
    assert segment.batch == batch


# Side by side.


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_frames_side_by_side_have_the_bits_that_they_have_on_all_threads(net: Package, number: int) -> None:
    graph = net.graph
    blocks, outputs = range(1, 3), (*graph.blocks[1].outputs, *graph.inputs)
    alone = LiteRTEngine(2).compile(net, blocks, graph.inputs, outputs)
    segment = LiteRTEngine(2, batch=BATCH).compile(net, blocks, graph.inputs, outputs)
    assert isinstance(segment, SideBySideSegment)
    assert batch_of(segment) == BATCH
    frames = frames_of(net, number)
    for frame, got in zip(frames, finish(segment, [begin(segment, frame) for frame in frames]), strict=True):
        wanted = alone.run(frame)
        assert got.keys() == wanted.keys()
        assert all(got[t].tobytes() == wanted[t].tobytes() for t in wanted)
    assert segment.run(frames[0]).keys() == set(outputs)


def test_without_room_for_a_copy_by_thread_frames_run_one_by_one(net: Package) -> None:
    graph = net.graph
    cramped = LiteRTEngine(2, batch=BATCH, is_room=lambda nbytes: False)
    assert batch_of(cramped.compile(net, range(1, 3), graph.inputs, graph.blocks[2].outputs)) == 1


class OffSegment:
    """A segment whose last value is off by a bit."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment

    def run(self, tensors: Mapping[int, Array]) -> dict[int, Array]:
        made = {t: array.copy() for t, array in self._segment.run(tensors).items()}
        for array in made.values():
            array.flat[-1] = np.nextafter(array.flat[-1], np.float32(9))
        return made


def test_frames_with_other_bits_on_one_thread_or_without_gain_run_one_by_one(
    net: Package, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litert_side_by_side, "LEAST_GAIN", 1.1)
    graph, ticks = net.graph, count()
    (made,) = graph.blocks[1].outputs
    whole = LiteRTEngine(2).compile(net, (1,), graph.inputs, (made,))
    singles = [LiteRTEngine(1).compile(net, (1,), graph.inputs, (made,)) for _ in range(2)]
    steady = {"clock": lambda: float(next(ticks))}
    for copies, named in (([singles[0], OffSegment(singles[1])], {}), (singles, steady)):
        segment = SideBySideSegment(
            graph,
            whole,
            copies,  # type: ignore[arg-type]
            batch=BATCH,
            inputs=graph.inputs,
            outputs=(made,),
            **named,
        )
        assert segment.batch == 1
    assert "has other bits on one thread" in caplog.text


class SlowSegment:
    """A segment that waits for `may_end` and notes when it is entered twice; frames without inputs fail at once."""

    def __init__(self, may_end: threading.Event) -> None:
        self._may_end, self._inside = may_end, threading.Lock()
        self.was_entered_twice = False

    def run(self, tensors: Mapping[int, Array]) -> dict[int, Array]:
        if not tensors:
            raise ValueError("no inputs")
        is_free = self._inside.acquire(blocking=False)
        self.was_entered_twice |= not is_free
        self._may_end.wait(5.0)
        if is_free:
            self._inside.release()
        return dict(tensors)


def test_a_frame_that_fails_does_not_leave_the_others_running(net: Package) -> None:
    graph, may_end = net.graph, threading.Event()
    may_end.set()
    slow = [SlowSegment(may_end) for _ in range(2)]
    inputs = graph.inputs
    segment = SideBySideSegment(graph, slow[0], slow, batch=2, inputs=inputs, outputs=inputs)  # type: ignore[arg-type]
    (frame,) = frames_of(net, 1)
    may_end.clear()
    threading.Timer(0.05, may_end.set).start()
    with pytest.raises(ValueError, match="no inputs"):
        segment.finish([{}, frame])
    assert may_end.is_set()
    segment.finish([frame, frame])
    assert not any(one.was_entered_twice for one in slow)
