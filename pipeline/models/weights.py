"""`seed:N`: weights that are drawn, yet the same bits on every machine.

Each weight has a Philox stream of its own, keyed by (N, layer, weight); its integers become floats by exact steps, so
neither the order of drawing nor the processor matters. Knows how large a weight should be, not where it is stored.

The sizes are He et al.'s, at the border between order (deep networks forget their input) and chaos (rounding errors
grow from layer to layer): there, a folded network stays within 1e-5 of its original.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.models.activation_statistics import INPUTS, SMOOTH, ActivationStatistics, activation_of, after
from pipeline.prepare.flatten import Call, FlatModel
from pipeline.tensorflow_runtime import ALIGNMENT, keras

_BITS = 23
_CHUNK = 1 << 20
_LOGIT_VARIANCE = 2.25
"""Of what goes into the last softmax: classes differ clearly, and none takes all."""

Drawing = Callable[..., npt.NDArray[np.float32]]


def seed_of(weights: str) -> int:
    """The N of `seed:N`. Raises ModelError."""
    number = weights.removeprefix("seed:")
    if not (number.isascii() and number.isdigit() and int(number) < 2**64):
        raise ModelError(f"weights {weights!r}: give seed:N with N from 0 to 2^64 - 1")
    return int(number)


def draw(shape: tuple[int, ...], key: tuple[int, int, int], low: float, high: float) -> npt.NDArray[np.float32]:
    """Uniform in [low, high): key is (seed, layer, weight)."""
    half = (high - low) / 2
    return _scaled(_integers(shape, key), half, low + half)


def _integers(shape: tuple[int, ...], key: tuple[int, int, int]) -> npt.NDArray[np.int32]:
    seed, layer, weight = key
    stream = np.random.Philox(key=np.array([seed, (layer << 32) | weight], np.uint64))
    made = _aligned(math.prod(shape))
    for start in range(0, made.size, _CHUNK):
        part = made[start : start + _CHUNK]
        words = stream.random_raw((part.size + 1) // 2).astype("<u8", copy=False).view("<u4")[: part.size]
        np.right_shift(words, 31 - _BITS, out=part.view(np.uint32))
        part -= 1 << _BITS
    return made.reshape(shape)


def _aligned(size: int) -> npt.NDArray[np.int32]:
    """Memory that starts where TensorFlow wants it, so that it can become a tensor as it is."""
    memory = np.empty(size * 4 + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size * 4].view(np.int32)


def _scaled(integers: npt.NDArray[np.int32], limit: float, centre: float) -> npt.NDArray[np.float32]:
    """In the integers' own memory: VGG-16 has a weight of 411 MB."""
    flat = integers.reshape(-1)
    floats = flat.view(np.float32)
    for start in range(0, flat.size, _CHUNK):
        floats[start : start + _CHUNK] = flat[start : start + _CHUNK] * (limit / (1 << _BITS)) + centre
    return floats.reshape(integers.shape)


def plan_weights(flat: FlatModel, seed: int, preprocess: str) -> dict[int, Drawing]:
    """For each floating point variable of the model, by id(): the function that draws it, as a Keras initialiser."""
    activation_statistics = dict.fromkeys(flat.inputs, INPUTS[preprocess])
    drawings: dict[int, Drawing] = {}
    # a little too large an input makes a smooth activation much too large: in a deep network that explodes undamped
    damped = any(activation_of(call.operation) in SMOOTH for call in flat.calls)
    for layer, call in enumerate(flat.calls):
        inputs = [activation_statistics[i] for i in call.inputs]
        target = _LOGIT_VARIANCE if activation_of(call.operation) in {"softmax", "sigmoid"} else 1.0
        for weight, variable in enumerate(getattr(call.operation, "weights", ())):
            if "float" in str(variable.dtype) and id(variable) not in drawings and not _is_learned_from_data(call):
                drawings[id(variable)] = _drawing(call, variable.name, (seed, layer, weight), inputs, target, damped)
        made = after(
            call.operation,
            inputs,
            sizes=[math.prod(flat.specs[i].shape) for i in call.inputs],
            constants=_numbers(call),
            shrink=_shrink(flat, call),
            target=target,
        )
        activation_statistics.update(dict.fromkeys(call.outputs, made))
    return drawings


def _is_learned_from_data(call: Call) -> bool:
    """Mean and variance of a Normalization: Keras has read them already when the weights are drawn."""
    return type(call.operation).__name__ == "Normalization"


def _numbers(call: Call) -> list[float]:
    leaves = keras.tree.flatten(call.args)
    return [float(leaf) for leaf in leaves if isinstance(leaf, (int, float)) and not isinstance(leaf, bool)]


def _shrink(flat: FlatModel, call: Call) -> float:
    return math.prod(flat.specs[call.inputs[0]].shape) / max(math.prod(flat.specs[call.outputs[0]].shape), 1)


def _drawing(
    call: Call, name: str, key: tuple[int, int, int], inputs: list[ActivationStatistics], target: float, damped: bool
) -> Drawing:
    x = inputs[0]
    deviation = math.sqrt(x.variance)
    ranges = {
        "gamma": (0.75, 1.0) if damped else (0.8, 1.2),
        "beta": (-0.8, 0.8) if damped else (-0.2, 0.2),
        "moving_mean": (x.mean - 0.2 * deviation, x.mean + 0.2 * deviation),
        "moving_variance": (0.8 * x.variance, 1.25 * x.variance),
    }
    if name in ranges:
        return lambda shape, dtype=None: draw(tuple(shape), key, *ranges[name])
    depthwise = type(call.operation).__name__.startswith("Depthwise") and name == "kernel"
    transpose = "Transpose" in type(call.operation).__name__

    def kernel(shape: tuple[int, ...], dtype: Any = None) -> npt.NDArray[np.float32]:
        shape = tuple(shape)
        if len(shape) <= 1:
            limit = 0.1
        elif name == "embeddings":
            limit = _limit(1, 1.0, target)
        elif depthwise or name == "depthwise_kernel":
            limit = _limit(math.prod(shape[:-2]), x.square, target)
        elif name in {"pointwise_kernel", "recurrent_kernel"}:
            limit = _limit(math.prod(shape[:-1]), 1.0, target)
        else:
            outputs = shape[-2] if transpose else shape[-1]
            limit = _limit(math.prod(shape) // outputs, x.square, target)
        return draw(shape, key, -limit, limit)

    return kernel


def _limit(fan_in: int, square: float, target: float) -> float:
    """He et al.'s uniform limit, with the input's own mean square in place of a rectified normal's 1/2."""
    return math.sqrt(3.0 * target / (max(fan_in, 1) * max(square, 1e-12)))
