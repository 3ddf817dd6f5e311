"""A node's compiled segments: each set of blocks once, gone with the last epoch that runs it."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import pytest

from nodes.protocol.work import Work
from nodes.tier.segment_store import SegmentStore
from pipeline.models import host_memory
from pipeline.placement import Stage, Tier, stages
from pipeline.tiles.tiling import Part
from tests.graphs import chain


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

    def profile(self, *_: Any) -> Any:
        raise AssertionError("not asked for")

    compile_tile = promise = sketched = profile


class Prepared:
    graph = chain(4, 4, 4, 4, 4, 4, 4, 4)
    nbytes, package = 0, None

    def segment_bytes(self, blocks: Sequence[int]) -> int:
        return 4 * len(blocks)


def stage_up_to(block: int) -> Stage:
    graph = Prepared.graph
    placement = tuple(Tier.DEVICE if i < block else Tier.EDGE for i in range(len(graph)))
    return stages(graph, placement)[0]


def test_a_set_of_blocks_is_compiled_once_and_goes_with_the_last_epoch_that_runs_it() -> None:
    engine = CountingEngine()
    store = SegmentStore(engine, {"net": Prepared()})  # type: ignore[dict-item]  # it is in no package
    for epoch, block in enumerate((2, 3, 2), start=1):
        store.hold("camera", epoch, "net", stage_up_to(block))
    assert len(engine.compiled) == 2
    assert store.segment_of("camera", 1) is store.segment_of("camera", 3)
    store.release("camera", 1)
    store.release("camera", 1)
    assert store.segment_of("camera", 1) is None
    store.hold("camera", 4, "net", stage_up_to(2))
    assert len(engine.compiled) == 2
    segment = weakref.ref(store.segment_of("camera", 4))
    for epoch in (3, 4):
        assert segment() is not None
        store.release("camera", epoch)
    assert segment() is None
    assert store.segment_of("camera", 2) is not None
    store.hold("camera", 5, "net", stage_up_to(2))
    assert len(engine.compiled) == 3


def test_what_the_plan_before_ran_is_kept_for_its_return() -> None:
    engine = CountingEngine()
    store = SegmentStore(engine, {"net": Prepared()}, keeps_replaced=True)  # type: ignore[dict-item]
    for epoch, block in enumerate((2, 4, 2, 4, 6), start=1):
        store.hold("camera", epoch, "net", stage_up_to(block))
        store.release("camera", epoch - 1)
    assert [len(blocks) for blocks in engine.compiled] == [2, 4, 6]
    store.hold("camera", 6, "net", stage_up_to(2))
    assert len(engine.compiled) == 4, "no more than one is kept"
    first, last = weakref.ref(store.segment_of("camera", 5)), weakref.ref(store.segment_of("camera", 6))
    store.release("camera", 5)
    assert first() is not None
    store.release("camera", 6)
    assert first() is None, "a stream that is gone returns to nothing"
    assert last() is None


def test_what_is_kept_gives_way_to_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = CountingEngine()
    store = SegmentStore(engine, {"net": Prepared()}, keeps_replaced=True)  # type: ignore[dict-item]
    store.hold("camera", 1, "net", stage_up_to(2))
    replaced = weakref.ref(store.segment_of("camera", 1))
    # of 36 bytes it takes 8; the whole network takes 32
    monkeypatch.setattr(host_memory, "available_bytes", lambda: 36 if replaced() is None else 28)
    store.hold("camera", 2, "net", stage_up_to(4))
    store.release("camera", 1)
    assert replaced() is not None
    store.hold("camera", 3, "net", stage_up_to(8))
    assert replaced() is None
    assert store.segment_of("camera", 3) is not None


def test_a_whole_network_stands_by_and_is_compiled_once() -> None:
    engine = CountingEngine()
    store = SegmentStore(engine, {"net": Prepared()})  # type: ignore[dict-item]
    store.hold("camera", 1, "net", stage_up_to(2))
    store.stand_by("net")
    store.hold("camera", 2, "net", stage_up_to(8))
    assert engine.compiled == [(0, 1), tuple(range(8))]
    segment = store.segment_of("camera", 2)
    store.release("camera", 2)
    store.hold("camera", 3, "net", stage_up_to(8))
    assert store.segment_of("camera", 3) is segment


def test_a_part_without_blocks_hands_on_what_comes_in() -> None:
    engine = CountingEngine()
    store = SegmentStore(engine, {"net": Prepared()})  # type: ignore[dict-item]
    store.hold("camera", 1, "net", Part((), (1,), (1,)), Work.BEFORE)
    assert store.segment_of("camera", 1, Work.BEFORE) is not None
    assert engine.compiled == [()]
