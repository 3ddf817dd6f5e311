"""AlexNet as "One weird trick for parallelizing convolutional neural networks" has it (Krizhevsky 2014, one column).

The network of 2012 without its two columns and its response normalisation; what torchvision calls alexnet. Padding is
torchvision's, so that its weights could be carried over.
"""

from __future__ import annotations

from typing import Any

from pipeline.tensorflow_runtime import keras

_L = keras.layers


def alexnet(weights: None = None, input_shape: tuple[int, int, int] = (224, 224, 3), classes: int = 1000) -> Any:
    """The model, with a softmax; 61,100,840 parameters at 1000 classes."""
    del weights
    image = keras.Input(input_shape, name="image")
    x = _L.ZeroPadding2D(2, name="conv1_pad")(image)
    x = _L.Conv2D(64, 11, 4, activation="relu", name="conv1")(x)
    x = _L.MaxPooling2D(3, 2, name="pool1")(x)
    x = _L.Conv2D(192, 5, padding="same", activation="relu", name="conv2")(x)
    x = _L.MaxPooling2D(3, 2, name="pool2")(x)
    for number, filters in ((3, 384), (4, 256), (5, 256)):
        x = _L.Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{number}")(x)
    x = _L.MaxPooling2D(3, 2, name="pool5")(x)
    x = _L.Flatten(name="flatten")(x)
    for number in (6, 7):
        x = _L.Dropout(0.5, name=f"drop{number}")(x)
        x = _L.Dense(4096, activation="relu", name=f"fc{number}")(x)
    x = _L.Dense(classes, activation="softmax", name="predictions")(x)
    return keras.Model(image, x, name="alexnet")
