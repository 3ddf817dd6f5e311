"""Answers to frames as a program gets them, and the errors that take their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nodes.client.requests import RequestRefused
from pipeline.errors import ConfigError, FrameError, TrisectError
from pipeline.frames.decode import Scored
from pipeline.wire import Array


class FrameFailed(TrisectError):
    """The pipeline answered a frame with an error: its nodes could not compute it.

    Attributes:
        answer: the answer, with the node's own words in `result`.
    """

    def __init__(self, text: str, *, answer: Answer | None = None, hint: str = "") -> None:
        self.answer = answer
        super().__init__(text, hint=hint)


class FrameRefused(FrameFailed, FrameError):
    """The device refused a frame: its bytes are no image or array, or its shape does not fit the model."""


class FrameLost(RequestRefused):
    """A frame was sent and will have no answer: nobody runs who could give it, or the broker dropped one of the two."""


class ClientClosed(TrisectError):
    """The client was closed, or never opened; frames without an answer end with it."""


@dataclass(frozen=True, slots=True)
class Box:
    """One object found: its class, and its sides in the frame's pixels."""

    index: int
    label: str
    score: float
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The answer to one frame.

    Attributes:
        stream: the stream that the frame went through.
        sequence: its number there.
        result: the device's message as plain JSON values: what `mosquitto_sub` shows on `result/<stream>`.
        error: FrameRefused or FrameFailed, None for a frame that was computed.
    """

    stream: str
    sequence: int
    result: Mapping[str, Any] = field(repr=False)
    arrays: Mapping[str, Array] | None = field(default=None, repr=False)
    error: TrisectError | None = None

    @property
    def ok(self) -> bool:
        """True for a frame that was computed."""
        return self.error is None

    @property
    def seconds(self) -> float:
        """Seconds from the frame's entry at its device to its answer there."""
        return float(self.result["seconds"])

    @property
    def top(self) -> tuple[Scored, ...]:
        """The classes with the highest scores, best first, of a model that classifies. Raises as `field`."""
        return tuple(Scored(one["index"], one["label"], one["score"]) for one in self.field("top"))

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The objects found, best first, by a model that detects. Raises as `field`."""
        return tuple(Box(one["index"], one["label"], one["score"], *one["box"]) for one in self.field("boxes"))

    def field(self, name: str) -> Any:
        """A field that the model's task gives: `top`, `boxes`, `shares`, `keypoints`, `values` or `embedding`.

        Raises the answer's error for a frame that failed, ConfigError where the model has another task.
        """
        if self.error is not None:
            raise self.error
        if name not in self.result:
            task = self.result.get("task", "raw")
            raise ConfigError(f"stream {self.stream}: its model's task is {task}, which gives no {name}")
        return self.result[name]

    @property
    def outputs(self) -> Mapping[str, Array]:
        """The model's output tensors by name, each with its batch of 1, read-only.

        Raises the answer's error for a frame that failed, ConfigError where the stream does not publish outputs.
        """
        if self.error is not None:
            raise self.error
        if self.arrays is None:
            raise ConfigError(
                f"stream {self.stream} publishes no output tensors",
                hint=f"set streams.{self.stream}.outputs: true and start its device again",
            )
        return self.arrays


def answer_of(stream: str, result: Mapping[str, Any], arrays: Mapping[str, Array] | None) -> Answer:
    """The answer that a result and its outputs make; one that is `refused` says that the frame itself is at fault."""
    plain = Answer(stream, result["sequence"], result, arrays)
    if result["ok"]:
        return plain
    text = f"frame {plain.sequence} of stream {stream}: {result.get('error', 'no reason given')}"
    kind = FrameRefused if result.get("refused") is True else FrameFailed
    return Answer(stream, plain.sequence, result, None, kind(text, answer=plain))
