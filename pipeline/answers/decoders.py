"""Decoders of a task: a network's outputs become the tensor that its answer is made of. Checked against shapes at load.

A decoder is one block after the network, on whichever tier the plan puts it: the same bits everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np

from pipeline.answers import boxes as box
from pipeline.answers.exact import Floats, activated
from pipeline.answers.task import Task
from pipeline.errors import ModelError
from pipeline.graph import ModelGraph, Tensor

Decode: TypeAlias = Callable[[Sequence[Floats]], Floats]

_MAP_RANK, _LIST_RANK, _FLAT_RANK = 4, 3, 2
"""Of outputs (1, rows, columns, channels), (1, n, numbers) and (1, n)."""
_MOST_CLASSES = 256
_CORNERS = 4
_PLACE_FIELDS, _POINT_FIELDS = 2, 3
_F = np.float32


@dataclass(frozen=True, slots=True)
class Decoder:
    """One decoder for one network: the ids of the outputs that it reads, in its order, and what it makes of them.

    `classes` are those that its answer may name, 0 where their number is open.
    """

    name: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    decode: Decode
    classes: int = 0


def decoder_of(task: Task, graph: ModelGraph) -> Decoder | None:
    """The task's decoder for a network; None where its outputs are the answer already.

    Raises ModelError for outputs that do not fit the task, naming their shapes.
    """
    outputs = [graph.tensors[tensor] for tensor in graph.outputs]
    if task.kind == "detect":
        return _detector(task, graph, outputs)
    if task.kind == "raw":
        return None
    (output,) = _alone(task, graph, outputs)
    checks: dict[str, Callable[[Task, ModelGraph, Tensor], Decoder | None]] = {
        "classify": _classifier,
        "segment": _segmenter,
        "keypoints": _keypoints,
        "values": _values,
        "embedding": _values,
    }
    return checks[task.kind](task, graph, output)


def _refused(task: Task, graph: ModelGraph, outputs: Sequence[Tensor], wanted: str) -> ModelError:
    has = ", ".join(f"{t.name} {t.dtype}{list(t.shape)}" for t in outputs)
    return ModelError(f"model {graph.name!r} does not fit task {task.kind}: it gives {has}", hint=f"needed: {wanted}")


def _alone(task: Task, graph: ModelGraph, outputs: Sequence[Tensor]) -> Sequence[Tensor]:
    if len(outputs) != 1:
        raise _refused(task, graph, outputs, "one output; task raw takes any number")
    return outputs


def _classifier(task: Task, graph: ModelGraph, output: Tensor) -> Decoder | None:
    if max(output.shape, default=0) != np.prod(output.shape) or not output.dtype.startswith("float"):
        raise _refused(task, graph, [output], "one score for each class, float[1, classes]")
    if task.activation == "none":
        return None
    shape = (1, max(output.shape))
    return Decoder(
        "scores",
        (output.id,),
        shape,
        "float32",
        lambda given: activated(given[0].reshape(shape), task.activation),
        classes=max(shape),
    )


def _values(task: Task, graph: ModelGraph, output: Tensor) -> None:
    count = int(np.prod(output.shape))
    if task.kind == "values" and task.names and len(task.names) != count:
        raise _refused(task, graph, [output], f"one number for each of the {len(task.names)} names")
    if not output.dtype.startswith("float") or (task.kind == "embedding" and count != max(output.shape)):
        raise _refused(task, graph, [output], "float[1, numbers]")


def _segmenter(task: Task, graph: ModelGraph, output: Tensor) -> Decoder:
    if len(output.shape) != _MAP_RANK or not 1 <= output.shape[-1] <= _MOST_CLASSES:
        raise _refused(task, graph, [output], f"float[1, rows, columns, classes] of 1 to {_MOST_CLASSES} classes")

    def decode(given: Sequence[Floats]) -> Floats:
        (scores,) = given
        if scores.shape[-1] > 1:
            return np.asarray(scores.argmax(axis=-1), np.uint8)
        return np.asarray(activated(scores[..., 0], task.activation) >= _F(task.score_at_least), np.uint8)

    return Decoder("classes", (output.id,), output.shape[:-1], "uint8", decode, classes=max(2, output.shape[-1]))


def _keypoints(task: Task, graph: ModelGraph, output: Tensor) -> Decoder:
    """Points (1, points, 3): x, y in shares of the input, score."""
    if len(output.shape) == _MAP_RANK:
        count = output.shape[-1]
        return Decoder("points", (output.id,), (1, count, 3), "float32", partial(_peaks, task), classes=count)
    if len(output.shape) != _LIST_RANK or output.shape[-1] not in {_PLACE_FIELDS, _POINT_FIELDS}:
        raise _refused(task, graph, [output], "maps float[1, rows, columns, points], or float[1, points, 2 or 3]")
    height, width = _input_size(task, graph, [output])
    is_y_first, unit = task.form.startswith("y"), task.unit

    def decode(given: Sequence[Floats]) -> Floats:
        points: Floats = given[0].astype(_F)
        places: Floats = points[..., [1, 0]] if is_y_first else points[..., :2]
        if unit == "pixel":
            places = places / np.array([width, height], _F)
        is_scored = points.shape[-1] == _POINT_FIELDS
        scores = activated(points[..., 2:], task.activation) if is_scored else np.ones_like(places[..., :1])
        return np.concatenate([places, scores], axis=-1)

    return Decoder("points", (output.id,), (1, output.shape[1], 3), "float32", decode, classes=output.shape[1])


def _peaks(task: Task, given: Sequence[Floats]) -> Floats:
    """The highest place of each map, the first of equal ones, and its score."""
    (maps,) = given
    _, rows, columns, count = maps.shape
    flat = maps.reshape(rows * columns, count)
    at = flat.argmax(axis=0)
    scores = activated(flat[at, np.arange(count)], task.activation)
    x = ((at % columns).astype(_F) + _F(0.5)) / _F(columns)
    y = ((at // columns).astype(_F) + _F(0.5)) / _F(rows)
    return np.stack([x, y, scores], axis=-1)[None]


def _detector(task: Task, graph: ModelGraph, outputs: Sequence[Tensor]) -> Decoder:
    size = _input_size(task, graph, outputs)
    heads = {"boxes": _plain_boxes, "yolo": _yolo, "anchors": _anchored}
    ids, classes, decode = heads[task.head](task, graph, outputs, size)

    def best(given: Sequence[Floats]) -> Floats:
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is no box
            found, scores = decode(given)
            scores = scores[:, 1:] if task.background else scores
            return box.best_boxes(
                found, scores, least=task.score_at_least, overlap=task.overlap_at_most, most=task.most
            )[None]

    return Decoder("boxes", ids, (1, task.most, box.FIELDS), "float32", best, classes - task.background)


Boxes: TypeAlias = Callable[[Sequence[Floats]], tuple[Floats, Floats]]
"""(n, 4) boxes in shares of the input, and (n, classes) scores, of a head's outputs."""
Found: TypeAlias = tuple[tuple[int, ...], int, Boxes]
"""Ids of a head's outputs, the number of classes (0 where it is open), and what makes boxes of them."""


