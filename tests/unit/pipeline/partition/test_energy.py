"""Joules of a placement, reckoned by hand."""

from __future__ import annotations

import pytest

from pipeline.cost import Costs, Link, predict
from pipeline.energy import Draw
from pipeline.errors import PlanError
from pipeline.partition.constraints import EnergyLimit, broken
from pipeline.placement import Tier
from pipeline.tiles_cost import TilesCost
from tests.graphs import chain

GRAPH = chain(1000, 1000, 1000)
DEVICE, EDGE, CLOUD = Tier
SECONDS = {DEVICE: (0.0, 0.1, 0.1), EDGE: (0.0, 0.05, 0.05), CLOUD: (0.0, 0.01, 0.01)}
DRAWS = {DEVICE: Draw(4.0, 1e-6), EDGE: Draw(40.0, 2e-6), CLOUD: Draw(100.0, 3e-6)}
COSTS = Costs(
    SECONDS,
    Link(1e6, 0.0),
    Link(1e6, 0.0),
    send_receive_overhead={DEVICE: 0.001, EDGE: 0.002, CLOUD: 0.003},
    frame_overhead_s=0.01,
    draws=DRAWS,
)


def test_a_device_alone_computes_and_reads_its_frame() -> None:
    assert predict(GRAPH, (DEVICE,) * 3, COSTS).joules == pytest.approx(4.0 * (0.2 + 0.01))


def test_both_ends_of_what_crosses_take_energy_and_waiting_takes_none() -> None:
    (sent,) = {GRAPH.tensors[t].nbytes for t in GRAPH.blocks[1].outputs}
    (answer,) = {GRAPH.tensors[t].nbytes for t in GRAPH.outputs}
    found = predict(GRAPH, (DEVICE, DEVICE, CLOUD), COSTS).joules
    device = 4.0 * (0.1 + 0.01 + 0.001) + 1e-6 * (sent + answer)
    cloud = 100.0 * (0.01 + 0.003) + 3e-6 * (sent + answer)
    assert found == pytest.approx(device + cloud)


def test_tiles_draw_what_their_nodes_draw_in_place_of_the_edge() -> None:
    tiles = TilesCost(0.04, 0.05, 0.02, 0.02, joules=1.5)
    seconds = {**SECONDS, EDGE: (0.0, 0.04, 0.05)}
    costs = Costs(seconds, COSTS.device_edge, COSTS.edge_cloud, draws={EDGE: DRAWS[EDGE]}, tiles=tiles)
    (sent,) = {GRAPH.tensors[t].nbytes for t in GRAPH.blocks[0].outputs}
    (answer,) = {GRAPH.tensors[t].nbytes for t in GRAPH.outputs}
    found = predict(GRAPH, (DEVICE, EDGE, EDGE), costs).joules
    assert found == pytest.approx(1.5 + 40.0 * 0.05 + 2e-6 * (sent + answer))


def test_an_energy_limit_is_what_is_predicted() -> None:
    for placement in ((DEVICE,) * 3, (DEVICE, DEVICE, CLOUD), (DEVICE, EDGE, CLOUD), (DEVICE, CLOUD, CLOUD)):
        joules = predict(GRAPH, placement, COSTS).joules
        assert not broken(GRAPH, placement, COSTS, [EnergyLimit(joules * (1 + 1e-9))])
        assert broken(GRAPH, placement, COSTS, [EnergyLimit(joules * (1 - 1e-6))])


def test_what_is_no_power_is_refused() -> None:
    with pytest.raises(PlanError, match="the edge draws -1"):
        Costs(SECONDS, COSTS.device_edge, COSTS.edge_cloud, draws={EDGE: Draw(-1.0)}).check(GRAPH)
