"""Decoders of the common heads, against plain definitions; and what does not fit them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.answers.boxes import anchor_boxes, best_boxes
from pipeline.answers.decoders import decoder_of
from pipeline.answers.exact import Floats, exp, sigmoid, softmax
from pipeline.answers.report import report
from pipeline.answers.task import Anchors, Task
from pipeline.errors import ModelError
from pipeline.frames.size import Placing
from pipeline.graph import Block, ModelGraph, Tensor
from pipeline.models.graphs import shipped_graph

DRAW = np.random.default_rng(5)


def floats(values: object) -> Floats:
    return np.array(values, np.float32)


def network(*outputs: tuple[str, tuple[int, ...]], size: tuple[int, int] = (64, 96)) -> ModelGraph:
    """A graph that gives these outputs, each made of the picture by a block of its own."""
    tensors = [Tensor(0, "image", (1, *size, 3), "float32")]
    blocks = [Block(0, "input", "input", (), (), (0,))]
    for index, (name, shape) in enumerate(outputs, start=1):
        tensors.append(Tensor(index, name, shape, "float32"))
        blocks.append(Block(index, name, "Dense", (name,), (0,), (index,)))
    return ModelGraph("net", "digest", tuple(tensors), tuple(blocks), (0,), tuple(range(1, len(tensors))))


def found(task: Task, graph: ModelGraph, *outputs: Floats) -> list[list[float]]:
    """The rows with a box in them."""
    decoder = decoder_of(task, graph)
    assert decoder is not None
    given = dict(zip(graph.outputs, outputs, strict=True))
    made = decoder.decode([given[t] for t in decoder.inputs])
    assert made.shape == decoder.shape
    assert made.dtype == np.float32
    return [row for row in made[0].tolist() if row[5] >= 0]


def test_exp_is_that_of_mathematics_to_two_units_of_the_last_place() -> None:
    x = np.linspace(-86, 87, 20_001, dtype=np.float32)
    true = np.exp(x.astype(np.float64))
    assert (np.abs(exp(x) - true) / true).max() < 2 * np.finfo(np.float32).eps
    assert sigmoid(floats([-200, 0, 200])).tolist() == pytest.approx([0, 0.5, 1], abs=1e-30)
    assert softmax(floats([[1, 2, 3]]))[0].tolist() == pytest.approx([0.09003057, 0.24472847, 0.66524096], rel=1e-6)


def test_what_stays_of_overlapping_boxes_is_what_greedy_suppression_leaves() -> None:
    corners = DRAW.random((60, 2, 2), np.float32)
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    scores = DRAW.random((60, 3), np.float32)
    got = [row for row in best_boxes(boxes, scores, least=0.4, overlap=0.3, most=1000).tolist() if row[5] >= 0]
    wanted: list[list[float]] = []
    for score, row, kind in sorted(((-scores[r, k], r, k) for r in range(60) for k in range(3)), key=lambda c: c[:3]):
        if -score >= 0.4 and all(k[5] != kind or overlap(k, boxes[row].tolist()) <= 0.3 for k in wanted):
            wanted.append([*boxes[row].tolist(), float(-score), float(kind)])
    assert got == wanted
    assert best_boxes(boxes, scores, least=0.4, overlap=0.3, most=3)[:, :5].tolist() == [w[:5] for w in wanted[:3]]


def overlap(one: list[float], other: list[float]) -> float:
    sides = [max(0.0, min(one[i + 2], other[i + 2]) - max(one[i], other[i])) for i in (0, 1)]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return sides[0] * sides[1] / (sum(areas) - sides[0] * sides[1])


@pytest.mark.parametrize("is_turned", [False, True])
def test_yolos_one_output_is_read_either_way_round(is_turned: bool) -> None:
    places = 8 * 12 + 4 * 6 + 2 * 3
    rows = np.zeros((places, 6), np.float32)
    rows[7] = 48, 32, 24, 16, 0.1, 0.9
    shape = (1, 6, places) if is_turned else (1, places, 6)
    output = (rows.T if is_turned else rows)[None]
    boxes = found(Task("detect", head="yolo", most=5), network(("out", shape)), output)
    assert boxes == [pytest.approx([36 / 96, 24 / 64, 60 / 96, 40 / 64, 0.9, 1.0])]


def test_yolos_distances_are_expectations_over_bins_from_their_places() -> None:
    graph = network(("classes", (1, 126, 2)), ("distances", (1, 126, 16)))
    distances, classes = np.zeros((1, 126, 4, 4), np.float32), np.full((1, 126, 2), -9, np.float32)
    place = 8 * 12 + 1 * 6 + 2  # of stride 16: its centre is at x 40, y 24
    classes[0, place, 0] = 3.0
    distances[0, place] = [[0, 90, 0, 0], [0, 0, 90, 0], [90, 90, -90, -90], [0, 0, 0, 90]]
    task = Task("detect", head="yolo", most=5, activation="sigmoid")
    boxes = found(task, graph, classes, distances.reshape(1, 126, 16))
    left, top, right, bottom = 40 - 16, 24 - 32, 40 + 8, 24 + 48
    score = 1 / (1 + math.exp(-3))
    assert boxes == [pytest.approx([left / 96, max(top, 0) / 64, right / 96, min(bottom, 64) / 64, score, 0.0])]


def test_anchors_are_moved_and_scaled_and_background_is_no_class() -> None:
    anchors = Anchors(strides=(32,), sizes=((16.0, 32.0),), ratios=(1.0, 4.0))
    made = anchor_boxes((64, 96), anchors)
    assert made.shape == (2 * 3 * 4, 4)
    assert made[4 + 3].tolist() == [48, 16, 16, 64]  # second place, size 32, twice as high as wide
    graph = network(("offsets", (1, 24, 4)), ("scores", (1, 24, 3)))
    offsets, scores = np.zeros((1, 24, 4), np.float32), np.zeros((1, 24, 3), np.float32)
    scores[..., 0] = 9.0
    scores[0, 7] = [0, 0, 9]
    offsets[0, 7] = [1.0, 0.5, math.log(2) / 0.2, 0]
    task = Task("detect", head="anchors", anchors=anchors, most=5, activation="softmax", background=True)
    (box,) = found(task, graph, offsets, scores)
    x, y, width, height = 48 + 0.1 * 16, 16 + 0.05 * 64, 32, 64
    corners = [(x - width / 2) / 96, (y - height / 2) / 64, (x + width / 2) / 96, (y + height / 2) / 64]
    assert box[:4] == pytest.approx([corners[0], max(corners[1], 0), corners[2], corners[3]])
    assert box[5] == 1.0  # of two classes, the background not counted


def test_boxes_as_given_may_have_classes_of_their_own_and_any_form() -> None:
    graph = network(("b", (1, 2, 4)), ("s", (1, 2)), ("c", (1, 2)))
    task = Task("detect", most=5, boxes="b", scores="s", classes="c", form="yxyx")
    boxes = floats([[[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 0.0, 0.0]]])
    (box,) = found(task, graph, boxes, floats([[0.8, 0.9]]), floats([[7, 3]]))
    assert box == pytest.approx([0.2, 0.1, 0.6, 0.5, 0.8, 7.0])
    pair = network(("b", (1, 2, 4)), ("s", (1, 2, 3)))
    pixels = Task("detect", most=5, form="xywh", unit="pixel")
    (box,) = found(pixels, pair, floats([[[48, 32, 48, 32], [0, 0, 0, 0]]]), floats([[[0, 0, 1], [0, 0, 0]]]))
    assert box == pytest.approx([0.25, 0.25, 0.75, 0.75, 1.0, 2.0])


def test_numbers_that_are_none_are_no_boxes_and_raise_nothing() -> None:
    graph = network(("b", (1, 3, 4)), ("s", (1, 3, 2)))
    wild = floats([[[np.nan, 0, 1, 1], [0, 0, np.inf, 1], [1, 1, 0, 0]]])
    boxes = found(Task("detect", most=5), graph, wild, floats([[[1, 1], [np.nan, 1], [1, np.inf]]]))
    assert boxes == [[0.0, 0.0, 1.0, 1.0, 1.0, 1.0]]  # infinity is cut to the picture


@pytest.mark.parametrize(
    ("task", "graph", "said"),
    [
        (
            Task("classify"),
            network(("a", (1, 5)), ("b", (1, 5))),
            r"a float32\[1, 5\], b float32\[1, 5\]; .* one output",
        ),
        (Task("segment"), network(("a", (1, 5))), r"a float32\[1, 5\]; needed: float\[1, rows, columns"),
        (Task("keypoints"), network(("a", (1, 5))), r"needed: maps float\[1, rows, columns, points\]"),
        (Task("values", names=("x",)), network(("a", (1, 5))), "one number for each of the 1 names"),
        (Task("embedding"), network(("a", (1, 5, 5))), r"needed: float\[1, numbers\]"),
        (Task("detect", head="yolo", most=5), network(("a", (1, 5, 100))), r"float\[1, 4 \+ classes, 126\]"),
        (Task("detect", most=5), network(("a", (1, 5, 4)), ("b", (1, 5, 4))), r"needed: boxes float\[1, n, 4\]"),
        (Task("detect", most=5, boxes="z"), network(("a", (1, 5, 4)), ("b", (1, 5, 2))), "an output 'z'"),
        (
            Task("detect", most=5, head="anchors", anchors=Anchors((32,), ((8.0,),), (1.0,))),
            network(("a", (1, 5, 4)), ("b", (1, 5, 2))),
            "for the task's 6 anchors",
        ),
        (Task("classify"), network(("a", (1, 5, 5))), "one score for each class"),
    ],
)
def test_a_model_that_does_not_fit_its_task_is_refused_with_its_shapes(
    task: Task, graph: ModelGraph, said: str
) -> None:
    with pytest.raises(ModelError, match=f"model 'net' does not fit task {task.kind}: it gives .*{said}"):
        decoder_of(task, graph)


def test_the_real_heads_of_well_known_detectors_fit() -> None:
    """YOLOv8 at 640 (84 x 8,400), and RetinaNet at 512 with nine anchors a place: 49,104 of them."""
    yolo = decoder_of(Task("detect", head="yolo", most=300), network(("output0", (1, 84, 8400)), size=(640, 640)))
    assert yolo is not None
    assert yolo.classes == 80
    strides = (8, 16, 32, 64, 128)
    sizes = tuple(tuple(4.0 * s * 2 ** (i / 3) for i in range(3)) for s in strides)
    retina = decoder_of(
        Task("detect", head="anchors", most=100, activation="sigmoid", anchors=Anchors(strides, sizes)),
        network(("boxes", (1, 49104, 4)), ("classes", (1, 49104, 20)), size=(512, 512)),
    )
    assert retina is not None
    assert retina.classes == 20


def test_networks_of_the_zoo_fit_what_they_do_and_nothing_else() -> None:
    graph = shipped_graph("mobilenet_v2")
    assert decoder_of(Task("classify"), graph) is None
    softmaxed = decoder_of(Task("classify", activation="softmax"), graph)
    assert softmaxed is not None
    assert (softmaxed.classes, softmaxed.shape) == (1000, (1, 1000))
    with pytest.raises(ModelError, match=r"float32\[1, 1000\]"):
        decoder_of(Task("segment"), graph)


def test_a_map_of_one_channel_and_points_as_given() -> None:
    place = Placing(0.0, 0.0, 100.0, 50.0)
    decoder = decoder_of(Task("segment", activation="sigmoid", score_at_least=0.5), network(("m", (1, 1, 3, 1))))
    assert decoder is not None
    painted = decoder.decode([floats([[[[-1.0], [0.0], [2.0]]]])])
    assert painted.tolist() == [[[0, 1, 1]]]
    found = report(Task("segment"), painted, ("road", "car"), place)
    assert found["map_box"] == [place.left, place.top, place.left + place.width, place.top + place.height]
    assert found["shares"] == [
        {"index": 1, "label": "car", "share": 0.666667},
        {"index": 0, "label": "road", "share": 0.333333},
    ]
    points = decoder_of(Task("keypoints", unit="pixel", form="yxyx"), network(("p", (1, 2, 2))))
    assert points is not None
    made = points.decode([floats([[[32, 48], [64, 96]]])])
    said = report(Task("keypoints"), made, None, place)["keypoints"]
    assert [(one["x"], one["y"]) for one in said] == [(50.0, 25.0), (100.0, 50.0)]
