"""The estimator: physically sensible for every graph, exact where the world is linear, free of TensorFlow."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engines import create
from pipeline.errors import ModelError
from pipeline.estimator import Speed, estimate, fit, price, shipped_coefficients
from pipeline.estimator.features import UNITS, amounts
from pipeline.estimator.regression import Sample
from pipeline.graph import Block, ModelGraph, Tensor
from tests.graphs import graphs

ROOT = Path(__file__).parents[4]
SCISSION = ROOT.parent / "shared" / "data" / "scission"
SPEED = Speed(macs_per_s=1e11, depthwise_macs_per_s=1e10, bytes_per_s=3e10, weight_bytes_per_s=3e10, operation_s=1e-5)
KINDS = (
    "Conv2D",
    "DepthwiseConv2D",
    "SeparableConv2D",
    "Dense",
    "Add",
    "MaxPooling2D",
    "Concatenate",
    "LSTM",
    "Sigmoid",
)


def _convolution(filters: int, kernel: int = 3, kind: str = "Conv2D", stride: int = 1) -> ModelGraph:
    macs = 28 * 28 * 64 * filters * kernel * kernel
    tensors = (Tensor(0, "x", (1, 28, 28, 64), "float32"), Tensor(1, "y", (1, 28, 28, filters), "float32"))
    parameters = 64 * filters * kernel * kernel
    block = Block(1, "c", kind, ("c",), (0,), (1,), parameters, macs, (kernel, kernel), (stride, stride))
    return ModelGraph("m", "d", tensors, (Block(0, "input", "input", (), (), (0,)), block), (0,), (1,))


@given(graphs(), st.sampled_from(KINDS))
def test_every_block_of_every_graph_has_a_finite_time_and_the_input_takes_none(graph: ModelGraph, kind: str) -> None:
    blocks = (graph.blocks[0], *(replace(b, kind=kind, parameters=7, macs=1000) for b in graph.blocks[1:]))
    seconds = estimate(replace(graph, blocks=blocks), SPEED)
    assert len(seconds) == len(graph)
    assert seconds[0] == 0.0
    assert all(math.isfinite(value) and value >= 0 for value in seconds)


@pytest.mark.parametrize("kind", ["Conv2D", "SeparableConv2D", "DepthwiseConv2D"])
def test_more_work_never_takes_less_time(kind: str) -> None:
    times = [estimate(_convolution(filters, kind=kind), SPEED)[1] for filters in (8, 16, 64, 65, 512)]
    assert times == sorted(times)
    assert times[0] > 0
    assert estimate(_convolution(64, kernel=5), SPEED)[1] > estimate(_convolution(64, kernel=3), SPEED)[1]


def test_a_node_twice_as_fast_takes_half_the_time() -> None:
    rates = {name: value * 2 for name, value in SPEED.to_json().items()}
    fast = Speed.from_json({**rates, "operation_s": SPEED.operation_s / 2})
    slow_s, fast_s = (estimate(_convolution(64), speed)[1] for speed in (SPEED, fast))
    assert fast_s == pytest.approx(slow_s / 2)


def test_amounts_of_a_separable_convolution_are_those_of_its_two_halves() -> None:
    graph = _convolution(128, kind="SeparableConv2D")
    depthwise, pointwise = 28 * 28 * 64 * 9, 28 * 28 * 64 * 128
    block = replace(graph.blocks[1], macs=depthwise + pointwise)
    found = amounts(graph, block)
    assert (found["depthwise"], found["conv_1x1"]) == (depthwise, pointwise)


def test_a_fit_finds_the_coefficients_behind_two_nodes_times() -> None:
    rng = np.random.default_rng(0)
    truth = {name: float(value) for name, value in zip(UNITS, rng.uniform(0.5, 3.0, len(UNITS)), strict=True)}
    faster = replace(SPEED, macs_per_s=3e11, operation_s=3e-6)
    nodes = []
    for speed in (SPEED, faster):
        units = speed.unit_seconds()
        samples = []
        for number in range(120):
            amount = Counter({n: int(rng.integers(1, 1000) * 1e-7 / units[UNITS[n]]) for n in UNITS})
            samples.append(Sample(f"m{number % 6}", amount, price(amount, truth, units)))
        nodes.append((speed, samples))
    found = fit(nodes)
    assert found == pytest.approx(truth, rel=0.05)


def test_what_is_shipped_is_known_and_never_negative() -> None:
    shipped = shipped_coefficients()
    assert set(shipped) == set(UNITS)
    assert all(math.isfinite(value) and value >= 0 for value in shipped.values())


def test_an_estimate_needs_no_tensorflow() -> None:
    code = (
        "import sys; from pipeline.estimator import estimate, shipped_coefficients; shipped_coefficients(); "
        "assert not {'tensorflow', 'keras', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_speed_goes_round_and_nonsense_is_refused() -> None:
    assert Speed.from_json(json.loads(json.dumps(SPEED.to_json()))) == SPEED
    wrong: list[Any] = [{}, None, [], {**asdict(SPEED), "bytes_per_s": 0}, {**asdict(SPEED), "operation_s": math.nan}]
    for value in wrong:
        with pytest.raises(ModelError):
            Speed.from_json(value)


def test_manifests_without_kernels_are_still_read() -> None:
    manifest = _convolution(8).to_json()
    for block in manifest["blocks"]:
        del block["kernel"], block["strides"]
    graph = ModelGraph.from_json(manifest)
    assert graph.blocks[1].kernel == ()
    assert estimate(graph, SPEED)[1] > 0


def test_blocks_know_their_kernel_and_strides() -> None:
    create("tensorflow", 1)
    from pipeline.prepare.model import prepare
    from pipeline.tensorflow_runtime import keras
    from tests.networks import L

    image = keras.Input((16, 16, 3))
    x = L.Conv2D(4, (3, 5), strides=2)(image)
    x = L.AveragePooling2D(2)(L.ReLU()(x))
    graph = prepare(keras.Model(image, L.Dense(2)(L.Flatten()(x))), "m").graph
    by_kind = {block.kind: (block.kernel, block.strides) for block in graph.blocks}
    assert by_kind["Conv2D"] == ((3, 5), (2, 2))
    assert by_kind["AveragePooling2D"] == ((2, 2), (2, 2))
    assert by_kind["Dense"] == ((), ())
    assert ModelGraph.from_json(json.loads(json.dumps(graph.to_json()))) == graph


def _benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("benchmark_estimator", ROOT / "benchmarks" / "estimator.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not SCISSION.is_dir(), reason=f"Scission's published measurements are not in {SCISSION}")
@pytest.mark.parametrize("model", ["mobilenet", "mobilenetv2", "vgg16"])
def test_layers_stand_where_scission_measured_them(model: str) -> None:
    create("tensorflow", 1)
    pieces = json.loads((SCISSION / "device-raspi4.json").read_text())["models"][model]
    layers = _benchmark().scission_layers(model)
    assert len(layers) == pieces[-1]["last_layer"] + 1
    assert sum(layer["macs"] > 0 for layer in layers) > 10
