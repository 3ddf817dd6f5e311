"""Make a Keras model of a sketch, for the engine that runs those."""

from __future__ import annotations

from pipeline.lite.sketch import Layer, Sketch
from pipeline.prepare.model import PreparedModel, prepare
from pipeline.tensorflow_runtime import keras

_L = keras.layers


def prepared(sketch: Sketch) -> PreparedModel:
    """The sketch as a prepared model; weights are Keras's own."""
    made = {"image": keras.Input(sketch.image, name="image")}
    for layer in sketch.layers:
        given = [made[name] for name in layer.inputs]
        made[layer.name] = _layer(layer)(given if layer.kind == "add" else given[0])
    return prepare(keras.Model(made["image"], made[sketch.layers[-1].name]), sketch.name)


def _layer(layer: Layer) -> keras.layers.Layer:
    if layer.kind == "conv":
        return _L.Conv2D(layer.units, layer.size, padding="same", name=layer.name)
    if layer.kind == "depthwise":
        return _L.DepthwiseConv2D(layer.size, padding="same", name=layer.name)
    if layer.kind == "dense":
        return _L.Dense(layer.units, name=layer.name)
    return {"add": _L.Add, "mean": _L.GlobalAveragePooling2D}[layer.kind](name=layer.name)
