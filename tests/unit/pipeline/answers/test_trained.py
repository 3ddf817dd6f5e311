"""Networks trained on generated pictures: what their answers say is what is in the picture, wherever blocks run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nodes.tier.answer_format import AnswerFormat
from pipeline import engines
from pipeline.answers.task import Task
from pipeline.engines.answering import Answering, AnsweringEngine, answering
from pipeline.engines.base import Loaded
from pipeline.frames.decode import Preprocess, to_input
from pipeline.frames.size import placing
from pipeline.lite.package import Package
from tests import task_networks
from tests.task_networks import CLASSES, SIDE, Scene, scene

ENGINE = AnsweringEngine(engines.create("litert", 1))
UNIT = Preprocess(size=(SIDE, SIDE), mode="unit")
DETECT = Task("detect", head="yolo", strides=(8,), most=10, score_at_least=0.5)


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return task_networks.detector(tmp_path_factory.mktemp("finder") / "finder.trisect")


def scenes(objects: int, count: int) -> list[Scene]:
    draw = np.random.default_rng(99)
    return [scene(draw, objects) for _ in range(count)]


def answer(model: Loaded, task: Task, pixels: np.ndarray) -> dict[str, object]:
    graph = model.graph
    outputs = engines.unsplit(ENGINE, model).run({0: to_input(pixels, graph.tensors[0], UNIT)})
    labels = CLASSES if task.kind in {"detect", "keypoints"} else ("none", *CLASSES)
    return AnswerFormat(graph, UNIT, task, labels).fields(outputs, pixels, None)


def overlap(one: list[float], other: tuple[int, ...]) -> float:
    sides = [max(0.0, min(one[i + 2], other[i + 2]) - max(one[i], other[i])) for i in (0, 1)]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return sides[0] * sides[1] / (sum(areas) - sides[0] * sides[1])


def test_the_detector_finds_nearly_all_boxes_with_their_classes_and_few_others(finder: Package) -> None:
    model = answering(finder, DETECT)
    hits = wanted = found = 0
    for one in scenes(3, 40):
        boxes = answer(model, DETECT, one.pixels)["boxes"]
        assert isinstance(boxes, list)
        found += len(boxes)
        for box, kind in zip(one.boxes, one.classes, strict=True):
            wanted += 1
            hits += any(b["label"] == CLASSES[kind] and overlap(b["box"], box) >= 0.5 for b in boxes)
    assert hits >= 0.9 * wanted
    assert found <= 1.1 * wanted


def test_boxes_are_in_the_pixels_of_the_frame_however_large_it_is(finder: Package) -> None:
    model, (one,) = answering(finder, DETECT), scenes(2, 1)
    small = answer(model, DETECT, one.pixels)["boxes"]
    large = answer(model, DETECT, np.repeat(np.repeat(one.pixels, 3, axis=0), 5, axis=1))["boxes"]
    assert isinstance(small, list)
    assert isinstance(large, list)
    assert len(small) == len(large) > 0
    for before, after in zip(small, large, strict=True):
        grown = [side * times for side, times in zip(before["box"], (5, 3, 5, 3), strict=True)]
        assert overlap(after["box"], tuple(grown)) > 0.9


def test_the_segmenter_paints_what_is_there(tmp_path: Path) -> None:
    task = Task("segment")
    model = answering(task_networks.segmenter(tmp_path / "painter.trisect"), task)
    for one in scenes(4, 5):
        result = answer(model, task, one.pixels)
        graph = model.graph
        outputs = engines.unsplit(ENGINE, model).run({0: to_input(one.pixels, graph.tensors[0], UNIT)})
        painted = outputs[graph.outputs[0]][0]
        assert painted.dtype == np.uint8
        assert (painted == one.map).mean() > 0.97
        shares = result["shares"]
        assert isinstance(shares, list)
        assert sum(share["share"] for share in shares) == pytest.approx(1.0, abs=1e-5)
        assert {share["label"]: share["share"] for share in shares}["none"] == pytest.approx(
            (painted == 0).mean(), abs=1e-5
        )


def test_points_lie_in_their_rectangles(tmp_path: Path) -> None:
    task = Task("keypoints", score_at_least=0.0)
    model = answering(task_networks.pointer(tmp_path / "pointer.trisect"), task)
    both = [one for one in scenes(2, 30) if set(one.classes) == {0, 1}]
    assert len(both) > 5
    for one in both:
        points = answer(model, task, one.pixels)["keypoints"]
        assert isinstance(points, list)
        for point, kind in zip(points, (0, 1), strict=True):
            left, top, right, bottom = one.boxes[one.classes.index(kind)]
            assert point["label"] == CLASSES[kind]
            assert left <= point["x"] <= right
            assert top <= point["y"] <= bottom


def test_values_have_names_and_an_embedding_is_a_list(tmp_path: Path) -> None:
    package = task_networks.gauge(tmp_path / "gauge.trisect")
    (one,) = scenes(4, 1)
    values = answer(package, Task("values", names=("none", "red", "blue")), one.pixels)["values"]
    assert isinstance(values, dict)
    for index, name in enumerate(("none", "red", "blue")):
        assert values[name] == pytest.approx((one.map == index).mean(), abs=0.03)
    vector = answer(package, Task("embedding"), one.pixels)["embedding"]
    assert vector == list(values.values())


def test_every_cut_gives_the_same_bits_the_decoder_on_its_own_among_them(finder: Package) -> None:
    model = answering(finder, DETECT)
    assert isinstance(model, Answering)
    graph, (one,) = model.graph, scenes(3, 1)
    inputs = {0: to_input(one.pixels, graph.tensors[0], UNIT)}
    whole = engines.unsplit(ENGINE, model).run(inputs)
    for cut in range(1, len(graph)):
        first, second = range(cut), range(cut, len(graph))
        made = {t for b in first for t in graph.blocks[b].outputs}
        crossing = sorted({t for b in second for t in graph.blocks[b].inputs if t in made})
        sent = ENGINE.compile(model, first, graph.inputs, crossing).run(inputs)
        got = ENGINE.compile(model, second, crossing, graph.outputs).run(sent)
        assert got[graph.outputs[0]].tobytes() == whole[graph.outputs[0]].tobytes()
    times = ENGINE.profile(model, 3)
    assert len(times.seconds) == len(graph)
    assert times.seconds[-1] > 0


def test_a_cropped_frame_has_its_boxes_in_the_middle() -> None:
    frame = np.zeros((100, 300, 3), np.uint8)
    place = placing(frame, (64, 64), Preprocess(size=(64, 64), crop=True))
    assert (place.x(0.0), place.x(1.0), place.y(0.0), place.y(1.0)) == (100.0, 200.0, 0.0, 100.0)
