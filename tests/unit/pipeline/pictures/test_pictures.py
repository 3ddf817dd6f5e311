"""Pictures of placements: what must be in them and what must not overlap. No pixel is expected anywhere."""

from __future__ import annotations

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
from pipeline.graph import Block, ModelGraph, Tensor
from pipeline.pictures import heat, heat_map, placement_bars, placement_graph, tiers
from pipeline.pictures.folded_layout import Spacing, fold
from pipeline.pictures.layers import arrange, depths
from pipeline.pictures.svg import bytes_text
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


MISSING_CONES = {
    "none": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "long": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "middle": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "short": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.3039)),
}
"""What linear RGB becomes to such eyes (Machado, Oliveira, Fernandes, 2009)."""
