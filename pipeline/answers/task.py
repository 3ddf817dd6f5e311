"""A model's task as plain values: what its outputs mean, and how they are decoded. No behaviour."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Literal, TypeAlias

import xxhash

Kind: TypeAlias = Literal["classify", "detect", "segment", "keypoints", "values", "embedding", "raw"]
KINDS: tuple[Kind, ...] = ("classify", "detect", "segment", "keypoints", "values", "embedding", "raw")
Head: TypeAlias = Literal["boxes", "yolo", "anchors"]
Activation: TypeAlias = Literal["none", "sigmoid", "softmax"]
BoxForm: TypeAlias = Literal["xyxy", "yxyx", "xywh", "yxhw"]
Unit: TypeAlias = Literal["share", "pixel"]


@dataclass(frozen=True, slots=True)
class Anchors:
    """Boxes from which a head's offsets count, by level, row, column, size and ratio, in this order.

    `strides` and `sizes` have a level each: pixels of the input between two places, and the sides of its squares.
    `ratios` are heights over widths. `variances` scale the offsets of centres (x, y) and of sides (w, h).
    """

    strides: tuple[int, ...]
    sizes: tuple[tuple[float, ...], ...]
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    variances: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)


@dataclass(frozen=True, slots=True)
class Task:
    """What the outputs of a model are, as its section of the configuration has it.

    Attributes:
        activation: makes scores of outputs that are logits.
        most: classes, boxes at most in an answer.
        head: how boxes are written: as they are, as YOLOv8 writes them, or as offsets from anchors.
        boxes, scores, classes: names of a detector's outputs, where their shapes do not say which is which.
        form, unit: how four numbers make a box, of the input's sides or its pixels.
        score_at_least: what scores less is no box (keypoints: is left out; a map of one channel: is background).
        overlap_at_most: of two boxes of a class that overlap by more (intersection over union), the better one stays.
        background: class 0 is none (SSD).
        names: of values, in their order.
    """

    kind: Kind
    activation: Activation = "none"
    most: int = 0
    head: Head = "boxes"
    boxes: str = ""
    scores: str = ""
    classes: str = ""
    form: BoxForm = "xyxy"
    unit: Unit = "share"
    strides: tuple[int, ...] = (8, 16, 32)
    anchors: Anchors | None = None
    score_at_least: float = 0.25
    overlap_at_most: float = 0.5
    background: bool = False
    names: tuple[str, ...] = field(default=())

    def digest(self) -> str:
        """Names all that the decoder computes: equal digests, equal functions."""
        return xxhash.xxh3_64_hexdigest(json.dumps(asdict(self), sort_keys=True).encode())
