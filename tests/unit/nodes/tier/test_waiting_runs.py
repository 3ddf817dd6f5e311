"""Runs that wait: which go together, and in what order; and a compute thread that runs them so."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nodes.protocol.work import Work
from nodes.session.clock import PipelineClock
from nodes.tier.compute import Compute
from nodes.tier.machine import events as ev
from nodes.tier.machine.actions import Run
from nodes.tier.meter import Meter
from nodes.tier.waiting_runs import WaitingRun, WaitingRuns
from pipeline.engines import litert_together
from pipeline.engines.batched import Batched
from pipeline.engines.litert import LiteRTEngine
from pipeline.lite.sketch import Layer, Sketch, packaged
from pipeline.placement import NodeId, Tier, stages
from pipeline.plan import StreamId
from pipeline.wire import FrameKey

A, B = object(), object()


def waiting(stream: str, sequence: int, inputs: Any = None) -> WaitingRun:
    return WaitingRun(Run(FrameKey(stream, 1, sequence, 1, 0), inputs or {}, (), 0.0), 0.0, 0.0)


def kind_of(run: Run) -> tuple[object, int]:
    return {"a": (A, 3), "b": (B, 1)}[run.key.stream[0]]


def names(taken: list[WaitingRun]) -> list[str]:
    return [f"{each.run.key.stream}{each.run.key.sequence}" for each in taken]


def test_those_of_one_kind_go_together_and_others_keep_their_order() -> None:
    runs = WaitingRuns()
    for each in (("a1-", 1), ("b-", 1), ("a2-", 1), ("b-", 2), ("a1-", 2), ("a2-", 2)):
        runs.put(waiting(*each))
    assert [names(runs.take(kind_of)) for _ in range(5)] == [
        ["a1-1", "a2-1", "a1-2"],
        ["b-1"],
        ["b-2"],
        ["a2-2"],
        [],
    ]


def test_the_first_waits_for_others_until_the_batch_is_full_or_its_time_is_over() -> None:
    runs, now = WaitingRuns(wait_s=1e6), [0.0]
    runs.put(waiting("a-", 1))
    found: list[str] = []
    taking = threading.Thread(target=lambda: found.extend(names(runs.take(kind_of))))
    taking.start()
    for sequence in (2, 3):
        runs.put(waiting("a-", sequence))
    taking.join(30)
    assert found == ["a-1", "a-2", "a-3"]

    def clock() -> float:
        now[0] += 1
        return now[0]

    late = WaitingRuns(wait_s=1.0, clock=clock)
    late.put(waiting("a-", 1))
    assert names(late.take(kind_of)) == ["a-1"]


def test_frames_of_several_streams_are_computed_together_and_one_that_is_wrong_alone_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(litert_together, "LEAST_GAIN", 0.0)
    layers = (Layer("mean", "mean", ("image",)), Layer("head", "dense", ("mean",), 1, 40))
    net = packaged(Sketch("net", (4, 4, 3), layers))
    (stage,) = stages(net.graph, (Tier.DEVICE,) * len(net.graph))
    meter, events = Meter(), SimpleQueue[ev.Event]()
    engine = LiteRTEngine(1, batch=3)
    compute = Compute(
        NodeId("cloud-1"),
        "cloud",
        engine,
        {"net": net},
        meter,
        PipelineClock(),
        events.put,
        is_compiling=lambda: False,
        max_pixels={},
    )
    for stream in ("a", "b"):
        compute._segments.hold(stream, 1, "net", stage)
    segment = compute._segments.segment_of("a", 1)
    assert isinstance(segment, Batched)
    assert segment.batch == 3
    draw = np.random.default_rng(1)
    (image,) = net.graph.inputs
    photos = [draw.standard_normal(net.graph.tensors[image].shape).astype(np.float32) for _ in range(6)]
    photos[2] = photos[2][:, :2]
    for number, photo in enumerate(photos):
        compute.put(Run(FrameKey("ab"[number % 2], 1, number, 1, 0), {image: photo}, (), 0.0, Work.STAGE))
    compute.put(Run(FrameKey("c", 1, 9, 1, 0), {image: photos[0]}, (), 0.0, Work.STAGE))
    compute.worker.start()
    compute.worker.stop(30)
    made = [events.get_nowait() for _ in photos]
    assert events.empty()
    failed = [event.key.sequence for event in made if isinstance(event, ev.SegmentFailed)]
    ran = {event.key.sequence: event for event in made if isinstance(event, ev.SegmentRan)}
    assert (failed, sorted(ran)) == ([2], [0, 1, 3, 4, 5])
    alone = LiteRTEngine(1).compile(net, range(len(net.graph)), net.graph.inputs, net.graph.outputs)
    (output,) = net.graph.outputs
    for sequence, event in ran.items():
        assert np.array_equal(event.outputs[output], alone.run({image: photos[sequence]})[output])
        assert event.trace[-1].compute_seconds > 0
    assert meter.value("batched_frames_total") == 5
    assert meter.value("stale_tensors_total") == 1


def test_a_frame_whose_epoch_is_released_while_it_runs_is_computed_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Segment:
        def run(self, inputs: dict[int, Any]) -> dict[int, Any]:
            held.clear()  # as another thread does, which lets the epoch go
            return inputs

    engine: Any = SimpleNamespace(name="replay")
    events, held = SimpleQueue[ev.Event](), [Segment()]
    clock, limits = PipelineClock(), dict[StreamId, int]()
    compute = Compute(
        NodeId("c"), "cloud", engine, {}, Meter(), clock, events.put, is_compiling=lambda: False, max_pixels=limits
    )
    monkeypatch.setattr(compute._segments, "segment_of", lambda *_: held[0] if held else None)
    photo = np.ones(1)
    for stream in ("a", "b"):
        compute.put(Run(FrameKey(stream, 1, 1, 1, 0), {7: photo}, (), 0.0, Work.STAGE))
    compute.worker.start()
    compute.worker.stop(30)
    ran = events.get_nowait()
    assert isinstance(ran, ev.SegmentRan)
    assert ran.key.stream == "a"
    assert ran.outputs[7] is photo
    assert events.empty(), "the other one came too late"
