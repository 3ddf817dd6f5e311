"""Darknet-53 as published (Redmon and Farhadi, YOLOv3, 2018, table 1), with its classifier.

Strided convolutions are padded by one on all sides, as darknet does, so that its weights could be carried over.
"""

from __future__ import annotations

from typing import Any

from pipeline.tensorflow_runtime import keras

_L = keras.layers
_STAGES = ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))
"""Filters and residual blocks."""


def darknet53(weights: None = None, input_shape: tuple[int, int, int] = (256, 256, 3), classes: int = 1000) -> Any:
    """The model, with a softmax; 41,609,928 trainable parameters at 1000 classes."""
    del weights
    image = keras.Input(input_shape, name="image")
    x = _conv(image, 32, 3, 1, "stem")
    for stage, (filters, blocks) in enumerate(_STAGES, start=1):
        x = _conv(x, filters, 3, 2, f"stage{stage}_down")
        for block in range(1, blocks + 1):
            name = f"stage{stage}_block{block}"
            y = _conv(x, filters // 2, 1, 1, f"{name}_1")
            y = _conv(y, filters, 3, 1, f"{name}_2")
            x = _L.Add(name=f"{name}_add")([x, y])
    x = _L.GlobalAveragePooling2D(name="mean")(x)
    x = _L.Dense(classes, activation="softmax", name="predictions")(x)
    return keras.Model(image, x, name="darknet53")


def _conv(x: Any, filters: int, kernel: int, stride: int, name: str) -> Any:
    if stride > 1:
        x = _L.ZeroPadding2D(1, name=f"{name}_pad")(x)
    padding = "valid" if stride > 1 else "same"
    x = _L.Conv2D(filters, kernel, stride, padding, use_bias=False, name=f"{name}_conv")(x)
    x = _L.BatchNormalization(epsilon=1e-5, name=f"{name}_bn")(x)
    return _L.LeakyReLU(negative_slope=0.1, name=f"{name}_leaky")(x)
