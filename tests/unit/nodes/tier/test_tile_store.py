"""A node's compiled tiles: one for each kind, proven where it runs, gone with the last epoch that has them."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import numpy as np
import pytest

from nodes.tier.tile_store import TileStore
from pipeline.engines import Engine, create
from pipeline.errors import TileError
from pipeline.placement import Tier, stages
from pipeline.plan import NodeId, StreamId
from pipeline.prepare.model import PreparedModel, prepare
from pipeline.tensorflow_runtime import keras
from pipeline.tiles.tiling import TiledStage, Tiling, tiled_stage
from tests.networks import L, trained

CAM = StreamId("cam")
E = Tier.EDGE


@pytest.fixture(scope="module")
def engine() -> Engine:
    return create("litert", 1)


@pytest.fixture(scope="module")
def model(engine: Engine) -> PreparedModel:
    image = keras.Input((12, 12, 3))
    x = L.Conv2D(8, 3, padding="same", activation="relu")(image)
    x = L.Conv2D(8, 3, padding="same", activation="relu")(x)
    return prepare(trained(keras.Model(image, L.GlobalAveragePooling2D()(x))), "small")


def tiled(model: PreparedModel, *rows: int) -> TiledStage:
    """Both convolutions, in so many rows."""
    graph = model.graph
    placement = (Tier.DEVICE, *[E] * (len(graph) - 1))
    edge = next(stage for stage in stages(graph, placement) if stage.tier is E)
    return tiled_stage(graph, placement, edge, Tiling(1, 2, rows, (12,), (NodeId("worker-1"),) * len(rows)))


def test_tiles_of_one_kind_share_a_segment_within_and_across_epochs(engine: Engine, model: PreparedModel) -> None:
    store = TileStore(engine, {"small": model})
    store.hold(CAM, 1, "small", tiled(model, 3, 3, 3, 3), [1, 2, 3, 4])
    inner = store.segment_of(CAM, 1, 2)
    assert inner is not None
    assert store.segment_of(CAM, 1, 3) is inner
    assert store.segment_of(CAM, 1, 1) is not inner
    store.hold(CAM, 2, "small", tiled(model, 3, 3, 6), [2])
    assert store.segment_of(CAM, 2, 2) is inner
    assert store.segment_of(CAM, 2, 1) is None
    region = np.zeros((1, 7, 12, 3), np.float32)
    assert inner.run({0: region}).shape == (1, 3, 12, 8)


def test_a_segment_goes_with_the_last_epoch_that_has_it(engine: Engine, model: PreparedModel) -> None:
    store = TileStore(engine, {"small": model})
    for epoch in (1, 2):
        store.hold(CAM, epoch, "small", tiled(model, 6, 6), [1, 2])
    first = store.segment_of(CAM, 2, 1)
    store.release(CAM, 1)
    assert not store.holds(CAM, 1)
    assert store.segment_of(CAM, 2, 1) is first
    store.release(CAM, 2)
    store.hold(CAM, 3, "small", tiled(model, 6, 6), [1])
    assert store.segment_of(CAM, 3, 1) is not first


def test_a_head_without_tiles_of_its_own_holds_the_epoch_and_an_epoch_that_is_gone_keeps_nothing(
    engine: Engine, model: PreparedModel
) -> None:
    store, halves = TileStore(engine, {"small": model}), tiled(model, 6, 6)
    store.hold(CAM, 1, "small", halves, [])
    assert store.holds(CAM, 1)
    assert store.segment_of(CAM, 1, 1) is None

    def numbers() -> Iterator[int]:
        yield 1
        store.release(CAM, 1)
        yield 2

    store.hold(CAM, 1, "small", halves, numbers())
    assert not store.holds(CAM, 1)
    assert store.segment_of(CAM, 1, 2) is None


def test_where_tiles_are_exact_nothing_is_proven(engine: Engine, model: PreparedModel) -> None:
    store = TileStore(engine, {"small": model})
    with mock.patch.object(engine, "compile", wraps=engine.compile) as whole:
        store.hold(CAM, 1, "small", tiled(model, 6, 6), [1])
    assert not whole.call_count


def test_else_each_tile_is_proven_and_the_stack_in_one_piece_runs_once_for_grids_that_follow() -> None:
    engine = create("tensorflow", 1)
    image = keras.Input((12, 12, 3))  # no sums, whose order may hang on a map's size
    x = L.MaxPooling2D(3, 1, padding="same")(L.ReLU()(image))
    pools = prepare(keras.Model(image, L.GlobalMaxPooling2D()(x)), "small")
    store = TileStore(engine, {"small": pools})
    with mock.patch.object(engine, "compile", wraps=engine.compile) as whole:
        store.hold(CAM, 1, "small", tiled(pools, 6, 6), [1])
        store.hold(CAM, 2, "small", tiled(pools, 4, 8), [1, 2])
    assert whole.call_count == 1
    wrong = mock.patch("pipeline.engines.tensorflow_tiles.TensorFlowTileSegment.run", return_value=np.zeros(1))
    with wrong, pytest.raises(TileError, match="not bit-equal"):
        store.hold(CAM, 3, "small", tiled(pools, 5, 7), [1])
    assert store._equivalence is not None
    for epoch in (1, 2, 3):
        store.release(CAM, epoch)
    assert store._equivalence is None, "the stack's whole output is kept after its last epoch"
