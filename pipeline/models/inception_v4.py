"""Inception-v4 as published (Szegedy et al. 2016, figures 3 to 9), which keras.applications does not have."""

from __future__ import annotations

from typing import Any

from pipeline.tensorflow_runtime import keras

_L = keras.layers
_Kernel = int | tuple[int, int]
_Step = tuple[int, _Kernel]
"""Filters and kernel of one convolution of a branch."""

_WIDE, _TALL = (1, 7), (7, 1)


def inception_v4(weights: None = None, input_shape: tuple[int, int, int] = (299, 299, 3), classes: int = 1000) -> Any:
    """The model, with a softmax; 42,679,816 trainable parameters at 1000 classes."""
    del weights
    image = keras.Input(input_shape, name="image")
    x = _stem(image)
    for block in range(1, 5):
        name = f"a{block}"
        branches = [_branch(x, [(96, 1)], f"{name}_1"), _branch(x, [(64, 1), (96, 3)], f"{name}_2")]
        branches.append(_branch(x, [(64, 1), (96, 3), (96, 3)], f"{name}_3"))
        x = _concatenate([*branches, _pooled(x, 96, name)], name)
    x = _reduction(x, [(384, 3)], [(192, 1), (224, 3), (256, 3)], "reduction_a")
    for block in range(1, 8):
        name = f"b{block}"
        branches = [
            _branch(x, [(384, 1)], f"{name}_1"),
            _branch(x, [(192, 1), (224, _WIDE), (256, _TALL)], f"{name}_2"),
        ]
        long: list[_Step] = [(192, 1), (192, _TALL), (224, _WIDE), (224, _TALL), (256, _WIDE)]
        branches.append(_branch(x, long, f"{name}_3"))
        x = _concatenate([*branches, _pooled(x, 128, name)], name)
    x = _reduction(x, [(192, 1), (192, 3)], [(256, 1), (256, _WIDE), (320, _TALL), (320, 3)], "reduction_b")
    for block in range(1, 4):
        x = _inception_c(x, f"c{block}")
    x = _L.GlobalAveragePooling2D(name="mean")(x)
    x = _L.Dropout(0.2, name="drop")(x)
    x = _L.Dense(classes, activation="softmax", name="predictions")(x)
    return keras.Model(image, x, name="inception_v4")


def _stem(x: Any) -> Any:
    x = _conv(x, 32, 3, "stem_1", stride=2, padding="valid")
    x = _conv(x, 32, 3, "stem_2", padding="valid")
    x = _conv(x, 64, 3, "stem_3")
    pool = _L.MaxPooling2D(3, 2, name="stem_pool_1")(x)
    x = _concatenate([pool, _conv(x, 96, 3, "stem_4", stride=2, padding="valid")], "stem_a")
    short = _branch(x, [(64, 1)], "stem_5")
    long = _branch(x, [(64, 1), (64, _TALL), (64, _WIDE)], "stem_6")
    ends = [_conv(y, 96, 3, f"stem_{i}_end", padding="valid") for i, y in ((5, short), (6, long))]
    x = _concatenate(ends, "stem_b")
    conv = _conv(x, 192, 3, "stem_7", stride=2, padding="valid")
    return _concatenate([conv, _L.MaxPooling2D(3, 2, name="stem_pool_2")(x)], "stem_c")


def _reduction(x: Any, short: list[_Step], long: list[_Step], name: str) -> Any:
    """Each branch ends with a strided convolution; the third is a pooling."""
    ends = []
    for number, steps in enumerate((short, long), start=1):
        y = _branch(x, steps[:-1], f"{name}_{number}")
        filters, kernel = steps[-1]
        ends.append(_conv(y, filters, kernel, f"{name}_{number}_end", stride=2, padding="valid"))
    return _concatenate([*ends, _L.MaxPooling2D(3, 2, name=f"{name}_pool")(x)], name)


def _inception_c(x: Any, name: str) -> Any:
    branches = [_branch(x, [(256, 1)], f"{name}_1")]
    stems: list[list[_Step]] = [[(384, 1)], [(384, 1), (448, (1, 3)), (512, (3, 1))]]
    for number, steps in enumerate(stems, start=2):
        y = _branch(x, steps, f"{name}_{number}")
        branches += [_conv(y, 256, (1, 3), f"{name}_{number}_wide"), _conv(y, 256, (3, 1), f"{name}_{number}_tall")]
    return _concatenate([*branches, _pooled(x, 256, name)], name)


def _pooled(x: Any, filters: int, name: str) -> Any:
    x = _L.AveragePooling2D(3, 1, "same", name=f"{name}_pool")(x)
    return _conv(x, filters, 1, f"{name}_pooled")


def _branch(x: Any, steps: list[_Step], name: str) -> Any:
    for number, (filters, kernel) in enumerate(steps, start=1):
        x = _conv(x, filters, kernel, f"{name}_{number}")
    return x


def _concatenate(branches: list[Any], name: str) -> Any:
    return _L.Concatenate(name=name)(branches)


def _conv(x: Any, filters: int, kernel: _Kernel, name: str, stride: int = 1, padding: str = "same") -> Any:
    x = _L.Conv2D(filters, kernel, stride, padding, use_bias=False, name=f"{name}_conv")(x)
    x = _L.BatchNormalization(epsilon=1e-3, name=f"{name}_bn")(x)
    return _L.ReLU(name=f"{name}_relu")(x)
