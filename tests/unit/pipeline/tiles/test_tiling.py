"""A plan's tiles: the stage cut in three, the value on the wire, and what is refused."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import PlanError, TileError, TrisectError
from pipeline.placement import Tier, stages
from pipeline.plan import NodeId, Plan
from pipeline.tiles import stacks
from pipeline.tiles.arrays import cut, merge
from pipeline.tiles.tiling import MAX_TILES, Tiling, tiled_stage
from tests.effort import examples
from tests.graphs import chain, graphs, placements
from tests.properties.symbolic import HEIGHT, WIDTH, model_inputs, run_blocks, symbolic
from tests.unit.pipeline.test_graph import values
from tests.unit.pipeline.test_plan import plan_of

D, E, C = Tier
GRAPH = symbolic(chain(8, 8, 8, 8, 8))
ON_EDGE = (D, E, E, E, E)
ONE, TWO = NodeId("worker-1"), NodeId("worker-2")
TILING = Tiling(2, 3, (2, 1), (1, 1), (ONE, TWO, ONE, NodeId("edge-1")))


def tiled(tiles: Tiling | None = TILING) -> Plan:
    return replace(plan_of(GRAPH, ON_EDGE), tiles=tiles)


@settings(max_examples=examples(80))
@given(st.data(), st.integers(0, 2**32 - 1))
def test_the_three_parts_of_any_tiled_stage_make_what_the_stage_makes(data: st.DataObject, seed: int) -> None:
    graph = symbolic(data.draw(graphs()))
    placement = data.draw(placements(graph))
    draw = random.Random(seed)
    found = [one for one in stacks(graph) if all(placement[block] is E for block in one.blocks)]
    if not found:
        return
    stack = draw.choice(found)
    rows = draw.choice([(3,), (1, 2), (1, 1, 1)])
    tiling = Tiling(stack.first, stack.last, rows, (1, 1), (ONE,) * (2 * len(rows)))
    edge = next(stage for stage in stages(graph, placement) if stage.tier is E)
    parts = tiled_stage(graph, placement, edge, tiling)
    assert sorted((*parts.before.blocks, *parts.stack.blocks, *parts.after.blocks)) == list(edge.blocks)
    right = run_blocks(graph, range(len(graph)), model_inputs(graph, 1))
    made = run_blocks(graph, parts.before.blocks, {tensor: right[tensor] for tensor in parts.before.inputs})
    kept = {tensor: made[tensor] for tensor in parts.before.outputs}
    pieces = [
        run_blocks(graph, parts.stack.blocks, cut(parts.tile_map, tile, kept))[parts.stack.output]
        for tile in parts.tile_map.tiles
    ]
    kept[parts.stack.output] = merge(parts.tile_map, pieces)
    rest = run_blocks(graph, parts.after.blocks, {tensor: kept[tensor] for tensor in parts.after.inputs})
    assert all((rest[tensor] == right[tensor]).all() for tensor in edge.outputs)


def test_blocks_that_the_stack_does_not_hang_on_run_after_it() -> None:
    parts = tiled().tiled_stage(GRAPH)
    assert parts is not None
    assert (parts.before.blocks, parts.stack.blocks, parts.after.blocks) == ((1,), (2, 3), (4,))
    assert (parts.before.outputs, parts.after.inputs, parts.after.outputs) == ((1,), (3,), (4,))


def test_a_plan_with_tiles_survives_json_and_names_its_workers_once() -> None:
    plan = tiled()
    value = json.loads(json.dumps(plan.to_json(GRAPH)))
    assert (value["tiles"]["from"], value["tiles"]["to"]) == ("b2", "b3")
    assert Plan.from_json(value, GRAPH) == plan
    assert plan.workers == (ONE, TWO)
    assert plan.members == (NodeId("device-1"), NodeId("edge-1"), ONE, TWO)
    assert tiled(None).workers == ()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rows": [2, 1, 1]}, "4 workers for 3x2 tiles: name one for each tile"),
        ({"rows": [3, 0]}, "tiles.rows.1: Input should be greater than or equal to 1"),
        ({"rows": [], "workers": []}, "give each side one or more"),
        ({"workers": ["device-1"] * 4}, "a tile's worker is a node that has no stage of its own"),
        ({"rows": [1] * (MAX_TILES + 1), "columns": [1], "workers": ["worker-1"] * (MAX_TILES + 1)}, "at most 256"),
        ({"first": 0}, "has blocks 1 to 4"),
        ({"first": 3, "last": 2}, "has blocks 1 to 4"),
        ({"rows": [2, 2]}, f"do not cover 0 to {HEIGHT}"),
        ({"columns": [2, 1]}, f"do not cover 0 to {WIDTH}"),
        ({"workers": None}, "not a plan"),
    ],
)
def test_tiles_that_do_not_fit_are_refused_in_words(changed: dict[str, Any], said: str) -> None:
    value = tiled().to_json(GRAPH)
    value["tiles"] |= changed
    with pytest.raises(PlanError, match=said):
        Plan.from_json(value, GRAPH)


def test_a_stack_that_does_not_stand_on_the_edge_alone_is_refused() -> None:
    for placement in ((D, D, D, E, E), (D, E, E, C, C)):
        edge = next(stage for stage in stages(GRAPH, placement) if stage.tier is E)
        with pytest.raises(TileError, match="tiles are the edge's"):
            tiled_stage(GRAPH, placement, edge, TILING)
    without_edge = plan_of(GRAPH, (D, C, C, C, C)).to_json(GRAPH) | {"tiles": TILING.to_json(GRAPH)}
    with pytest.raises(PlanError, match="needs an edge node"):
        Plan.from_json(without_edge)


@given(st.dictionaries(st.sampled_from(["first", "last", "rows", "columns", "workers"]), values))
def test_any_tiles_are_read_or_refused(changed: dict[str, object]) -> None:
    value = tiled().to_json(GRAPH)
    value["tiles"] |= changed
    try:
        Plan.from_json(value, GRAPH)
    except TrisectError:
        pass
