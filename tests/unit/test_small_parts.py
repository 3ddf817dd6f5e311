"""The small parts of a node: sequence numbers, labels, segments kept, timings."""

from __future__ import annotations

import json
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nodes.config.model_settings import labels_of, preprocess_of
from nodes.config.sections import ModelSection, PreprocessSection
from nodes.tier import sequences
from nodes.tier.meter import Meter
from nodes.tier.segment_store import SegmentStore
from pipeline.errors import ConfigError
from pipeline.placement import Stage, Tier, stages
from pipeline.plan import StreamId
from pipeline.timing.contention import uncontended_seconds
from tests.graphs import chain


def test_sequence_numbers_never_come_twice_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / "state" / "camera.sequence"
    firsts = [sequences.reserve(path) for _ in range(3)]
    assert firsts[0] == 1
    assert firsts == sorted(set(firsts))
    path.write_text("nonsense")
    with pytest.raises(OSError, match="no sequence number"):
        sequences.reserve(path)


def with_labels(path: Path) -> ModelSection:
    return ModelSection.model_validate({"source": "vgg16", "labels": str(path)})


def test_labels_come_from_lines_or_a_keras_index(tmp_path: Path) -> None:
    lines, index, broken = tmp_path / "a.txt", tmp_path / "b.json", tmp_path / "c.json"
    lines.write_text("cat\ndog\n")
    index.write_text(json.dumps({"0": ["n1", "cat"], "1": ["n2", "dog"]}))
    broken.write_text("[]")
    assert labels_of(with_labels(lines)) == ("cat", "dog")
    assert labels_of(with_labels(index)) == ("cat", "dog")
    assert labels_of(ModelSection(source="vgg16")) is None
    for path in (broken, tmp_path / "missing.txt"):
        if path is broken:
            path.write_text('{"1": 3}')
        with pytest.raises(ConfigError, match=path.name):
            labels_of(with_labels(path))


def test_preprocessing_is_the_models_own_unless_configured() -> None:
    assert preprocess_of(ModelSection(source="vgg16")).mode == "caffe"
    own = PreprocessSection(size=(32, 48), mode="unit")
    chosen = preprocess_of(ModelSection(source="vgg16", preprocess=own))
    assert (chosen.size, chosen.mode) == ((32, 48), "unit")


class Compiled:
    """Stands for a segment."""


class CountingEngine:
    """Stands for an engine: what it compiled is all that matters here."""

    name, version, threads = "counting", "1", 1

    def __init__(self) -> None:
        self.compiled: list[tuple[int, ...]] = []

    def compile(self, model: Any, blocks: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]) -> Any:
        self.compiled.append(tuple(blocks))
        return Compiled()

    def profile(self, model: Any, repeats: int = 10) -> Any:
        raise AssertionError("not asked for")


class Prepared:
    graph = chain(4, 4, 4, 4, 4, 4, 4, 4)
    calls = ((),) * 8


def stage_up_to(block: int) -> Stage:
    graph = Prepared.graph
    placement = tuple(Tier.DEVICE if i < block else Tier.EDGE for i in range(len(graph)))
    return stages(graph, placement)[0]


def test_a_set_of_blocks_is_compiled_once_and_goes_with_the_last_epoch_that_runs_it() -> None:
    engine = CountingEngine()
    store = SegmentStore(engine, {"net": Prepared()})  # type: ignore[dict-item]  # only its graph and its calls are read
    for epoch, block in enumerate((2, 3, 2), start=1):
        store.hold("camera", epoch, "net", stage_up_to(block))
    assert len(engine.compiled) == 2
    assert store.of("camera", 1) is store.of("camera", 3)
    store.release("camera", 1)
    store.release("camera", 1)
    assert store.of("camera", 1) is None
    store.hold("camera", 4, "net", stage_up_to(2))
    assert len(engine.compiled) == 2
    segment = weakref.ref(store.of("camera", 4))
    for epoch in (3, 4):
        assert segment() is not None
        store.release("camera", epoch)
    assert segment() is None
    assert store.of("camera", 2) is not None
    store.hold("camera", 5, "net", stage_up_to(2))
    assert len(engine.compiled) == 3


def test_a_whole_network_stands_by_and_is_compiled_once() -> None:
    engine = CountingEngine()
    store = SegmentStore(engine, {"net": Prepared()})  # type: ignore[dict-item]
    store.hold("camera", 1, "net", stage_up_to(2))
    store.stand_by("net")
    store.hold("camera", 2, "net", stage_up_to(8))
    assert engine.compiled == [(0, 1), tuple(range(8))]
    segment = store.of("camera", 2)
    store.release("camera", 2)
    store.hold("camera", 3, "net", stage_up_to(8))
    assert store.of("camera", 3) is segment


def test_a_report_is_flat_and_durations_start_anew_with_each() -> None:
    meter = Meter()
    meter.count("frames_total", 3)
    for seconds in (0.1, 0.2, 0.3):
        meter.sample("compute_seconds", seconds, StreamId("cam"))
    report = meter.report()
    assert report["frames_total"] == 3
    assert report["compute_seconds_p50"] == pytest.approx(0.2)
    assert report["stream.cam.compute_seconds_p95"] == report["compute_seconds_p95"]
    assert all(isinstance(value, int | float) for value in report.values())
    assert "compute_seconds_p50" not in meter.report()
    assert meter.report()["frames_total"] == 3


def test_seconds_without_contention_are_at_most_those_of_the_clock() -> None:
    spun: list[int] = []
    seconds = uncontended_seconds(lambda: spun.extend(range(200_000)))
    assert len(spun) == 200_000
    assert 0 < seconds < 10
