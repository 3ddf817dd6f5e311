"""The task of a model in the configuration: what its outputs mean, and how answers are made of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from nodes.config.base import Section
from nodes.config.values import as_tuple
from pipeline.answers.task import MOST_BOXES, Anchors, OutputName, Side, Stride, Task
from pipeline.ranges import MOST_MEMBERS

_USUAL_MOST = {"classify": 5, "detect": 100}

Strides = Annotated[tuple[Stride, ...], BeforeValidator(as_tuple), Field(min_length=1, max_length=16)]


def _tuples(value: Any) -> Any:
    return tuple(as_tuple(one) for one in value) if isinstance(value, list) else value


class AnchorsSection(Section):
    """The boxes from which a detector's offsets count, level by level, row by row; at a place by size, then ratio."""

    strides: Strides = Field(description="a list of pixels between two places, one for each level, as [8, 16, 32]")
    sizes: Annotated[
        tuple[Annotated[tuple[Side, ...], Field(min_length=1, max_length=32)], ...], BeforeValidator(_tuples)
    ] = Field(description="for each level a list of sides in pixels, as [[32, 40], [64, 80], [128, 160]]")
    ratios: Annotated[tuple[Side, ...], BeforeValidator(as_tuple), Field(min_length=1, max_length=32)] = Field(
        (0.5, 1.0, 2.0), description="a list of heights over widths"
    )
    variances: Annotated[tuple[Side, Side, Side, Side], BeforeValidator(as_tuple)] = Field(
        (0.1, 0.1, 0.2, 0.2), description="four numbers that offsets are multiplied by: x, y, width, height"
    )

    @model_validator(mode="after")
    def _each_level_has_sizes(self) -> AnchorsSection:
        self.anchors()
        return self

    def anchors(self) -> Anchors:
        """The anchors as plain values."""
        return Anchors(**dict(self))


class TaskSection(Section):
    """What a model's outputs mean. Its `kind` alone may stand in its place: `task: classify`."""

    kind: Literal["classify", "detect", "segment", "keypoints", "values", "embedding", "raw"] = Field(
        description="one of classify, detect, segment, keypoints, values, embedding, raw"
    )
    activation: Literal["none", "sigmoid", "softmax"] = Field(
        "none", description="what makes scores of the outputs: none (they are scores), sigmoid or softmax"
    )
    most: int | None = Field(
        None, ge=1, le=MOST_BOXES, description=f"classes or boxes at most in an answer, 1 to {MOST_BOXES}"
    )
    head: Literal["boxes", "yolo", "anchors"] = Field(
        "boxes", description="how a detector writes boxes: boxes (as they are), yolo (v8), anchors (SSD, RetinaNet)"
    )
    boxes: OutputName = Field("", description="the name of the output with boxes, where shapes do not say it")
    scores: OutputName = Field("", description="the name of the output with scores, where shapes do not say it")
    classes: OutputName = Field("", description="the name of the output with the boxes' classes, if there is one")
    form: Literal["xyxy", "yxyx", "xywh", "yxhw"] = Field(
        "xyxy", description="a box's four numbers: corners (xyxy, yxyx) or centre and sides (xywh, yxhw)"
    )
    unit: Literal["share", "pixel"] = Field("share", description="share (of the input's sides) or pixel (of the input)")
    strides: Strides = Field((8, 16, 32), description="a list of pixels between two places of a yolo head's levels")
    anchors: AnchorsSection | None = Field(None, description="a section with strides, sizes, ratios and variances")
    score_at_least: float = Field(0.25, ge=0, le=1, description="a score from 0 to 1 below which nothing is found")
    overlap_at_most: float = Field(
        0.5, gt=0, le=1, description="intersection over union above 0, beyond which the worse box goes; 1 keeps all"
    )
    background: bool = Field(False, description="true where class 0 is none, as SSD has it, or false")
    names: Annotated[tuple[OutputName, ...], BeforeValidator(as_tuple), Field(max_length=MOST_MEMBERS)] = Field(
        (), description="a list of the values' names, in their order"
    )

    @model_validator(mode="before")
    @classmethod
    def _a_kind_alone(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _anchors_go_with_their_head(self) -> TaskSection:
        self.task()
        return self

    def task(self) -> Task:
        """The task as plain values."""
        given = {name: getattr(self, name) for name in type(self).model_fields}
        anchors = self.anchors.anchors() if self.anchors is not None else None
        return Task(**{**given, "anchors": anchors, "most": self.most or _USUAL_MOST.get(self.kind, 0)})
