"""Keras networks of feature maps only: every operation that can be tiled, in random order."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from pipeline.tensorflow_runtime import keras
from tests.networks import L, trained


def random_spatial_network(draw: random.Random) -> Any:
    """Three to six pieces over a map of about 24x20, then one block that looks at the whole map."""
    image = keras.Input((draw.randint(18, 26), draw.randint(18, 26), 3))
    x = L.Conv2D(8, 3, padding="same", activation="relu")(image)
    for _ in range(draw.randint(3, 6)):
        x = draw.choice(PIECES)(x, draw) if min(x.shape[1:3]) > 7 else _residual(x, draw)
    return trained(keras.Model(image, L.GlobalAveragePooling2D()(x)), draw.randint(0, 99))


def _sides(draw: random.Random, *choices: int) -> tuple[int, int]:
    return draw.choice(choices), draw.choice(choices)


def _conv(x: Any, draw: random.Random) -> Any:
    """Rectangular, even and odd kernels, strides, same and valid."""
    strides = draw.choice([1, 1, 2, (2, 1), 3])
    return L.Conv2D(8, _sides(draw, 1, 2, 3, 4), strides=strides, padding=draw.choice(["same", "valid"]))(x)


def _dilated(x: Any, draw: random.Random) -> Any:
    return L.Conv2D(8, 3, dilation_rate=_sides(draw, 1, 2, 3), padding="same", activation="relu")(x)


def _grouped(x: Any, draw: random.Random) -> Any:
    return L.Conv2D(8, 3, groups=4, strides=draw.choice([1, 2]), padding="same")(x)


def _depthwise(x: Any, draw: random.Random) -> Any:
    x = L.DepthwiseConv2D(draw.choice([2, 3, 5]), strides=draw.choice([1, 2]), padding="same")(x)
    return L.ReLU(6.0)(L.BatchNormalization()(x))


def _dilated_depthwise(x: Any, draw: random.Random) -> Any:
    return L.DepthwiseConv2D(3, dilation_rate=2, padding="same")(x)


def _separable(x: Any, draw: random.Random) -> Any:
    return L.SeparableConv2D(8, draw.choice([3, 5]), strides=draw.choice([1, 2]), padding="same")(x)


def _padded(x: Any, draw: random.Random) -> Any:
    """Explicit padding, as ResNet and MobileNet have it, before a convolution and before a pool."""
    x = L.ZeroPadding2D(((0, 1), (2, 3)))(x)
    x = L.Conv2D(8, 3, strides=draw.choice([1, 2]))(x)
    return L.MaxPooling2D(3, draw.choice([1, 2]))(L.ZeroPadding2D(1)(x))


def _max(x: Any, draw: random.Random) -> Any:
    return L.MaxPooling2D(_sides(draw, 2, 3), draw.choice([1, 2, 3]), padding=draw.choice(["same", "valid"]))(x - 3.0)


def _average(x: Any, draw: random.Random) -> Any:
    return L.AveragePooling2D(draw.choice([2, 3]), draw.choice([1, 2, 3]), padding="same")(x)


def _wide_average(x: Any, draw: random.Random) -> Any:
    """A border that reaches further than a tile's first outputs."""
    return L.AveragePooling2D((5, 4), (1, 2), padding="same")(x)


def _residual(x: Any, draw: random.Random) -> Any:
    y = L.BatchNormalization()(L.Conv2D(x.shape[-1], 3, padding="same")(x))
    return L.Activation("swish")(L.Add()([L.Conv2D(x.shape[-1], 1)(x), y]))


def _inception(x: Any, draw: random.Random) -> Any:
    branches = [L.Conv2D(4, (1, 5), padding="same")(L.Conv2D(4, (5, 1), padding="same")(x)), L.ReLU()(x)]
    return L.Conv2D(8, 1)(L.Concatenate()([*branches, L.AveragePooling2D(3, 1, padding="same")(x)]))


def _excited(x: Any, draw: random.Random) -> Any:
    gate = L.Conv2D(x.shape[-1], 1, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(x))
    return L.ReLU()(L.Conv2D(8, 3, padding="same")(L.Multiply()([x, gate]) * 0.5 + 1.0))


def _cropped(x: Any, draw: random.Random) -> Any:
    """NASNet's shifted path: pad on one side, crop on the other."""
    return L.Add()([L.Cropping2D(((1, 0), (1, 0)))(L.ZeroPadding2D(((0, 1), (0, 1)))(x)), x])


def _upsampled(x: Any, draw: random.Random) -> Any:
    return L.Conv2D(8, 3, strides=2, padding="same")(L.UpSampling2D((2, 3))(x))


def _dense(x: Any, draw: random.Random) -> Any:
    """Dense layers over channels, and an activation with weights."""
    y = L.Dense(x.shape[-1])(L.Dense(16, activation="gelu")(L.BatchNormalization()(x)))
    return L.PReLU(shared_axes=[1, 2])(x + y)


PIECES: list[Callable[[Any, random.Random], Any]] = [
    _conv, _dilated, _grouped, _depthwise, _dilated_depthwise, _separable, _padded, _max, _average, _wide_average,
    _residual, _inception, _excited, _cropped, _upsampled, _dense,
]  # fmt: skip
