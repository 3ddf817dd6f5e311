"""A model's task as plain values: what its outputs mean, and how they are decoded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

import xxhash
from pydantic import Field

from pipeline import ranges
from pipeline.errors import ModelError

Kind: TypeAlias = Literal["classify", "detect", "segment", "keypoints", "values", "embedding", "raw"]
KINDS: tuple[Kind, ...] = ("classify", "detect", "segment", "keypoints", "values", "embedding", "raw")
Head: TypeAlias = Literal["boxes", "yolo", "anchors"]
Activation: TypeAlias = Literal["none", "sigmoid", "softmax"]
BoxForm: TypeAlias = Literal["xyxy", "yxyx", "xywh", "yxhw"]
Unit: TypeAlias = Literal["share", "pixel"]
MOST_BOXES = 1_000
Side: TypeAlias = Annotated[float, Field(gt=0, le=1e5)]
Stride: TypeAlias = Annotated[int, Field(ge=1, le=4_096)]
Strides: TypeAlias = Annotated[tuple[Stride, ...], Field(min_length=1, max_length=16)]
OutputName: TypeAlias = Annotated[str, Field(max_length=256)]


@dataclass(frozen=True, slots=True)
class Anchors:
    """Boxes from which a head's offsets count, by level, row, column, size and ratio, in this order.

    `strides` and `sizes` have a level each: pixels of the input between two places, and the sides of its squares.
    `ratios` are heights over widths. `variances` scale the offsets of centres (x, y) and of sides (w, h).
    """

    strides: Strides
    sizes: Annotated[tuple[Annotated[tuple[Side, ...], Field(min_length=1, max_length=32)], ...], Field(max_length=16)]
    ratios: Annotated[tuple[Side, ...], Field(min_length=1, max_length=32)] = (0.5, 1.0, 2.0)
    variances: tuple[Side, Side, Side, Side] = (0.1, 0.1, 0.2, 0.2)

    def __post_init__(self) -> None:
        if len(self.strides) != len(self.sizes):
            raise ValueError(
                f"{len(self.strides)} strides and sizes for {len(self.sizes)} levels; give each level both"
            )


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
    most: Annotated[int, Field(ge=0, le=MOST_BOXES)] = 0
    head: Head = "boxes"
    boxes: OutputName = ""
    scores: OutputName = ""
    classes: OutputName = ""
    form: BoxForm = "xyxy"
    unit: Unit = "share"
    strides: Strides = (8, 16, 32)
    anchors: Anchors | None = None
    score_at_least: Annotated[float, Field(ge=0, le=1)] = 0.25
    overlap_at_most: Annotated[float, Field(gt=0, le=1)] = 0.5
    background: bool = False
    names: Annotated[tuple[OutputName, ...], Field(max_length=ranges.MOST_MEMBERS)] = field(default=())

    def __post_init__(self) -> None:
        if (self.head == "anchors") != (self.anchors is not None):
            raise ValueError("head: anchors goes with a section anchors; give both or neither")

    def digest(self) -> str:
        """Names all that the decoder computes: equal digests, equal functions."""
        return xxhash.xxh3_64_hexdigest(json.dumps(asdict(self), sort_keys=True).encode())


def read_task(value: Mapping[str, Any]) -> Task:
    """The task that `asdict` has made plain values of. Raises ModelError."""
    return ranges.read(Task, value, error=ModelError, what="a model's task")
