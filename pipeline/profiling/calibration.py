"""Calibration: an engine's speed, from a few seconds with one small network with a block for each feature.

The network is fixed; measurements of another one cannot be compared.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from pipeline.estimator.speed import Speed
from pipeline.lite.sketch import Layer, Sketch
from pipeline.profiling import profile

if TYPE_CHECKING:
    from pipeline.engines import Engine

_SIDE, _NARROW, _WIDE, _UNITS = 56, 64, 256, 4096
_TINY = 16
_REPEATS = 20
_KEPT = "speed-2"
"""The number grows with each change of the network."""


def _sketch() -> Sketch:
    layers = [
        Layer("convolution", "conv", ("image",), 3, _NARROW),
        Layer("widen", "conv", ("convolution",), 1, _WIDE),
        Layer("depthwise", "depthwise", ("widen",), 3),
        Layer("add", "add", ("depthwise", "widen")),
        Layer("mean", "mean", ("add",)),
        Layer("expand", "dense", ("mean",), units=_UNITS),
        Layer("dense", "dense", ("expand",), units=_UNITS),
    ]
    for number in range(_TINY):
        layers.append(Layer(f"tiny_{number}", "dense", (layers[-1].name,), units=8))
    return Sketch("calibration", (_SIDE, _SIDE, _NARROW), tuple(layers))


NETWORK = _sketch()
"""A 3x3 convolution, a depthwise one, a sum, a large dense layer, and sixteen layers that are mostly overhead."""


def calibrate(engine: Engine) -> Speed:
    """Measure the engine's speed as it will run. Takes about a second on a desktop processor."""
    model = engine.sketched(NETWORK)
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
    """The speed measured before with this engine on such a machine, or None."""
    return profile.kept(_KEPT, engine, Speed.from_json)


def calibrate_or_load(engine: Engine) -> Speed:
    """The speed measured before on such a machine, else a new one; one node of a machine measures, the others wait."""
    if (speed := load_cached(engine)) is not None:
        return speed  # before the lock, which a neighbour may hold for as long as a large model takes
    with profile.alone():
        speed = load_cached(engine)
        if speed is None:
            speed = calibrate(engine)
            profile.keep_if_possible(_KEPT, engine, speed.to_json())
        return speed
