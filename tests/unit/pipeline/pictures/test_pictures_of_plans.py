"""Pictures, continued."""

from __future__ import annotations

import math
from itertools import combinations, pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cost import Costs, predict
from pipeline.errors import PlanError
from pipeline.graph import Block, ModelGraph, Tensor
from pipeline.partition.explain import NOTHING_POSSIBLE, decision_map
from pipeline.partition.objective import LATENCY
from pipeline.partition.priced_plan import NodeSet
from pipeline.pictures import heat, heat_map, placement_bars, placement_graph, tiers
from pipeline.pictures.svg import bytes_text, seconds_text
from pipeline.placement import Placement, Tier
from tests.graphs import chain
from tests.unit.pipeline.pictures.test_pictures import (
    HOSTILE,
    LINKS,
    MISSING_CONES,
    SVG,
    _cells,
    _costs,
    _heat,
    _heat_cells,
    _of_class,
    _placed,
    _plans,
    _size,
    _texts,
    _title,
)


def test_names_are_escaped() -> None:
    tensors = (Tensor(0, HOSTILE, (1, 2), "float32"), Tensor(1, HOSTILE, (1, 2), "float32"))
    blocks = (Block(0, HOSTILE, HOSTILE, (), (), (0,)), Block(1, HOSTILE, HOSTILE, (), (0,), (1,)))
    graph = ModelGraph(HOSTILE, "d", tensors, blocks, (0,), (1,))
    placement, known = (Tier.DEVICE, Tier.EDGE), _costs(0.0, 1e-3)
    shown = HOSTILE.replace("\x00", "\ufffd").replace("\x1b", "\ufffd").replace("\ud800", "\ufffd")
    cells = heat_map(
        title=HOSTILE, device_edge=[1e6], edge_cloud=[1e6], kinds=[[HOSTILE]], values=[[1.0]], here=(1e6, 1e6)
    )
    pictures = (
        placement_graph(graph, placement, predict(graph, placement, known)),
        placement_bars(graph, placement, known),
        cells,
    )
    for picture in pictures:
        picture.encode()
        root = ElementTree.fromstring(picture)
        assert any(shown in text for text in root.itertext())
        assert not [element for element in root.iter() if element.tag.endswith("}b")]


def test_a_placement_that_does_not_fit_is_refused() -> None:
    graph, known = chain(1, 2, 3), _costs(0.0, 0.0, 0.0)
    backwards = (Tier.DEVICE, Tier.EDGE, Tier.DEVICE)
    with pytest.raises(PlanError, match="backwards"):
        placement_graph(graph, backwards, predict(graph, backwards, known))
    with pytest.raises(PlanError, match="backwards"):
        placement_bars(graph, backwards, known)


def test_bars_grow_by_the_logarithm_of_milliseconds() -> None:
    seconds = (0.0, *(10.0**power for power in range(-5, 2)))
    root = ElementTree.fromstring(placement_bars(chain(*[1] * 8), (Tier.DEVICE,) * 8, _costs(*seconds)))
    tops = [float(bar.attrib["y"]) for bar in _of_class(root, "block")]
    steps = [before - after for before, after in pairwise(tops[1:])]
    assert min(steps) > 0
    assert max(steps) - min(steps) < 0.3
    assert all(float(bar.attrib["height"]) >= 0 for bar in _of_class(root, "block"))


@given(_plans())
def test_transfers_stand_between_the_stages(plan: tuple[ModelGraph, Placement, Costs]) -> None:
    graph, placement, known = plan
    root = ElementTree.fromstring(placement_bars(*plan))
    bars = [element for element in root.iter() if element.get("class") in {"block", "transfer"}]
    prediction = predict(graph, placement, known)
    expected: list[str] = []
    for tier in Tier:
        if tier > Tier.DEVICE and (label := f"{Tier(tier - 1).label}_{tier.label}") in prediction.links:
            expected.append(label.replace("_", " → "))
        expected += [str(i) for i, placed in enumerate(placement) if placed == tier]
    assert [_title(bar).split(":")[0] if "→" in _title(bar) else _title(bar).split()[0] for bar in bars] == expected


def test_bars_of_655_blocks_come_in_rows() -> None:
    graph = _cells(41)
    root = ElementTree.fromstring(placement_bars(graph, _placed(len(graph)), _costs(*[1e-3] * 657)))
    assert len({bar.attrib["y"] for bar in _of_class(root, "block")}) > 1
    width, height = _size(root)
    assert 0.5 < width / height < 3


def test_each_cell_has_the_colour_of_its_kind_and_tells_its_seconds() -> None:
    for i, j, cell in _heat_cells(3, 4):
        kind = list(heat.COLOURS)[(i + j) % 5]
        assert cell.attrib["fill"] == heat.COLOURS[kind]
        assert _title(cell).startswith(f"{kind}: {seconds_text((1 + i) * 0.1 + j)} ")
        assert f"{10.0 ** (i + 4) * 8 / 1e6:.3g} and {2.0**j * 8:.3g} Mbit/s" in _title(cell)


def test_cells_go_right_with_the_first_link_and_up_with_the_second() -> None:
    at = {(i, j): (float(cell.attrib["x"]), float(cell.attrib["y"])) for i, j, cell in _heat_cells(3, 4)}
    assert all(at[i, j][0] < at[i + 1, j][0] for i in range(2) for j in range(4))
    assert all(at[i, j][1] > at[i, j + 1][1] for i in range(3) for j in range(3))


