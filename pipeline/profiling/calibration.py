"""How fast a node's engine is, from a few seconds with one small network: a block for each way a block can be slow.

The network is fixed; what was measured with another one cannot be compared.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from pipeline.estimator.speed import Speed
from pipeline.prepare.model import PreparedModel, prepare
from pipeline.profiling import profile
from pipeline.tensorflow_runtime import keras

if TYPE_CHECKING:
    from pipeline.engines import Engine

_SIDE, _NARROW, _WIDE, _UNITS = 56, 64, 256, 4096
_TINY = 16
_REPEATS = 20
_KEPT = "speed-1"
"""The number grows with each change of the network."""


def network() -> PreparedModel:
    """A 3x3 convolution, a depthwise one, a sum, a large dense layer, and sixteen layers that are mostly overhead."""
    layers = keras.layers
    image = keras.Input((_SIDE, _SIDE, _NARROW), name="image")
    x = layers.Conv2D(_NARROW, 3, padding="same", activation="relu", name="convolution")(image)
    wide = layers.Conv2D(_WIDE, 1, name="widen")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(wide)
    x = layers.Add(name="add")([x, wide])
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Dense(_UNITS, name="expand")(x)
    x = layers.Dense(_UNITS, name="dense")(x)
    for number in range(_TINY):
        x = layers.Dense(8, name=f"tiny_{number}")(x)
    return prepare(keras.Model(image, x), "calibration")


def calibrate(engine: Engine) -> Speed:
    """Measure the engine as it will run. Takes about a second on a desktop processor."""
    model = network()
    times = engine.profile(model, _REPEATS)
    blocks = {block.name: block for block in model.graph.blocks}
    seconds = {name: max(times.seconds[block.index], 1e-9) for name, block in blocks.items()}
    crossed = (*blocks["add"].inputs, *blocks["add"].outputs)
    return Speed(
        macs_per_s=blocks["convolution"].macs / seconds["convolution"],
        depthwise_macs_per_s=blocks["depthwise"].macs / seconds["depthwise"],
        bytes_per_s=sum(model.graph.tensors[t].nbytes for t in crossed) / seconds["add"],
        weight_bytes_per_s=4 * blocks["dense"].parameters / seconds["dense"],
        operation_s=statistics.median(seconds[f"tiny_{number}"] for number in range(1, _TINY)),
    )


def load_cached(engine: Engine) -> Speed | None:
    """The speed measured before on such a machine, or None."""
    return profile.kept(_KEPT, engine, Speed.from_json)


def calibrate_or_load(engine: Engine) -> Speed:
    """The speed measured before on such a machine, else a new one; of the nodes of one machine, one measures."""
    if (speed := load_cached(engine)) is not None:
        return speed  # before the lock, which a neighbour may hold for as long as a large model takes
    with profile.alone():
        speed = load_cached(engine)
        if speed is None:
            speed = calibrate(engine)
            profile.keep_if_possible(_KEPT, engine, speed.to_json())
        return speed
