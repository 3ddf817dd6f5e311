"""Boxes of detectors: from the numbers of common heads to the best boxes of each class. NumPy float32, in one order.

A box is left, top, right, bottom, in shares of the network's input. References: YOLOv8 (Ultralytics; distances as
expectations over bins are those of Generalized Focal Loss, arXiv 2006.04388), SSD (arXiv 1512.02325), RetinaNet (arXiv
1708.02002), R-CNN's coding of offsets (arXiv 1311.2524).
"""

from __future__ import annotations

import numpy as np

from pipeline.answers.exact import Floats, exp, softmax, total
from pipeline.answers.task import Anchors, BoxForm

_F = np.float32
CANDIDATES = 1_000
"""Boxes at most among which overlaps are looked for, the best of them."""
FIELDS = 6
"""Of a box in an answer: left, top, right, bottom, score, class."""
NO_CLASS = -1.0
_MOST_GROWTH = 4.0
"""Logarithm of how many times a box may be larger than its anchor."""


def from_form(numbers: Floats, form: BoxForm) -> Floats:
    """(n, 4) boxes of (n, 4) numbers: corners, or centre and sides, x or y first."""
    numbers = numbers.astype(_F)
    if form in {"yxyx", "yxhw"}:
        numbers = numbers[:, [1, 0, 3, 2]]
    if form in {"xyxy", "yxyx"}:
        return numbers
    half = numbers[:, 2:] * _F(0.5)
    return np.concatenate([numbers[:, :2] - half, numbers[:, :2] + half], axis=1)


def places(size: tuple[int, int], strides: tuple[int, ...]) -> Floats:
    """(n, 3): centre x, centre y and stride in pixels of each place of an input of (height, width), level by level."""
    levels = []
    for stride in strides:
        rows, columns = (-(-side // stride) for side in size)
        y, x = np.meshgrid(np.arange(rows, dtype=_F), np.arange(columns, dtype=_F), indexing="ij")
        centres = [(axis.reshape(-1) + _F(0.5)) * _F(stride) for axis in (x, y)]
        levels.append(np.stack([*centres, np.full(rows * columns, stride, _F)], axis=1))
    return np.concatenate(levels)


def from_distances(distances: Floats, size: tuple[int, int], strides: tuple[int, ...]) -> Floats:
    """(n, 4) boxes in pixels of (n, 4 * bins) logits: how far each side is from its place, in strides.

    Each distance is the expectation over its bins 0, 1, 2, ...
    """
    bins = distances.shape[1] // 4
    shares = softmax(distances.reshape(-1, 4, bins))
    sides = total(shares * np.arange(bins, dtype=_F))[..., 0]
    at = places(size, strides)
    sides, centres = sides * at[:, 2:], at[:, :2]
    return np.concatenate([centres - sides[:, :2], centres + sides[:, 2:]], axis=1)


def anchor_boxes(size: tuple[int, int], anchors: Anchors) -> Floats:
    """(n, 4) anchors as centre x, centre y, width and height, in pixels of an input of (height, width)."""
    levels = []
    for stride, sizes in zip(anchors.strides, anchors.sizes, strict=True):
        roots = [np.sqrt(_F(ratio)) for ratio in anchors.ratios]
        shapes = np.array([(_F(side) / root, _F(side) * root) for side in sizes for root in roots], _F)
        centres = places(size, (stride,))[:, :2]
        levels.append(
            np.concatenate([np.repeat(centres, len(shapes), axis=0), np.tile(shapes, (len(centres), 1))], axis=1)
        )
    return np.concatenate(levels)


def from_offsets(offsets: Floats, anchors: Floats, variances: tuple[float, ...], form: BoxForm) -> Floats:
    """(n, 4) boxes in pixels of (n, 4) offsets from anchors: of centres in the anchor's sides, of sides as logarithms.

    `form` says whether x or y comes first.
    """
    offsets = offsets.astype(_F)
    if form in {"yxyx", "yxhw"}:
        offsets = offsets[:, [1, 0, 3, 2]]
    scaled = offsets * np.array(variances, _F)
    centres = anchors[:, :2] + scaled[:, :2] * anchors[:, 2:]
    half = anchors[:, 2:] * exp(np.minimum(scaled[:, 2:], _F(_MOST_GROWTH))) * _F(0.5)
    return np.concatenate([centres - half, centres + half], axis=1)


def best_boxes(boxes: Floats, scores: Floats, *, least: float, overlap: float, most: int) -> Floats:
    """(most, 6) of (n, 4) boxes and their (n, classes) scores: left, top, right, bottom, score, class, the best first.

    Of two boxes of one class that overlap by more than `overlap`, the better one stays (greedy suppression); of equal
    scores, the earlier one. Rows without a box have the class NO_CLASS. Numbers that are not finite are no boxes.
    """
    found = np.zeros((most, FIELDS), _F)
    found[:, 5] = NO_CLASS
    boxes, scores = np.clip(boxes, _F(0), _F(1)), scores.astype(_F)
    usable = np.isfinite(boxes).all(axis=1) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    rows, classes = np.nonzero((scores >= _F(least)) & usable[:, None])
    order = np.argsort(-scores[rows, classes], kind="stable")[:CANDIDATES]
    rows, classes = rows[order], classes[order]
    kept = _separate(boxes[rows], classes, _F(overlap), most)
    rows, classes = rows[kept], classes[kept]
    found[: len(kept)] = np.column_stack([boxes[rows], scores[rows, classes], classes.astype(_F)])
    return found


def _separate(boxes: Floats, classes: Floats, overlap: np.float32, most: int) -> list[int]:
    """Places of the boxes, best first, that no better one of their class covers."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    is_left = np.ones(len(boxes), bool)
    kept: list[int] = []
    for place in range(len(boxes)):
        if not is_left[place]:
            continue
        kept.append(place)
        if len(kept) == most:
            break
        low = np.maximum(boxes[place, :2], boxes[:, :2])
        sides = np.maximum(np.minimum(boxes[place, 2:], boxes[:, 2:]) - low, _F(0))
        common = sides[:, 0] * sides[:, 1]
        union = areas[place] + areas - common
        is_left &= ~((common > overlap * union) & (classes == classes[place]))
    return kept
