"""Tiles: grids, stacks, and what is said of those that a model does not have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.engines import create
from pipeline.engines.tiling import TileEquivalence
from pipeline.errors import ModelError, PlanError, TileError
from pipeline.graph import Axis, ModelGraph
from pipeline.models.graphs import shipped_graph
from pipeline.prepare.model import prepare
from pipeline.tensorflow_runtime import keras
from pipeline.tiles import Grid, Span, split, stack_named, stacks
from pipeline.tiles.arrays import cut, merge
from pipeline.tiles.grid import spans
from pipeline.tiles.regions import fit, needed
from pipeline.tiles.split import split_at
from tests.networks import L

ENGINE = create("litert", 1)


@pytest.mark.parametrize(
    ("axis", "made", "size", "read", "pads"),
    [
        (Axis(3, 1, 1, 1, 1), Span(0, 4), 8, Span(0, 5), (1, 0)),
        (Axis(3, 1, 1, 1, 1), Span(4, 8), 8, Span(3, 8), (0, 1)),
        (Axis(3, 2, 1, 0, 1), Span(2, 4), 8, Span(4, 8), (0, 1)),  # same, even size: all padding is below
        (Axis(3, 1, 2, 2, 2), Span(3, 5), 8, Span(1, 7), (0, 0)),  # dilated
        (Axis(7, 2, 1, 3, 3), Span(0, 1), 9, Span(0, 4), (3, 0)),
        (Axis(7, 1, 1, 3, 3), Span(0, 2), 2, Span(0, 2), (3, 3)),  # a kernel wider than the map
        (Axis(before=2, after=1), Span(0, 2), 5, Span(0, 1), (2, 0)),  # nothing but padding
        (Axis(before=-1, after=-2), Span(0, 2), 5, Span(1, 3), (0, 0)),  # cropped
        (Axis(scale=3), Span(2, 5), 4, Span(0, 2), (0, 0)),
    ],
)
def test_a_span_of_outputs_reads_this_span_with_this_padding(
    axis: Axis, made: Span, size: int, read: Span, pads: tuple[int, int]
) -> None:
    assert needed(axis, made, size) == read
    found = fit(axis, made, read, size)
    assert (found.before, found.after) == pads


def test_grids_are_read_and_written() -> None:
    assert Grid.parse("2x3") == Grid((1, 1), (1, 1, 1))
    assert Grid.parse("3,5,8x1") == Grid((3, 5, 8), (1,))
    assert [str(Grid.parse(text)) for text in ("2x3", "3,5,8x1")] == ["2x3", "3,5,8x1"]
    assert len(Grid.parse("3x3")) == 9


@pytest.mark.parametrize(
    "text", ["", "2", "2x", "x", "axb", "0x1", "-1x2", "2x2x2", "3,,5x1", "3,0x1", "1e9x1", "99999x1"]
)
def test_a_malformed_grid_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(TileError, match=r"2x2|at least|at most"):
        Grid.parse(text)


def test_shares_become_spans_that_are_never_empty() -> None:
    assert spans((3, 5, 8), 16, "rows") == (Span(0, 3), Span(3, 8), Span(8, 16))
    assert spans((1, 1), 7, "rows") == (Span(0, 4), Span(4, 7))
    assert spans((1000, 1, 1), 3, "rows") == (Span(0, 1), Span(1, 2), Span(2, 3))
    with pytest.raises(TileError, match=r"4 tiles over 3 rows: ask for 3 or fewer"):
        spans((1, 1, 1, 1), 3, "rows")


def _small() -> Any:
    image = keras.Input((16, 12, 3), name="image")
    x = L.Conv2D(8, 3, padding="same", activation="relu", name="stem")(image)
    y = L.Conv2D(8, 3, padding="same", name="left")(x)
    x = L.Add(name="join")([x, y])
    gate = L.Conv2D(8, 1, activation="sigmoid", name="gate")(L.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x))
    x = L.MaxPooling2D(2, name="pool")(L.Multiply(name="excite")([x, gate]))
    return prepare(keras.Model(image, L.Dense(3, name="head")(L.Flatten(name="flat")(x))), "small")


def _named(graph: ModelGraph, text: str) -> tuple[str, ...]:
    return tuple(graph.blocks[b].name for b in stack_named(graph, text).blocks)


def test_stacks_are_runs_of_maps_with_one_exit() -> None:
    graph = _small().graph
    found = {(graph.blocks[one.first].name, graph.blocks[one.last].name) for one in stacks(graph)}
    assert {("stem", "join"), ("left", "join"), ("join", "join"), ("excite", "pool"), ("gate", "pool")} <= found
    assert not any(last in {"squeeze", "flat", "head"} or first == "squeeze" for first, last in found)
    assert ("stem", "excite") not in found, "the whole map is squeezed in between"
    assert ("stem", "left") not in found, "the sum reads the stem, too"
    assert _named(graph, "stem:join") == ("stem", "left", "join")
    assert _named(graph, "1:3") == ("stem", "left", "join")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stem", "FROM:TO"),
        (":", "FROM:TO"),
        ("join:stem", "ends .block 1. before it begins .block 3."),
        ("stem:head", "'head', Dense. .*end it before block"),
        ("stem:excite", "'squeeze', GlobalAveragePooling2D"),
        ("stem:left", "also read by block 3 .'join'."),
        ("input:join", "the input is not computed"),
        ("left:gate", "squeeze"),
    ],
)
def test_a_stack_that_is_none_is_refused_with_its_block_and_the_mend(text: str, said: str) -> None:
    with pytest.raises(TileError, match=said):
        stack_named(_small().graph, text)


def test_a_wrong_block_name_says_which_are_near() -> None:
    with pytest.raises(ModelError, match=r"no block 'jion'; nearest: .*join"):
        stack_named(_small().graph, "stem:jion")


def test_more_tiles_than_rows_are_refused_with_the_maps_size() -> None:
    graph = _small().graph
    stack = stack_named(graph, "excite:pool")
    with pytest.raises(TileError, match=r"9 tiles over 8 rows of pool's 8x6 map: ask for 8 or fewer"):
        split(graph, stack, Grid.parse("9x1"))
    with pytest.raises(TileError, match="do not cover 0 to 8"):
        split_at(graph, stack, (Span(0, 3), Span(4, 8)), (Span(0, 6),))


def test_halo_and_extra_work_of_two_halves() -> None:
    graph = _small().graph
    tile_map = split(graph, stack_named(graph, "stem:join"), Grid.parse("2x1"))
    upper, lower = tile_map.tiles
    assert (upper.regions[0].rows, lower.regions[0].rows) == (Span(0, 10), Span(6, 16))
    assert tile_map.extra_input == pytest.approx(4 / 16)
    stem, left = graph.blocks[1].macs, graph.blocks[2].macs
    adds = 16 * 12 * 8
    assert tile_map.extra_work == pytest.approx(stem * 2 / 16 / (stem + left + adds))


def test_tiles_of_one_shape_and_border_share_a_segment() -> None:
    model = _small()
    stack = stack_named(model.graph, "stem:join")
    by_grid = {g: {t.kind for t in split(model.graph, stack, Grid.parse(g)).tiles} for g in ("4x1", "4x4", "1x1")}
    assert {grid: len(kinds) for grid, kinds in by_grid.items()} == {"4x1": 3, "4x4": 9, "1x1": 1}


def test_what_is_cut_and_merged_is_what_it_was() -> None:
    graph = _small().graph
    tile_map = split(graph, stack_named(graph, "excite:excite"), Grid.parse("3,4x5"))
    x, gate = (np.random.default_rng(0).random(graph.tensors[t].shape) for t in tile_map.stack.inputs)
    given = dict(zip(tile_map.stack.inputs, (x, gate), strict=True))
    parts = [cut(tile_map, tile, given)[tile_map.stack.inputs[0]] for tile in tile_map.tiles]
    assert np.array_equal(merge(tile_map, parts), x)


def test_a_tile_of_another_shape_is_refused_with_both() -> None:
    model = _small()
    tile_map = split(model.graph, stack_named(model.graph, "stem:join"), Grid.parse("2x2"))
    segment = ENGINE.compile_tile(model, tile_map.tiles[0], tile_map.stack)
    with pytest.raises(PlanError, match=r"float32\(1, 16, 12, 3\), this tile needs float32\(1, 10, 8, 3\)"):
        segment.run({0: np.zeros((1, 16, 12, 3), np.float32)})
    with pytest.raises(PlanError, match="missing"):
        segment.run({})


class _OneBitOff:
    """LiteRT, but each tile of a block that is not the first is wrong in the last bit."""

    name, version, threads = "wrong", "0", 1
    compile, profile, promise, sketched = ENGINE.compile, ENGINE.profile, ENGINE.promise, ENGINE.sketched

    def compile_tile(self, model: Any, tile: Any, stack: Any) -> Any:
        segment = ENGINE.compile_tile(model, tile, stack)
        return segment if len(stack.blocks) == 1 else _Wrong(segment)


class _Wrong:
    def __init__(self, right: Any) -> None:
        self._right, self.inputs, self.output = right, right.inputs, right.output

    def run(self, tensors: Any) -> Any:
        return np.nextafter(self._right.run(tensors), np.float32(9))


def test_a_grid_that_changes_a_bit_is_refused_and_the_block_named() -> None:
    model = _small()
    tile_map = split(model.graph, stack_named(model.graph, "stem:join"), Grid.parse("2x1"))
    for tile in tile_map.tiles:
        assert (
            TileEquivalence(ENGINE, model, tile_map.stack).compile_tile(tile_map, tile).output == tile_map.stack.output
        )
    with pytest.raises(
        TileError, match=r"block 2 \('left', Conv2D\) .* 8x12 than over 16x12; end the stack before block 2"
    ):
        TileEquivalence(_OneBitOff(), model, tile_map.stack).compile_tile(tile_map, tile_map.tiles[0])


def test_what_hangs_on_whole_maps_or_rounds_by_their_size_cannot_be_tiled() -> None:
    image = keras.Input((16, 16, 6))
    x = L.Conv2D(6, 3, name="conv")(image)
    for layer in (
        L.LayerNormalization(name="norm"),
        L.Activation("swish", name="six_channels"),
        L.Activation(lambda x: x - keras.ops.mean(x), name="own"),
        L.Softmax(axis=1, name="over_rows"),
        L.PReLU(name="slope_per_place"),
        L.UpSampling2D(2, interpolation="bilinear", name="bilinear"),
        L.Conv2DTranspose(8, 2, strides=2, name="transposed"),
        L.Conv2D(8, 3, activation=lambda x: x / keras.ops.sum(x), name="own_within"),
        L.GroupNormalization(2, name="groups"),
    ):
        x = layer(x)
    x = x + np.random.default_rng(0).random((x.shape[1], 1, 1)).astype(np.float32)
    graph = prepare(keras.Model(image, L.Activation("swish", name="eight")(x)), "whole").graph
    assert [b.name for b in graph.blocks if b.windows is not None] == ["conv", "eight"]


def test_the_papers_networks_can_be_tiled_up_to_their_heads_from_the_manifest_alone() -> None:
    for name, least in (("vgg16", 18), ("resnet50", 70), ("inception_v4", 180), ("nasnet_mobile", 480)):
        graph = shipped_graph(name)
        longest = max(stacks(graph), key=lambda one: len(one.blocks))
        assert len(longest.blocks) >= least
        assert longest.inputs == graph.inputs
        tile_map = split(graph, longest, Grid.parse("2x2"))
        assert tile_map.extra_work > 0
        assert ModelGraph.from_json(json.loads(json.dumps(graph.to_json()))) == graph


def test_the_command_says_what_it_tiled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from nodes.cli.models import run_verify

    path = tmp_path / "verdicts.json"
    options: dict[str, Any] = {"weights": "seed:0", "placements": 2, "seed": 0, "threads": 1, "json_path": path}
    options |= {"engine": "litert", "tiles": ["2x2", "1,2x1"]}
    assert run_verify(["alexnet"], **options) == 0
    (found,) = json.loads(path.read_text())
    assert (found["model"], found["stacks"], found["tilings"], found["equal"], found["holds"]) == (
        "alexnet",
        2,
        4,
        4,
        True,
    )
    assert "tilings" in capsys.readouterr().out
    with pytest.raises(TileError, match="give --tiles"):
        run_verify(["alexnet"], **options | {"tiles": (), "stack": "1:2"})
    with pytest.raises(TileError, match="no stack of 'alexnet' ends in a map of 60x1 or more; ask for fewer tiles"):
        run_verify(["alexnet"], **options | {"tiles": ["60x1"]})
