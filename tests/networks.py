"""Small Keras models of every shape that preparing must cope with, and random placements of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.engines import Engine, create
from pipeline.graph import ModelGraph
from pipeline.placement import Placement, Tier, stages
from pipeline.prepare.model import PreparedModel
from pipeline.tensorflow_runtime import keras

Array = npt.NDArray[Any]
L = keras.layers

create("tensorflow", 1)  # its threads are fixed before its first tensor, which these networks make


def trained(model: Any, seed: int = 0) -> Any:
    """The model with biases and batch norms as training leaves them: nowhere 0 or 1."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if variable.name in {"bias", "beta", "moving_mean"}:
            variable.assign(rng.normal(0, 0.2, variable.shape))
        elif variable.name in {"gamma", "moving_variance"}:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


def random_network(draw: random.Random) -> Any:
    """A functional model of about ten layers over 12x12 maps, with branches, shared and nested layers."""
    image = keras.Input((12, 12, 3))
    x = L.Conv2D(4, 3, padding="same", use_bias=False)(image)
    for _ in range(draw.randint(2, 6)):
        x = draw.choice(_PIECES)(x, draw)
    outputs = [L.Dense(5, activation="softmax")(L.GlobalAveragePooling2D()(x))]
    if draw.random() < 0.4:
        outputs.append(L.Flatten()(L.MaxPooling2D()(x)))
    return trained(keras.Model(image, outputs), draw.randint(0, 99))


def _conv(x: Any, draw: random.Random) -> Any:
    if draw.random() < 0.3:
        x = L.ZeroPadding2D(1)(x)
    x = L.Conv2D(draw.choice([4, 8]), draw.choice([1, 3]), padding="same", use_bias=draw.random() < 0.5)(x)
    x = L.BatchNormalization(scale=draw.random() < 0.7)(x)
    return draw.choice([L.ReLU(6.0), L.Activation("swish"), L.LeakyReLU(), L.Dropout(0.5)])(x)


def _depthwise(x: Any, draw: random.Random) -> Any:
    kind = draw.choice([L.DepthwiseConv2D(3, padding="same"), L.SeparableConv2D(6, 3, padding="same")])
    return L.ReLU()(L.BatchNormalization()(kind(x)))


def _residual(x: Any, draw: random.Random) -> Any:
    y = L.BatchNormalization()(L.Conv2D(x.shape[-1], 3, padding="same")(x))
    return L.Activation("relu")(L.Add()([x, y]))


def _inception(x: Any, draw: random.Random) -> Any:
    return L.Concatenate()([L.Conv2D(3, 1)(x), L.AveragePooling2D(3, 1, padding="same")(x), L.ReLU()(x)])


def _before(x: Any, draw: random.Random) -> Any:
    return L.Conv2D(4, 3, padding="same")(L.ReLU()(L.BatchNormalization()(x)))


def _excite(x: Any, draw: random.Random) -> Any:
    gate = L.Conv2D(x.shape[-1], 1, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(x))
    return x * gate + 0.5


def _shared(x: Any, draw: random.Random) -> Any:
    conv = L.Conv2D(x.shape[-1], 3, padding="same")
    return conv(L.ReLU()(conv(x)))


def _nested(x: Any, draw: random.Random) -> Any:
    inside = keras.Sequential([keras.Input(x.shape[1:]), L.Conv2D(4, 1), L.BatchNormalization(), L.ReLU()])
    return inside(x)


_PIECES: list[Callable[[Any, random.Random], Any]] = [
    _conv, _conv, _depthwise, _residual, _inception, _before, _excite, _shared, _nested,
]  # fmt: skip


def random_placement(graph: ModelGraph, draw: random.Random) -> Placement:
    """Monotone along the edges, otherwise free: branches may stand on different tiers."""
    pace, tiers = draw.random() * 2 / len(graph), [Tier.DEVICE]
    for block in graph.blocks[1:]:
        least = max((tiers[graph.producer[t]] for t in block.inputs), default=Tier.DEVICE)
        tiers.append(Tier(min(least + (draw.random() < pace) + (draw.random() < pace), Tier.CLOUD)))
    return tuple(tiers)


def frame_of(graph: ModelGraph, seed: int = 0) -> dict[int, Array]:
    """Random inputs of a model, by tensor id."""
    rng = np.random.default_rng(seed)
    made: dict[int, Array] = {}
    for i in graph.inputs:
        tensor = graph.tensors[i]
        is_float = np.dtype(tensor.dtype).kind == "f"
        values = rng.standard_normal(tensor.shape) if is_float else rng.integers(0, 4, tensor.shape)
        made[i] = values.astype(tensor.dtype)
    return made


def run_split(engine: Engine, model: PreparedModel, placement: Placement, frame: dict[int, Array]) -> list[Array]:
    """The model's outputs, computed stage by stage; each stage is given only what it would receive."""
    known: dict[int, Array] = {}
    for stage in stages(model.graph, placement):
        given = frame if stage.tier == Tier.DEVICE else {i: known[i] for i in stage.inputs}
        known.update(engine.compile(model, stage.blocks, tuple(given), stage.outputs).run(given))
    return [known[i] for i in model.graph.outputs]