def _input_size(task: Task, graph: ModelGraph, outputs: Sequence[Tensor]) -> tuple[int, int]:
    shape = graph.tensors[graph.inputs[0]].shape
    if len(shape) != _MAP_RANK:
        raise _refused(task, graph, outputs, f"an input of pictures, not {list(shape)}")
    return shape[1], shape[2]


def _shares(boxes: Floats, size: tuple[int, int], unit: str = "pixel") -> Floats:
    height, width = size
    return boxes / np.array([width, height, width, height], _F) if unit == "pixel" else boxes


def _named(task: Task, graph: ModelGraph, outputs: Sequence[Tensor], name: str) -> Tensor:
    for tensor in outputs:
        if tensor.name == name:
            return tensor
    raise _refused(task, graph, outputs, f"an output {name!r}, as the task names it")


def _pair(
    task: Task, graph: ModelGraph, outputs: Sequence[Tensor], fits: Callable[[Tensor], bool], wanted: str
) -> tuple[Tensor, Tensor]:
    """The outputs of boxes and of scores, (1, n, numbers) and (1, n, classes): as named, else by their shapes."""
    found = [_named(task, graph, outputs, task.boxes)] if task.boxes else [t for t in outputs if fits(t)]
    others = [_named(task, graph, outputs, task.scores)] if task.scores else [t for t in outputs if t not in found]
    if len(found) != 1 or not fits(found[0]) or not others:
        raise _refused(task, graph, outputs, wanted)
    (boxes,), scores = found, others[0]
    if len(scores.shape) not in {_FLAT_RANK, _LIST_RANK} or scores.shape[1] != boxes.shape[1] or scores == boxes:
        raise _refused(task, graph, outputs, wanted)
    return boxes, scores


