"""The network of demos where MobileNetV2 cannot be packed for lack of TensorFlow: a small one, drawn without it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from pipeline.lite.package import SUFFIX
from pipeline.lite.sketch import Layer, Sketch, save

FILE: Final = f"drawn_net{SUFFIX}"
_SIDE, _CHANNELS, _CLASSES, _STEPS = 96, 24, 10, 6


def network() -> Sketch:
    """Six residual steps of two convolutions each over photos of 96 x 96 pixels, and a head of ten classes."""
    layers = [Layer("stem", "conv", ("image",), 3, _CHANNELS)]
    before = "stem"
    for number in range(1, _STEPS + 1):
        layers += [
            Layer(f"expand{number}", "conv", (before,), 3, _CHANNELS),
            Layer(f"project{number}", "conv", (f"expand{number}",), 3, _CHANNELS),
            Layer(f"add{number}", "add", (before, f"project{number}")),
        ]
        before = f"add{number}"
    layers += [Layer("mean", "mean", (before,)), Layer("head", "dense", ("mean",), 1, _CLASSES)]
    return Sketch(FILE.removesuffix(SUFFIX), (_SIDE, _SIDE, 3), tuple(layers))


def is_needed() -> bool:
    """True where no network of the zoo can be packed, since TensorFlow is not installed."""
    return find_spec("tensorflow") is None


def put(folder: Path) -> Path:
    """Write the package of the drawn network into a folder, which is made; returns its path. Raises ModelError."""
    path = folder / FILE
    save(network(), path, preprocess="unit")
    return path
