"""ResNet-18 as published (He et al. 2015, table 1; option B shortcuts), which keras.applications does not have.

Padding, stride and epsilon are torchvision's, so that its weights could be carried over.
"""

from __future__ import annotations

from typing import Any

from pipeline.tensorflow_runtime import keras

_EPSILON = 1e-5
_STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))


def resnet18(weights: None = None, input_shape: tuple[int, int, int] = (224, 224, 3), classes: int = 1000) -> Any:
    """The model, with a softmax; 11,689,512 trainable parameters at 1000 classes."""
    del weights
    image = keras.Input(input_shape, name="image")
    x = _conv(image, 64, 7, 2, "stem")
    x = keras.layers.ReLU(name="stem_relu")(x)
    x = keras.layers.ZeroPadding2D(1, name="pool_pad")(x)  # after a ReLU, zeros pad like minus infinity
    x = keras.layers.MaxPooling2D(3, 2, name="pool")(x)
    for stage, (filters, stride) in enumerate(_STAGES, start=1):
        x = _basic_block(x, filters, stride, f"stage{stage}_block1")
        x = _basic_block(x, filters, 1, f"stage{stage}_block2")
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    x = keras.layers.Dense(classes, activation="softmax", name="predictions")(x)
    return keras.Model(image, x, name="resnet18")


def _basic_block(x: Any, filters: int, stride: int, name: str) -> Any:
    shortcut = x
    if stride != 1 or x.shape[-1] != filters:
        shortcut = _conv(x, filters, 1, stride, f"{name}_shortcut")
    y = _conv(x, filters, 3, stride, f"{name}_1")
    y = keras.layers.ReLU(name=f"{name}_1_relu")(y)
    y = _conv(y, filters, 3, 1, f"{name}_2")
    y = keras.layers.Add(name=f"{name}_add")([shortcut, y])
    return keras.layers.ReLU(name=f"{name}_relu")(y)


def _conv(x: Any, filters: int, kernel: int, stride: int, name: str) -> Any:
    """Explicit padding of kernel // 2 on all sides: Keras's `same` pads a strided convolution unevenly."""
    if kernel > 1 and stride > 1:
        x = keras.layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    padding = "valid" if stride > 1 else "same"
    x = keras.layers.Conv2D(filters, kernel, stride, padding, use_bias=False, name=f"{name}_conv")(x)
    return keras.layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}_bn")(x)
