"""Answers of a whole network to seeded frames, short enough to publish: they show how far two engines are apart."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.engines.base import Array, unsplit
from pipeline.errors import ModelError

if TYPE_CHECKING:
    from pipeline.engines.base import Engine, Loaded
    from pipeline.graph import ModelGraph, Tensor

FRAMES = 2
_MOST_VALUES = 4096
"""Of all outputs of one frame, evenly chosen: a feature map shows no more than a part of it."""


@dataclass(frozen=True, slots=True)
class Distance:
    """Largest difference as a share of the largest value, and equality of the top classes."""

    relative: float
    same_top: bool


def answers(engine: Engine, model: Loaded) -> str:
    """Outputs for the seeded frames: float32 in base64, frame after frame. Compiles the whole network."""
    segment = unsplit(engine, model)
    found = [segment.run(frame(model.graph, seed)) for seed in range(FRAMES)]
    values = [_chosen(made, model.graph) for made in found]
    return base64.b64encode(np.concatenate(values).astype("<f4").tobytes()).decode()


def frame(graph: ModelGraph, seed: int) -> dict[int, Array]:
    """Inputs by tensor id, the same bits on every machine: real numbers from -2 to 2, or small integers."""
    draw = np.random.default_rng(seed)
    return {i: _drawn(draw, graph.tensors[i]) for i in graph.inputs}


def _drawn(draw: np.random.Generator, tensor: Tensor) -> Array:
    kind = np.dtype(tensor.dtype)
    if kind.kind == "f":  # no normal distribution, which takes logarithms of a library's own
        return (draw.random(tensor.shape, np.float32) * np.float32(4) - np.float32(2)).astype(kind)
    return draw.integers(0, 256 if kind == np.uint8 else 2, tensor.shape).astype(kind)


def distance(first: str, second: str) -> Distance:
    """Distance between two nodes' answers to the same frames. Raises ModelError for text that is none of `answers`."""
    mine, theirs = _read(first), _read(second)
    if mine.shape != theirs.shape or not mine.size:
        raise ModelError(f"answers of {mine.size} and {theirs.size} values cannot be compared")
    largest = float(np.abs(mine).max())
    relative = float(np.abs(mine - theirs).max()) / largest if largest else float(np.abs(theirs).max() > 0)
    halves = zip(np.array_split(mine, FRAMES), np.array_split(theirs, FRAMES), strict=True)
    return Distance(relative, all(int(a.argmax()) == int(b.argmax()) for a, b in halves))


def _chosen(made: Mapping[int, Array], graph: ModelGraph) -> Array:
    flat = np.concatenate([np.asarray(made[i], np.float32).reshape(-1) for i in graph.outputs])
    return flat[:: -(-flat.size // _MOST_VALUES)]


def _read(text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    try:
        found = np.frombuffer(base64.b64decode(text, validate=True), "<f4")
    except (binascii.Error, ValueError) as error:
        raise ModelError(f"answers that cannot be read: {error}") from error
    if not np.isfinite(found).all():
        raise ModelError("answers that are not finite")
    return found
