"""Cores that nodes of one machine share, worked out by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pipeline.cost import Prediction, predict
from pipeline.shared_cores import CoresCost, SharedCores, joined
from pipeline.tiles_cost import TilesCost
from tests.unit.pipeline.test_cost import COSTS, GRAPH, C, D, E

SHARED = SharedCores("here", 4.0, {D: 0.25, E: 1.0})
"""A device with one thread of four, an edge with all four."""
SPLIT = (D, D, E, E, C)
FAST = replace(COSTS, device_edge=replace(COSTS.device_edge, bandwidth_bytes_per_s=1e9), edge_cloud=COSTS.device_edge)


def test_a_frame_takes_all_cores_for_its_nodes_shares_of_their_seconds() -> None:
    alone = predict(GRAPH, SPLIT, FAST)
    found = predict(GRAPH, SPLIT, replace(FAST, cores=(SHARED,)))
    assert found.cores == (CoresCost(4.0, ("device", "edge"), 0.25 * 5.0 + 0.5),)
    assert found.seconds == alone.seconds, "one frame's latency is as it was: its nodes compute one after the other"
    assert (found.period_s, found.bottleneck) == (5.0, "the device"), "which has a core of its own most of the time"


def test_the_period_is_that_of_the_cores_where_these_are_busiest() -> None:
    half = SharedCores("here", 2.0, {D: 0.5, E: 0.5, C: 0.5})
    slow = replace(FAST, seconds={tier: [0.0, 1.0, 1.0, 1.0, 1.0] for tier in (D, E, C)}, cores=(half,))
    found = predict(GRAPH, (D, D, E, E, C), slow)
    assert (found.period_s, found.bottleneck) == (2.0, "the edge")
    found = predict(GRAPH, (D, D, E, C, C), replace(slow, cores=(replace(half, shares={D: 0.5, E: 0.75, C: 0.75}),)))
    assert found.period_s == pytest.approx(0.5 + 0.75 + 1.5)
    assert found.bottleneck == "the 2 cores that device, edge and cloud share"
    assert Prediction.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_tiles_of_workers_count_and_the_edge_waits_for_them_without_its_cores() -> None:
    tiles = TilesCost(seconds=0.4, alone_seconds=0.5, own_seconds=0.1, busy_seconds=0.2, cores_seconds={"w": 0.15})
    shared = SharedCores("here", 4.0, {E: 1.0}, ("v", "w"))
    assert predict(GRAPH, (D, E, E, E, E), replace(FAST, cores=(shared,))).cores == ()
    costs = replace(FAST, tiles=tiles, cores=(shared.with_tiles(tiles.cores_seconds),))
    (taken,) = predict(GRAPH, (D, E, E, E, E), costs).cores
    assert taken.busy_seconds == pytest.approx(1.1 - 0.3 + 0.15)
    assert str(taken) == "the 4 cores that edge and w share"


def test_a_machine_with_one_node_of_the_placement_says_nothing() -> None:
    assert predict(GRAPH, (D, D, C, C, C), replace(FAST, cores=(SHARED,))).cores == ()


def test_a_bound_of_several_sets_has_the_cores_that_all_have_alike() -> None:
    other = SharedCores("there", 2.0, {D: 0.5, C: 0.5})
    assert joined([(SHARED, other), (other,)]) == (other,)
    assert joined([(SHARED,), ()]) == ()
