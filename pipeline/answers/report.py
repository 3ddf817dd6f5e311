"""Answers in plain JSON values: what a result says of a frame, by the model's task."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipeline.answers.exact import Floats
from pipeline.answers.task import Task
from pipeline.frames.decode import top_k
from pipeline.frames.size import Placing

_DIGITS = 6
_PIXEL_DIGITS = 2
_FIRST = 8
"""Values of an output that a result shows where it has no task."""
MOST_VALUES = 4_096
"""Of values, or of an embedding, in a result: what has more is in the output tensors alone."""


def label_of(index: int, labels: Sequence[str] | None) -> str:
    """A class's label; its index in digits where there is none."""
    return labels[index] if labels and index < len(labels) else str(index)


def report(task: Task | None, array: Floats, labels: Sequence[str] | None, place: Placing) -> dict[str, Any]:
    """The fields of a result that its task makes of the answer's tensor; none without a task."""
    if task is None or task.kind == "raw":
        return {}
    if task.kind == "classify":
        return {"task": task.kind, "top": _top(task, array, labels)}
    if task.kind == "detect":
        return {"task": task.kind, "boxes": _boxes(array, labels, place)}
    if task.kind == "segment":
        return {"task": task.kind, "shares": _shares(array, labels), "map_box": _whole(place)}
    if task.kind == "keypoints":
        return {"task": task.kind, "keypoints": _keypoints(task, array, labels, place)}
    return {"task": task.kind, **_numbers(task, array, labels)}


def first_values(array: Floats) -> list[Any]:
    """The first values of an output, in its own order; null for one that is no finite number."""
    return [_finite(value) for value in array.reshape(-1)[:_FIRST].tolist()]


def class_map_png(array: Floats, about: Mapping[str, str]) -> bytes:
    """A map of classes (1, rows, columns) as a grey PNG whose pixels are the classes; `about` is text in it."""
    info = PngInfo()
    for key, value in about.items():
        info.add_text(key, value)
    file = io.BytesIO()
    Image.fromarray(array[0]).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def _top(task: Task, array: Floats, labels: Sequence[str] | None) -> list[dict[str, Any]]:
    return [
        {"index": best.index, "label": best.label, "score": _finite(best.score)}
        for best in top_k(array, labels, task.most)
    ]


def _boxes(array: Floats, labels: Sequence[str] | None, place: Placing) -> list[dict[str, Any]]:
    """Boxes as [left, top, right, bottom] in the frame's pixels, the best first."""
    found = []
    for left, top, right, bottom, score, kind in array[0].tolist():
        if kind < 0:
            break
        corners = (place.x(left), place.y(top), place.x(right), place.y(bottom))
        found.append(
            {
                "index": int(kind),
                "label": label_of(int(kind), labels),
                "score": round(score, _DIGITS),
                "box": [round(corner, _PIXEL_DIGITS) for corner in corners],
            }
        )
    return found


def _whole(place: Placing) -> list[float]:
    """Where the network's input lies in the frame, as [left, top, right, bottom] in its pixels."""
    corners = (place.x(0.0), place.y(0.0), place.x(1.0), place.y(1.0))
    return [round(corner, _PIXEL_DIGITS) for corner in corners]


def _shares(array: Floats, labels: Sequence[str] | None) -> list[dict[str, Any]]:
    """The share of the map that each class has, the largest first."""
    counts = np.bincount(array.reshape(-1))
    order = sorted(np.flatnonzero(counts).tolist(), key=lambda index: (-counts[index], index))
    return [
        {"index": index, "label": label_of(index, labels), "share": round(counts[index] / array.size, _DIGITS)}
        for index in order
    ]


def _keypoints(task: Task, array: Floats, labels: Sequence[str] | None, place: Placing) -> list[dict[str, Any]]:
    """Points in the frame's pixels, in their own order, those that score enough."""
    return [
        {
            "index": index,
            "label": label_of(index, labels),
            "x": round(place.x(x), _PIXEL_DIGITS),
            "y": round(place.y(y), _PIXEL_DIGITS),
            "score": round(score, _DIGITS),
        }
        for index, (x, y, score) in enumerate(array[0].tolist())
        if score >= task.score_at_least and math.isfinite(x) and math.isfinite(y)
    ]


def _numbers(task: Task, array: Floats, labels: Sequence[str] | None) -> dict[str, Any]:
    values = [_finite(value) for value in array.reshape(-1)[:MOST_VALUES].tolist()]
    if task.kind == "embedding":
        return {"embedding": values} if array.size <= MOST_VALUES else {}
    names = task.names or labels
    return {"values": {label_of(index, names): value for index, value in enumerate(values)}}


def _finite(value: Any) -> Any:
    """A number as JSON has it: null for what is none."""
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value
