"""Pictures of placements: what must be in them and what must not overlap. No pixel is expected anywhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import combinations, pairwise, product
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cost import Costs, Link, predict
from pipeline.errors import PlanError
from pipeline.graph import Block, ModelGraph, Tensor
from pipeline.partition.explain import NOTHING_POSSIBLE, decision_map
from pipeline.partition.objective import LATENCY
from pipeline.partition.priced_plan import NodeSet
from pipeline.pictures import heat, heat_map, placement_bars, placement_graph, tiers
from pipeline.pictures.folded_layout import Spacing, fold
from pipeline.pictures.layers import arrange, depths
from pipeline.pictures.svg import bytes_text, seconds_text
from pipeline.placement import Placement, Tier, crossings
from tests.graphs import chain, costs, graphs, placements

SVG = "{http://www.w3.org/2000/svg}"
LINKS = (Link(1e6, 0.01), Link(1e7, 0.02))


def _costs(*seconds: float) -> Costs:
    return Costs(dict.fromkeys(Tier, seconds), *LINKS)


def _placed(blocks: int) -> Placement:
    """Three tiers of about equally many blocks."""
    return tuple(Tier(3 * index // blocks) for index in range(blocks))


def _cells(cells: int) -> ModelGraph:
    """Like NASNet: cells of 16 blocks, of which several read the cell before the last, joined by the 16th."""
    blocks, tensors = [Block(0, "input", "input", (), (), (0,))], [Tensor(0, "t0", (1, 100), "float32")]
    joins = [0, 0]
    for _ in range(cells):
        first = len(blocks)
        for i in range(16):
            inputs = (
                (joins[-1 - i % 2],) if i < 5 else (first + i - 5,) if i < 15 else tuple(range(first + 10, first + 15))
            )
            index = len(blocks)
            blocks.append(Block(index, f"a_rather_long_name_of_{index}", "Conv2D", (), inputs, (index,)))
            tensors.append(Tensor(index, f"t{index}", (1, 100 + index), "float32"))
        joins.append(len(blocks) - 1)
    return ModelGraph("cells", "d", tuple(tensors), tuple(blocks), (0,), (len(blocks) - 1,))


def _of_class(root: Element, name: str) -> list[Element]:
    return [element for element in root.iter() if element.get("class") == name]


def _title(element: Element) -> str:
    return element.findtext(f"{SVG}title") or ""


def _texts(root: Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def _size(root: Element) -> tuple[float, float]:
    return float(root.attrib["width"]), float(root.attrib["height"])


def _overlaps(shapes: list[Element]) -> int:
    """How many pairs of rectangles share more than a rounded edge."""
    box = np.array([[float(shape.attrib[name]) for name in ("x", "y", "width", "height")] for shape in shapes])
    start, end = box[:, :2] + 0.1, box[:, :2] + box[:, 2:] - 0.1
    shared = np.all((start[:, None] < end[None]) & (start[None] < end[:, None]), axis=2)
    return (int(shared.sum()) - len(shapes)) // 2


@st.composite
def _plans(draw: st.DrawFn) -> tuple[ModelGraph, Placement, Costs]:
    graph = draw(graphs())
    placement = draw(placements(graph))
    known = draw(costs(graph))
    seconds = {tier: known.seconds.get(tier, known.seconds[Tier.DEVICE]) for tier in Tier}
    return graph, placement, Costs(seconds, known.device_edge, known.edge_cloud)


@given(_plans())
def test_each_block_is_drawn_once_in_the_colour_of_its_tier(plan: tuple[ModelGraph, Placement, Costs]) -> None:
    graph, placement, known = plan
    for picture in (placement_graph(graph, placement, predict(graph, placement, known)), placement_bars(*plan)):
        drawn = {int(_title(box).split()[0]): box for box in _of_class(ElementTree.fromstring(picture), "block")}
        assert len(_of_class(ElementTree.fromstring(picture), "block")) == len(graph)
        assert [drawn[i].attrib["fill"] for i in range(len(graph))] == [tiers.COLOURS[tier] for tier in placement]
        assert all(f"on the {tier.label}" in _title(drawn[i]) for i, tier in enumerate(placement))


@given(_plans())
def test_a_tensor_that_crosses_has_its_bytes_written_once_and_no_other_has(
    plan: tuple[ModelGraph, Placement, Costs],
) -> None:
    graph, placement, known = plan
    root = ElementTree.fromstring(placement_graph(graph, placement, predict(graph, placement, known)))
    written = [text.text for text in root.iter(f"{SVG}text") if text.get("font-weight") == "bold"]
    crossing = [bytes_text(graph.tensors[c.tensor].nbytes) for c in crossings(graph, placement)]
    assert sorted(map(str, written)) == sorted(crossing)
    assert len(_of_class(root, "bytes")) == len(crossing)


def _check_boxes_and_labels(graph: ModelGraph, placement: Placement, known: Costs) -> None:
    root = ElementTree.fromstring(placement_graph(graph, placement, predict(graph, placement, known)))
    shapes = [*_of_class(root, "block"), *_of_class(root, "bytes")]
    assert not _overlaps(shapes)
    for shape in shapes:
        for start, length, size in zip(("x", "y"), ("width", "height"), _size(root), strict=True):
            assert 0 <= float(shape.attrib[start]) <= size - float(shape.attrib[length])


@given(_plans())
def test_boxes_and_labels_stand_within_the_picture_and_none_on_another(
    plan: tuple[ModelGraph, Placement, Costs],
) -> None:
    _check_boxes_and_labels(*plan)


@pytest.mark.parametrize("cells", [5, 12, 41])
def test_neither_do_they_when_there_are_many_rows(cells: int) -> None:
    graph = _cells(cells)
    _check_boxes_and_labels(graph, _placed(len(graph)), _costs(*[1e-3] * len(graph)))


def test_tensors_that_turn_together_do_not_cross() -> None:
    layers = arrange(_cells(20))
    widths = [40.0] * len(layers.order)
    folded = fold(layers, widths, widths, Spacing(lane=20, row=20, gap=20, turn=10, turn_step=5))
    turned = 0
    for edge_path, other in combinations(layers.edge_paths, 2):
        for (before, after), (before_2, after_2) in product(edge_path.parents, other.parents):
            layer = layers.layer[before]
            if not folded.turns[layer] or layers.layer[before_2] != layer or before == before_2 or after == after_2:
                continue
            out = dict(zip(layers.order[layer], folded.turns[layer], strict=True))
            ordered = (layers.lane[before] < layers.lane[before_2]) == (layers.lane[after] < layers.lane[after_2])
            outer = folded.y[before] < folded.y[before_2]
            assert (out[before] > out[before_2]) == outer
            assert ordered == ((folded.y[after] > folded.y[after_2]) == outer)
            turned += 1
    assert turned > 0


@given(graphs())
def test_a_tensor_goes_layer_by_layer_from_its_block_to_all_that_read_it(graph: ModelGraph) -> None:
    layers = arrange(graph)
    assert list(layers.layer[: len(graph)]) == depths(graph)
    assert all(layers.layer[before] < layers.layer[after] for before, after in graph.edges)
    for edge_path in layers.edge_paths:
        assert {point for _, point in edge_path.parents if point < len(graph)} == set(graph.consumers[edge_path.tensor])
        assert all(layers.layer[parent] + 1 == layers.layer[point] for parent, point in edge_path.parents)
        assert all(
            edge_path.to(block)[-1][0] == graph.producer[edge_path.tensor]
            for block in graph.consumers[edge_path.tensor]
        )
    for points in layers.order:
        lanes = [layers.lane[point] for point in points]
        assert all(later - earlier >= 0.5 - 1e-9 for earlier, later in pairwise(lanes))


def test_branches_that_need_not_cross_do_not() -> None:
    # Two branches of three blocks, written down alternately and joined in the wrong order.
    inputs = [(), (0,), (0,), (2,), (1,), (4,), (3,), (6, 5)]
    blocks = tuple(Block(i, f"b{i}", "Add", (), read, (i,)) for i, read in enumerate(inputs))
    tensors = tuple(Tensor(i, f"t{i}", (1, 1), "float32") for i in range(len(inputs)))
    layers = arrange(ModelGraph("m", "d", tensors, blocks, (0,), (7,)))
    upper = [next(point for point in points if point in {1, 4, 5}) for points in layers.order[1:4]]
    assert len({points.index(point) for points, point in zip(layers.order[1:4], upper, strict=True)}) == 1


def test_655_blocks_are_drawn_fast_and_fit_a_page() -> None:
    graph = _cells(41)
    placement, began = _placed(len(graph)), time.process_time()
    root = ElementTree.fromstring(placement_graph(graph, placement, predict(graph, placement, _costs(*[1e-3] * 657))))
    assert time.process_time() - began < 5
    assert len(_of_class(root, "block")) == 657
    width, height = _size(root)
    assert 0.5 < width / height < 3
    assert width < 2000
    assert "600" in _texts(root)


def test_names_are_written_where_there_is_room() -> None:
    graph = chain(*range(1, 24))
    placement = _placed(23)
    for picture in (
        placement_graph(graph, placement, predict(graph, placement, _costs(*[1e-3] * 23))),
        placement_bars(graph, placement, _costs(*[1e-3] * 23)),
    ):
        assert {f"b{i}" for i in range(23)} <= set(_texts(ElementTree.fromstring(picture)))


def test_a_picture_is_the_same_each_time() -> None:
    graph = _cells(5)
    placement = _placed(len(graph))
    prediction = predict(graph, placement, _costs(*[1e-3] * len(graph)))
    assert placement_graph(graph, placement, prediction) == placement_graph(graph, placement, prediction)


def test_legends_tell_each_tier_and_each_link() -> None:
    graph = chain(1000, 2000, 3000, 400)
    known = _costs(0.0, 0.010, 0.020, 0.030)
    placement = (Tier.DEVICE, Tier.DEVICE, Tier.EDGE, Tier.CLOUD)
    for picture in (
        placement_graph(graph, placement, predict(graph, placement, known)),
        placement_bars(graph, placement, known),
    ):
        texts = _texts(ElementTree.fromstring(picture))
        assert {"device: 2 blocks, 10 ms", "edge: 1 block, 20 ms", "cloud: 1 block, 30 ms"} <= set(texts)
        assert "device → edge: 2 kB and 400 B back, 22.4 ms" in texts
        assert "edge → cloud: 3 kB and 400 B back, 40.3 ms" in texts
    alone = placement_bars(graph, (Tier.DEVICE,) * 4, known)
    assert "edge: no block" in _texts(ElementTree.fromstring(alone))
    assert not _of_class(ElementTree.fromstring(alone), "transfer")


HOSTILE = "<b&\"'>\x00\x1b\ud800</svg>"


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


def _heat(columns: int = 3, rows: int = 4, here: tuple[float, float] | None = None) -> Element:
    known = list(heat.COLOURS)[:5]
    return ElementTree.fromstring(
        heat_map(
            title="m",
            device_edge=[10.0 ** (i + 4) for i in range(columns)],
            edge_cloud=[2.0**j * 1e6 for j in range(rows)],
            kinds=[[known[(i + j) % 5] for j in range(rows)] for i in range(columns)],
            values=[[(1 + i) * 0.1 + j for j in range(rows)] for i in range(columns)],
            here=here,
        )
    )


def _heat_cells(columns: int, rows: int) -> Iterator[tuple[int, int, Element]]:
    cells = iter(_of_class(_heat(columns, rows), "cell"))
    for i in range(columns):
        for j in range(rows):
            yield i, j, next(cells)
    assert next(cells, None) is None


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
    node_set = NodeSet({Tier.DEVICE: "pi", Tier.EDGE: "box"}, known)
    # As many of one link as of the other: if the map took them for each other, it would still be drawn.
    bandwidths = [10.0, 1e3, 1e6, 1e8]
    kinds, seconds = decision_map(chain(1000, 1000, 1000), [node_set], [], LATENCY, bandwidths, bandwidths)
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


MISSING_CONES = {
    "none": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "long": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "middle": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "short": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.3039)),
}
"""What linear RGB becomes to such eyes (Machado, Oliveira, Fernandes, 2009)."""


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
