"""How a device words its answers: a model's task, its labels, and where its input lies in a frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.answers.report import class_map_png, first_values, report
from pipeline.answers.task import Task
from pipeline.frames.decode import Preprocess
from pipeline.frames.input_blocks import own_inputs
from pipeline.frames.size import Placing, placing
from pipeline.graph import ModelGraph
from pipeline.wire import Array

_RANK_OF_PICTURES = 4
_PLACED = frozenset({"detect", "segment", "keypoints"})


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """For one model. Without a task, a result shows what its outputs are and the first of their values."""

    graph: ModelGraph
    preprocess: Preprocess
    task: Task | None = None
    labels: Sequence[str] | None = None

    def fields(self, outputs: Mapping[int, Array], frame: bytes | Array, topic: str | None) -> dict[str, Any]:
        """The fields of a result for a frame's outputs, by tensor id; `topic` is where the tensors go, if they do."""
        answer = outputs[self.graph.outputs[0]]
        named = [self._output(tensor, outputs[tensor], topic) for tensor in self.graph.outputs]
        return {**report(self.task, answer, self.labels, self._placing(frame)), "outputs": named}

    def class_map(self, outputs: Mapping[int, Array], about: Mapping[str, str]) -> bytes | None:
        """The map of classes as PNG with these texts; None for a model of another task."""
        if self.task is None or self.task.kind != "segment":
            return None
        return class_map_png(outputs[self.graph.outputs[0]], about)

    def _placing(self, frame: bytes | Array) -> Placing:
        shape = own_inputs(self.graph)[0].shape
        if self.task is None or self.task.kind not in _PLACED or len(shape) != _RANK_OF_PICTURES:
            return Placing(0.0, 0.0, 1.0, 1.0)
        return placing(frame, (shape[1], shape[2]), self.preprocess)

    def _output(self, tensor: int, array: Array, topic: str | None) -> dict[str, Any]:
        declared = self.graph.tensors[tensor]
        found: dict[str, Any] = {
            "name": declared.name,
            "shape": list(declared.shape),
            "dtype": declared.dtype,
            "tensor": tensor,
        }
        if self.task is None or self.task.kind == "raw":
            found["first"] = first_values(array)
        return {**found, "topic": topic} if topic else found