def test_the_legend_has_the_kinds_that_occur_and_only_these() -> None:
    for columns, rows in ((1, 1), (1, 2), (3, 4)):
        occurring = set(list(heat.COLOURS)[: columns + rows - 1])
        listed = {text.split(":")[0] for text in _texts(_heat(columns, rows)) if " ms" in text or " s" in text}
        assert listed == occurring if columns + rows < 6 else listed <= set(heat.COLOURS)


@pytest.mark.parametrize("here", [(1e5, 2e6), (1.0, 1e12), (math.inf, 1e6)])
def test_the_present_bandwidths_are_marked_within_the_map(here: tuple[float, float]) -> None:
    assert not list(_heat().iter(f"{SVG}circle"))
    root = _heat(here=here)
    _, mark = root.iter(f"{SVG}circle")
    cells = _of_class(root, "cell")
    left = min(float(cell.attrib["x"]) for cell in cells)
    right = max(float(cell.attrib["x"]) + float(cell.attrib["width"]) for cell in cells)
    assert left - 0.2 <= float(mark.attrib["cx"]) <= right + 0.2


@pytest.mark.parametrize(
    ("device_edge", "kinds"),
    [
        ([], []),
        ([0.0], [["edge"]]),
        ([2.0, 1.0], [["edge"], ["edge"]]),
        ([math.inf], [["edge"]]),
        ([1.0], [["a", "b"]]),
    ],
)
def test_a_map_that_does_not_fit_its_bandwidths_is_refused(device_edge: list[float], kinds: list[list[str]]) -> None:
    with pytest.raises(ValueError, match=r"bandwidths|zip"):
        heat_map(
            title="", device_edge=device_edge, edge_cloud=[1.0], kinds=kinds, values=[[1.0]] * len(kinds), here=None
        )


def test_a_map_shows_what_the_search_found_at_the_same_bandwidths() -> None:
    known = Costs({Tier.DEVICE: [0.0, 1.0, 1.0], Tier.EDGE: [0.0, 0.1, 0.1]}, *LINKS)
    candidate = NodeSet({Tier.DEVICE: "pi", Tier.EDGE: "box"}, known)
    # As many of one link as of the other: if the map took them for each other, it would still be drawn.
    bandwidths = [10.0, 1e3, 1e6, 1e8]
    kinds, seconds = decision_map(chain(1000, 1000, 1000), [candidate], [], LATENCY, bandwidths, bandwidths)
    picture = heat_map(title="m", device_edge=bandwidths, edge_cloud=bandwidths, kinds=kinds, values=seconds, here=None)
    columns: dict[float, set[str]] = {}
    for cell in _of_class(ElementTree.fromstring(picture), "cell"):
        columns.setdefault(float(cell.attrib["x"]), set()).add(cell.attrib["fill"])
    # The cloud has no node, so only the link to the edge matters: each column has one colour.
    expected = [{heat.COLOURS[kind]} for kind in ("device", "device", "edge", "edge")]
    assert [columns[x] for x in sorted(columns)] == expected


def test_where_no_plan_is_possible_no_seconds_are_told() -> None:
    kinds, seconds = [["edge"], [NOTHING_POSSIBLE]], [[0.1], [math.inf]]
    picture = heat_map(title="m", device_edge=[1e6, 2e6], edge_cloud=[1e6], kinds=kinds, values=seconds, here=None)
    root = ElementTree.fromstring(picture)
    possible, impossible = _of_class(root, "cell")
    assert _title(possible) == "edge: 100 ms at 8 and 8 Mbit/s"
    assert _title(impossible) == f"{NOTHING_POSSIBLE} at 16 and 8 Mbit/s"
    assert impossible.attrib["fill"] not in heat.COLOURS.values()
    assert NOTHING_POSSIBLE in _texts(root)


@pytest.mark.parametrize("missing", MISSING_CONES)
@pytest.mark.parametrize(("colours", "least"), [(tiers.COLOURS, 35), (heat.COLOURS, 28)])
def test_colours_are_told_apart_with_any_colour_vision(missing: str, colours: dict[object, str], least: float) -> None:
    def lab(colour: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        seen = np.clip(np.array(MISSING_CONES[missing]) @ linear, 0, 1)
        xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
        xyz = xyz / [0.9505, 1, 1.089]
        f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])

    for one, other in combinations(colours.values(), 2):
        assert np.linalg.norm(lab(one) - lab(other)) >= least - 1


def test_units_are_those_people_read() -> None:
    assert [bytes_text(n) for n in (0, 999, 1000, 602_112, 999_600, 12_845_056)] == [
        *("0 B", "999 B", "1 kB", "602 kB", "1 MB", "12.8 MB")
    ]
    assert [seconds_text(s) for s in (0, 1e-9, 1e-6, 0.0123, 0.99949, 0.9996, 75.04, 5000)] == [
        *("0 ms", "<0.001 ms", "0.001 ms", "12.3 ms", "999 ms", "1 s", "75 s", "5,000 s")
    ]


@given(st.floats(1e-6, 1e9), st.integers(0, 10**15))
def test_units_need_no_exponents(seconds: float, nbytes: int) -> None:
    assert "e" not in seconds_text(seconds) + bytes_text(nbytes)
