"""The law for tiles: what is cut, computed apart and merged equals what is computed in one piece, bit for bit."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engines import Array, Engine, create, unsplit
from pipeline.engines.promise import EXACT
from pipeline.engines.tiling import TiledStack, TileEquivalence
from pipeline.errors import TileError
from pipeline.graph import ModelGraph
from pipeline.models import store
from pipeline.models.source import ModelSource
from pipeline.prepare.model import PreparedModel, prepare
from pipeline.tensorflow_runtime import keras
from pipeline.tiles import Grid, Stack, split, stacks
from pipeline.tiles.arrays import cut, merge, part
from pipeline.tiles.split import size_of
from tests import naive
from tests.effort import examples
from tests.networks import frame_of
from tests.spatial_networks import PIECES, random_spatial_network


def _random_grid(graph: ModelGraph, stack: Stack, draw: random.Random, most: int = 4) -> Grid:
    rows, columns = (
        tuple(draw.choice([1, 1, 2, 5]) for _ in range(draw.randint(1, min(most, size))))
        for size in size_of(graph, stack.output)
    )
    return Grid(rows, columns)


@settings(max_examples=examples(50))
@given(seed=st.integers(0, 2**32 - 1))
def test_regions_of_random_stacks_hold_what_a_naive_reference_reads(seed: int) -> None:
    draw = random.Random(seed)
    graph = naive.random_graph(draw)
    rng = np.random.default_rng(seed)
    made = naive.whole(graph, {t: rng.standard_normal(graph.tensors[t].shape) for t in graph.inputs})
    assert all(made[t.id].shape == t.shape for t in graph.tensors)
    found = list(stacks(graph))
    for stack in draw.sample(found, min(2, len(found))):
        tile_map = split(graph, stack, _random_grid(graph, stack, draw))
        parts = [naive.tiled(graph, stack, tile, made) for tile in tile_map.tiles]
        assert np.array_equal(merge(tile_map, parts), made[stack.output], equal_nan=True)


@settings(max_examples=examples(20))
@given(seed=st.integers(0, 2**32 - 1))
def test_a_lone_windows_tiles_hold_at_least_a_place_and_make_their_region(seed: int) -> None:
    draw = random.Random(seed)
    graph = naive.random_graph(draw)
    lone = [one for one in stacks(graph) if len(one.blocks) == 1 and graph.blocks[one.first].windows]
    if not lone:
        return
    stack = draw.choice(lone)
    ones = {t.id: np.ones(t.shape) for t in graph.tensors}
    for tile in split(graph, stack, _random_grid(graph, stack, draw)).tiles:
        region = tile.regions[stack.inputs[0]]
        assert region.rows.size >= 1 <= region.columns.size
        assert naive.tiled(graph, stack, tile, ones).shape[1:3] == (
            tile.regions[stack.output].rows.size,
            tile.regions[stack.output].columns.size,
        )


@pytest.fixture(scope="module", params=[True, False], ids=["everywhere", "machine"])
def litert(request: pytest.FixtureRequest) -> Engine:
    """The engine that promises exact tiles, in its canonical and in its plain forms."""
    return create("litert", 1, everywhere=request.param)


@pytest.fixture(scope="module")
def tensorflow() -> Engine:
    """The engine whose tiles are proven kind by kind."""
    return create("tensorflow", 1)


@pytest.mark.parametrize("number", range(4))
def test_litert_gives_a_random_networks_bits_tile_by_tile(litert: Engine, number: int) -> None:
    draw = random.Random(number)
    _check(litert, random_spatial_network(draw), draw, count=3)


@pytest.mark.parametrize("piece", PIECES, ids=lambda piece: piece.__name__.strip("_"))
def test_litert_gives_the_bits_of_every_kind_of_operation(litert: Engine, piece: object) -> None:
    draw = random.Random(7)
    image = keras.Input((19, 22, 8))
    _check(litert, keras.Model(image, piece(image, draw)), draw, count=2)  # type: ignore[operator]


@pytest.mark.parametrize("number", range(examples(2)))
def test_tensorflows_proof_never_lies_for_a_random_network(tensorflow: Engine, number: int) -> None:
    draw = random.Random(number)
    _check_equivalence(tensorflow, random_spatial_network(draw), draw, count=2)


@pytest.mark.parametrize("piece", PIECES, ids=lambda piece: piece.__name__.strip("_"))
def test_tensorflows_proof_never_lies_for_any_kind_of_operation(tensorflow: Engine, piece: object) -> None:
    draw = random.Random(7)
    image = keras.Input((19, 22, 8))
    _check_equivalence(tensorflow, keras.Model(image, piece(image, draw)), draw, count=1)  # type: ignore[operator]


def _check(engine: Engine, keras_model: object, draw: random.Random, count: int) -> None:
    """All tiles of some stacks together have the bits of the whole."""
    model, made = _whole(engine, keras_model, draw)
    assert engine.promise().tiles == EXACT
    for stack, grid in _stacks(model, draw, count):
        tiled = TiledStack(engine, model, split(model.graph, stack, grid))
        assert np.array_equal(tiled.run(made), made[stack.output]), (stack, str(grid), tiled.first_difference(made))


_REFUSED = re.compile(
    r"block \d+ \('.*', \w+\) runs another kernel over \d+x\d+ than over \d+x\d+; "
    r"end the stack before block \d+, or choose fewer or other tiles"
)


def _check_equivalence(engine: Engine, keras_model: object, draw: random.Random, count: int) -> None:
    """A kind of tile that the proof accepts has the bits of the whole on other numbers, too; else the error helps."""
    model, made = _whole(engine, keras_model, draw)
    for stack, grid in _stacks(model, draw, count):
        tile_map, equivalence = split(model.graph, stack, grid), TileEquivalence(engine, model, stack)
        for tile in tile_map.tiles:
            try:
                segment = equivalence.compile_tile(tile_map, tile)
            except TileError as error:
                refused = str(error)
            else:
                expected = part(made[stack.output], tile.regions[stack.output])
                assert np.array_equal(segment.run(cut(tile_map, tile, made)), expected)
                continue
            assert _REFUSED.search(refused), refused


def _whole(engine: Engine, keras_model: object, draw: random.Random) -> tuple[PreparedModel, dict[int, Array]]:
    """The prepared model, and every tensor of a random frame."""
    model = prepare(keras_model, "random")
    graph, frame = model.graph, frame_of(model.graph, draw.randint(0, 99))
    made = engine.compile(model, range(len(graph)), graph.inputs, range(len(graph.tensors))).run(frame)
    assert all(np.array_equal(made[t], array) for t, array in unsplit(engine, model).run(frame).items())
    return model, made


def _stacks(model: PreparedModel, draw: random.Random, count: int) -> list[tuple[Stack, Grid]]:
    """The longest stack and some others, each with a grid."""
    graph = model.graph
    found = sorted(stacks(graph), key=lambda one: -len(one.blocks))
    assert found, [(block.kind, block.windows) for block in graph.blocks]
    chosen = [found[0], *draw.sample(found, min(count - 1, len(found)))]
    return [(stack, _random_grid(graph, stack, draw, most=3)) for stack in chosen]


@pytest.mark.parametrize("name", ["resnet18"])
def test_a_real_networks_longest_stack_keeps_its_bits_in_tiles(litert: Engine, name: str) -> None:
    model = store.load(ModelSource(name, name))
    graph, frame = model.graph, frame_of(model.graph)
    stack = max(stacks(graph), key=lambda one: len(one.blocks))
    whole = litert.compile(model, range(len(graph)), graph.inputs, (*stack.inputs, stack.output)).run(frame)
    tiled = TiledStack(litert, model, split(graph, stack, Grid.parse("2x2")))
    assert np.array_equal(tiled.run(whole), whole[stack.output])