def _of_corners(tensor: Tensor) -> bool:
    return len(tensor.shape) == _LIST_RANK and tensor.shape[-1] == _CORNERS


def _is_binned(tensor: Tensor, count: int) -> bool:
    """True for logits of distances to four sides, several bins each, at each of the places."""
    shape = tensor.shape
    return len(shape) == _LIST_RANK and shape[1] == count and shape[2] % _CORNERS == 0 and shape[2] > _CORNERS


def _plain_boxes(task: Task, graph: ModelGraph, outputs: Sequence[Tensor], size: tuple[int, int]) -> Found:
    wanted = "boxes float[1, n, 4] and scores float[1, n, classes], or scores and classes of [1, n]"
    boxes, scores = _pair(task, graph, outputs, _of_corners, wanted)
    classes = _named(task, graph, outputs, task.classes) if task.classes else None
    if classes is None and len(scores.shape) == _FLAT_RANK and len(outputs) > _FLAT_RANK:
        raise _refused(task, graph, outputs, f"{wanted}; give the task's boxes, scores and classes by name")
    if classes is not None and classes.shape != scores.shape:
        raise _refused(task, graph, outputs, wanted)
    count = boxes.shape[1]

    def decode(given: Sequence[Floats]) -> tuple[Floats, Floats]:
        found = _shares(box.from_form(given[0][0], task.form), size, task.unit)
        rated = activated(given[1].reshape(count, -1), task.activation)
        if classes is None:
            return found, rated
        wide = np.zeros((count, _MOST_CLASSES), _F)
        wide[np.arange(count), np.clip(given[2][0], 0, _MOST_CLASSES - 1).astype(np.int64)] = rated[:, 0]
        return found, wide

    if classes is not None:
        return (boxes.id, scores.id, classes.id), 0, decode
    return (boxes.id, scores.id), math.prod(scores.shape) // count, decode


def _yolo(task: Task, graph: ModelGraph, outputs: Sequence[Tensor], size: tuple[int, int]) -> Found:
    """One output of centres, sides (in pixels) and scores, either way round; or logits of distances, and scores."""
    count = len(box.places(size, task.strides))
    wanted = (
        f"float[1, 4 + classes, {count}] or float[1, {count}, 4 + classes], or boxes float[1, {count}, 4 * bins] and "
        f"scores float[1, {count}, classes]: {count} places of strides {list(task.strides)} in {list(size)}"
    )
    if len(outputs) == 1:
        (output,) = outputs
        if len(output.shape) != _LIST_RANK or count not in output.shape[1:] or min(output.shape[1:]) <= _CORNERS:
            raise _refused(task, graph, outputs, wanted)
        is_turned = output.shape[2] == count

        def joined(given: Sequence[Floats]) -> tuple[Floats, Floats]:
            rows = given[0][0].T if is_turned else given[0][0]
            found = _shares(box.from_form(rows[:, :_CORNERS], "xywh"), size)
            return found, activated(rows[:, _CORNERS:], task.activation)

        return (output.id,), math.prod(output.shape) // count - _CORNERS, joined
    boxes, scores = _pair(
        task,
        graph,
        outputs,
        lambda t: _is_binned(t, count),
        wanted,
    )

    def apart(given: Sequence[Floats]) -> tuple[Floats, Floats]:
        found = _shares(box.from_distances(given[0][0], size, task.strides), size)
        return found, activated(given[1][0], task.activation)

    return (boxes.id, scores.id), math.prod(scores.shape) // count, apart


def _anchored(task: Task, graph: ModelGraph, outputs: Sequence[Tensor], size: tuple[int, int]) -> Found:
    if task.anchors is None:
        raise _refused(task, graph, outputs, "the task's anchors: strides, sizes, ratios")
    anchors, variances = box.anchor_boxes(size, task.anchors), task.anchors.variances
    count = len(anchors)
    wanted = f"boxes float[1, {count}, 4] and scores float[1, {count}, classes], for the task's {count} anchors"
    boxes, scores = _pair(task, graph, outputs, lambda t: _of_corners(t) and t.shape[1] == count, wanted)

    def decode(given: Sequence[Floats]) -> tuple[Floats, Floats]:
        found = _shares(box.from_offsets(given[0][0], anchors, variances, task.form), size)
        return found, activated(given[1].reshape(count, -1), task.activation)

    return (boxes.id, scores.id), math.prod(scores.shape) // count, decode
