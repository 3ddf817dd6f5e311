"""Small networks of each task as packages, trained in a second on generated pictures: rectangles on noise.

They are written operation by operation, so that no framework has to be loaded for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.graph import Block, ModelGraph, Tensor
from pipeline.lite.package import Draft, Package, write
from pipeline.lite.program import ARRAY, Op

Floats: TypeAlias = npt.NDArray[Any]
SIDE, STRIDE, FIELD, HIDDEN = 64, 8, 24, 32
PLACES = SIDE // STRIDE
CLASSES = ("red", "blue")
_COLOURS = {"red": (230, 40, 40), "blue": (40, 60, 220)}


@dataclass
class Network:
    """A chain of operations over one picture, written into a package; `outputs` are tensor ids."""

    name: str
    tensors: list[Tensor] = field(default_factory=lambda: [Tensor(0, "image", (1, SIDE, SIDE, 3), "float32")])
    ops: list[Op] = field(default_factory=list)
    arrays: list[Floats] = field(default_factory=list)

    def add(
        self, kind: str, source: int, gives: Sequence[int], arrays: Sequence[Floats] = (), **options: object
    ) -> int:
        """One block over a tensor; returns the id of what it makes."""
        made = len(self.tensors)
        held = tuple(range(len(self.arrays), len(self.arrays) + len(arrays)))
        self.arrays += [np.ascontiguousarray(array, np.float32) for array in arrays]
        self.tensors.append(Tensor(made, f"{kind}_{made}", tuple(gives), "float32"))
        inputs = (source, ARRAY) if kind == "add" else (source,)
        self.ops.append(Op(kind, inputs, (made,), held, options))
        return made

    def package(self, path: Path, *outputs: int) -> Package:
        """Write it, and open it."""
        blocks = [Block(0, "input", "input", (), (), (0,))]
        for index, op in enumerate(self.ops, start=1):
            (made,) = op.outputs
            name = self.tensors[made].name
            macs = sum(array.size for array in (self.arrays[i] for i in op.arrays)) * PLACES
            blocks.append(Block(index, name, op.kind, (name,), op.inputs[:1], op.outputs, macs=macs))
        graph = ModelGraph(self.name, self.name, tuple(self.tensors), tuple(blocks), (0,), outputs)
        draft = Draft(graph, ((), *((op,) for op in self.ops)), tuple(partial(np.asarray, a) for a in self.arrays))
        write(path, draft, {"source": path.name})
        return Package(path)


@dataclass(frozen=True)
class Scene:
    """A picture, its boxes (left, top, right, bottom in pixels) with their classes, and the class of each pixel."""

    pixels: npt.NDArray[np.uint8]
    boxes: tuple[tuple[int, int, int, int], ...]
    classes: tuple[int, ...]
    map: npt.NDArray[np.uint8]


def scene(draw: np.random.Generator, objects: int) -> Scene:
    """Noise with up to so many rectangles, none over another."""
    pixels = draw.integers(90, 150, (SIDE, SIDE, 3)).astype(np.uint8)
    classes_of_pixels = np.zeros((SIDE, SIDE), np.uint8)
    boxes: list[tuple[int, int, int, int]] = []
    classes: list[int] = []
    for _ in range(objects * 4):
        width, height = draw.integers(9, 17, 2)
        left, top = draw.integers(0, SIDE - width + 1), draw.integers(0, SIDE - height + 1)
        around = (slice(max(top - 8, 0), top + height + 8), slice(max(left - 8, 0), left + width + 8))
        if len(boxes) == objects or classes_of_pixels[around].any():
            continue
        kind = int(draw.integers(len(CLASSES)))
        inside = (slice(top, top + height), slice(left, left + width))
        pixels[inside] = np.array(_COLOURS[CLASSES[kind]]) + draw.integers(-20, 20, (height, width, 3))
        classes_of_pixels[inside] = kind + 1
        boxes.append((int(left), int(top), int(left + width), int(top + height)))
        classes.append(kind)
    return Scene(pixels, tuple(boxes), tuple(classes), classes_of_pixels)


def as_input(pixels: npt.NDArray[np.uint8]) -> Floats:
    """What preprocessing `unit` makes of a picture."""
    return (pixels.astype(np.float32) / np.float32(255))[None]


def detector(path: Path) -> Package:
    """Centres, sides (in pixels) and scores of two classes at 8x8 places, as YOLOv8 exports them: float[1, 6, 64]."""
    draw = np.random.default_rng(0)
    scenes = [scene(draw, 3) for _ in range(160)]
    patches = np.concatenate([_patches(one.pixels) for one in scenes])
    targets = np.concatenate([_targets(one) for one in scenes])
    first, second = _trained(patches, targets, draw)
    half = FIELD // 4
    network = Network("finder")
    pooled = network.add(
        "average_pool", 0, (1, SIDE // 2, SIDE // 2, 3), size=[2, 2], stride=[2, 2], pads=[[0, 0], [0, 0]]
    )
    kernel = first[0].T.reshape(HIDDEN, 2 * half, 2 * half, 3)
    pads = [[half - STRIDE // 4, half - STRIDE // 4]] * 2
    hidden = network.add(
        "conv", pooled, (1, PLACES, PLACES, HIDDEN), (kernel, first[1]), stride=[4, 4], pads=pads, activation="relu"
    )
    numbers = network.add("conv", hidden, (1, PLACES, PLACES, 6), (second[0].T.reshape(6, 1, 1, HIDDEN), second[1]))
    rows = network.add("reshape", numbers, (1, PLACES * PLACES, 6), shape=[1, PLACES * PLACES, 6])
    at = np.arange(PLACES * PLACES)
    corners = np.zeros((1, PLACES * PLACES, 6))
    corners[0, :, 0], corners[0, :, 1] = at % PLACES * STRIDE, at // PLACES * STRIDE
    absolute = network.add("add", rows, corners.shape, (corners,))
    turned = network.add("transpose", absolute, (1, 6, PLACES * PLACES), order=[0, 2, 1])
    return network.package(path, turned)


def segmenter(path: Path) -> Package:
    """Scores of background, red and blue for each pixel: float[1, 64, 64, 3]."""
    network = Network("painter")
    return network.package(path, _scores(network))


def pointer(path: Path) -> Package:
    """Maps that are highest in the middle of the red and of the blue rectangle: float[1, 64, 64, 2]."""
    network = Network("pointer")
    scores = _scores(network)
    kernel = np.zeros((2, 13, 13, 3), np.float32)
    kernel[0, ..., 1] = kernel[1, ..., 2] = 1 / 169
    pads = [[6, 6], [6, 6]]
    return network.package(path, network.add("conv", scores, (1, SIDE, SIDE, 2), (kernel, np.zeros(2)), pads=pads))


def gauge(path: Path) -> Package:
    """The shares of background, red and blue: float[1, 3]."""
    network = Network("gauge")
    scores = _scores(network)
    return network.package(path, network.add("mean", scores, (1, 3), axes=[1, 2], keep=False))


def _scores(network: Network) -> int:
    """A 3x3 convolution to one score for each class of pixel, by least squares on its class."""
    draw = np.random.default_rng(1)
    scenes = [scene(draw, 4) for _ in range(12)]
    windows = [_windows(one.pixels) for one in scenes]
    x = np.concatenate([np.concatenate(windows), np.ones((len(scenes) * SIDE * SIDE, 1), np.float32)], axis=1)
    y = np.eye(3, dtype=np.float32)[np.concatenate([one.map.reshape(-1) for one in scenes])]
    weights = np.linalg.solve(x.T @ x + 1e-3 * np.eye(x.shape[1]), x.T @ y)
    kernel = weights[:-1].T.reshape(3, 3, 3, 3)
    return network.add("conv", 0, (1, SIDE, SIDE, 3), (kernel, weights[-1]), pads=[[1, 1], [1, 1]])


def _windows(pixels: npt.NDArray[np.uint8]) -> Floats:
    """(4096, 27): each pixel with those around it, zeros beyond the border."""
    x = np.pad(as_input(pixels)[0], ((1, 1), (1, 1), (0, 0)))
    parts = [x[r : r + SIDE, c : c + SIDE] for r in range(3) for c in range(3)]
    return np.stack(parts, axis=2).reshape(SIDE * SIDE, 27)


def _patches(pixels: npt.NDArray[np.uint8]) -> Floats:
    """(64, 432): what each place sees of the picture, pooled by 2, zeros around it."""
    x = as_input(pixels)[0].reshape(SIDE // 2, 2, SIDE // 2, 2, 3).mean((1, 3))
    half = FIELD // 4
    before = half - STRIDE // 4
    x = np.pad(x, ((before, before), (before, before), (0, 0)))
    steps = range(0, SIDE // 2, 4)
    return np.stack([x[r : r + 2 * half, c : c + 2 * half].reshape(-1) for r in steps for c in steps])


def _targets(one: Scene) -> Floats:
    """(64, 6): centre, sides and scores where a box's centre lies in a place; NaN for a box where there is none."""
    made = np.full((PLACES * PLACES, 6), np.nan, np.float32)
    made[:, 4:] = 0.0
    for (left, top, right, bottom), kind in zip(one.boxes, one.classes, strict=True):
        x, y = (left + right) / 2, (top + bottom) / 2
        place = int(y // STRIDE) * PLACES + int(x // STRIDE)
        made[place, :4] = x % STRIDE, y % STRIDE, right - left, bottom - top
        made[place, 4 + kind] = 1.0
    return made


def _trained(
    x: Floats, y: Floats, draw: np.random.Generator, steps: int = 500
) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Weights and biases of two layers, by Adam on squares; boxes count where they are, places with one more often."""
    layers = [
        (draw.standard_normal((x.shape[1], HIDDEN)) * np.sqrt(2 / x.shape[1])).astype(np.float32),
        np.zeros(HIDDEN, np.float32),
        (draw.standard_normal((HIDDEN, 6)) * np.sqrt(1 / HIDDEN)).astype(np.float32),
        np.zeros(6, np.float32),
    ]
    scale = np.array([STRIDE, STRIDE, 16, 16, 1, 1], np.float32)
    means, squares = [np.zeros_like(w) for w in layers], [np.zeros_like(w) for w in layers]
    full, empty = np.flatnonzero(~np.isnan(y[:, 0])), np.flatnonzero(np.isnan(y[:, 0]))
    for step in range(1, steps + 1):
        rows = np.concatenate([draw.choice(full, 128), draw.choice(empty, 256)])
        given, wanted = x[rows] - 0.5, y[rows] / scale
        hidden = np.maximum(given @ layers[0] + layers[1], 0)
        error = hidden @ layers[2] + layers[3] - wanted
        error = np.where(np.isnan(wanted), 0.0, error) / len(rows)
        back = (error @ layers[2].T) * (hidden > 0)
        slopes = [given.T @ back, back.sum(0), hidden.T @ error, error.sum(0)]
        for index, slope in enumerate(slopes):
            means[index] += 0.1 * (slope - means[index])
            squares[index] += 0.01 * (slope**2 - squares[index])
            steady = np.sqrt(squares[index] / (1 - 0.99**step)) + 1e-8
            layers[index] -= 0.004 * (means[index] / (1 - 0.9**step)) / steady
    layers[1] -= 0.5 * layers[0].sum(0)  # the pictures are not centred
    return (layers[0], layers[1]), (layers[2] * scale, layers[3] * scale)
