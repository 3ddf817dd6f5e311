"""A replay waits what was recorded, gives tensors as the recorded ones, and is never mixed with what computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from pipeline import codecs, engines
from pipeline.engines.base import Loaded
from pipeline.engines.block_recording import (
    BlockRecording,
    MachineTimes,
    NetworkRecording,
    computed_tensors,
    content_of,
    read_recording,
    samples_of,
)
from pipeline.engines.litert import LiteRTEngine
from pipeline.engines.replay import Replay, ReplayEngine
from pipeline.errors import ConfigError, ModelError, PlanError
from pipeline.graph import Axis, Window
from pipeline.lite.sketch import Layer, Sketch, packaged
from pipeline.tiles.grid import Grid
from pipeline.tiles.split import split
from pipeline.tiles.stacks import stack_between

SKETCH = Sketch(
    "small",
    (24, 24, 8),
    (
        Layer("first", "conv", ("image",), 3, 8),
        Layer("second", "conv", ("first",), 3, 16),
        Layer("mean", "mean", ("second",)),
        Layer("classes", "dense", ("mean",), units=5),
    ),
)


@pytest.fixture(scope="module")
def model() -> Loaded:
    return packaged(SKETCH)


def recorded(model: Loaded, *, tile_factor: float = 1.0) -> BlockRecording:
    rng = np.random.default_rng(0)
    frame = {t: rng.normal(size=model.graph.tensors[t].shape).astype(np.float32) for t in model.graph.inputs}
    made = computed_tensors(LiteRTEngine(1), model, frame)
    seconds = tuple(0.001 * block.index for block in model.graph.blocks)
    machines = {"raspi4": MachineTimes(seconds, tile_factor), "gpu": MachineTimes(tuple(s / 10 for s in seconds))}
    network = NetworkRecording("small", model.graph.digest, machines, samples_of(made, model.graph))
    return BlockRecording("invented", (network,))


def engine_of(recording: BlockRecording, folder: Path, machine: str = "raspi4") -> ReplayEngine:
    path = folder / "recording.json"
    recording.write(path)
    return ReplayEngine(Replay(path, machine), 1)


def test_a_segment_takes_the_seconds_of_its_blocks_and_passes_inputs_through(model: Loaded, tmp_path: Path) -> None:
    engine = engine_of(recorded(model), tmp_path)
    graph = model.graph
    (given,) = graph.inputs
    (output,) = graph.blocks[2].outputs
    segment = engine.compile(model, (1, 2), (given,), (output, given))
    assert segment.seconds == pytest.approx(0.003)
    frame = np.ones(graph.tensors[given].shape, np.float32)
    made = segment.run({given: frame})
    assert made[given] is frame
    assert (made[output].shape, made[output].dtype.name) == (graph.tensors[output].shape, "float32")
    with pytest.raises(PlanError, match="is missing"):
        segment.run({})
    with pytest.raises(PlanError, match="needs tensors"):
        engine.compile(model, (3,), (given,), graph.blocks[3].outputs)


def test_its_profile_is_the_recording_and_nobody_measures_this_machine(model: Loaded, tmp_path: Path) -> None:
    engine = engine_of(recorded(model), tmp_path)
    engine.require(model)
    assert engine.profile(model).seconds == pytest.approx([0.001 * number for number in range(len(model.graph))])
    with pytest.raises(ModelError, match="measures the processor of this machine"):
        engine.sketched(SKETCH)


def test_codecs_shrink_its_tensors_as_they_did_the_recorded_ones(model: Loaded) -> None:
    rng = np.random.default_rng(3)
    tensor = replace(model.graph.tensors[0], shape=(1, 64, 64, 16))
    graph = replace(model.graph, tensors=(tensor, *model.graph.tensors[1:]))
    real = np.maximum(rng.normal(0.3, 1, tensor.shape).astype(np.float32), 0)
    sample, *_ = samples_of({tensor.id: real}, graph)
    made = content_of(tensor, sample)
    assert codecs.ratios(made) == pytest.approx(codecs.ratios(real), rel=0.05)
    assert np.mean(made == 0) == pytest.approx(np.mean(real == 0), abs=0.03)


def test_tiles_take_their_part_of_the_maps_and_put_together_are_the_whole(model: Loaded, tmp_path: Path) -> None:
    engine = engine_of(recorded(model, tile_factor=1.5), tmp_path)
    axis = Axis(kernel=3, before=1, after=1)
    convolutions = [replace(block, windows=(Window(axis, axis),)) for block in model.graph.blocks[1:3]]
    graph = replace(model.graph, blocks=(model.graph.blocks[0], *convolutions, *model.graph.blocks[3:]))
    model = Mock(graph=graph)
    found = stack_between(graph, 1, 2)
    tile_map = split(graph, found, Grid((1, 1), (1,)))
    whole = engine.compile(model, (1, 2), found.inputs, (found.output,)).run(
        {t: np.zeros(graph.tensors[t].shape, np.float32) for t in found.inputs}
    )[found.output]
    rows = []
    for tile in tile_map.tiles:
        segment = engine.compile_tile(model, tile, found)
        # 12 of 24 rows of the second block's map; of the first's one more, the halo
        assert segment.seconds == pytest.approx(1.5 * (0.001 * 13 / 24 + 0.002 * 12 / 24))
        part = tile.regions[found.inputs[0]]
        given = np.zeros((1, part.rows.size, part.columns.size, 8), np.float32)
        rows.append(segment.run({found.inputs[0]: given}))
        with pytest.raises(PlanError, match="this tile needs"):
            segment.run({found.inputs[0]: given[:, 1:]})
    assert np.array_equal(np.concatenate(rows, axis=1), whole)


def test_its_promise_is_that_of_its_recording_alone(model: Loaded, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    here = engine_of(recorded(model), tmp_path)
    bits = {
        here.promise([model]).bits,
        engine_of(recorded(model, tile_factor=1.1), tmp_path / "other").promise([model]).bits,
        LiteRTEngine(1).promise([model]).bits,
    }
    assert len(bits) == 3
    assert engine_of(recorded(model), tmp_path, "gpu").promise([model]) == here.promise([model])
    with pytest.raises(ConfigError, match="unknown engine 'replay'"):
        engines.create("replay", 1)


def test_what_was_not_recorded_is_not_replayed(model: Loaded, tmp_path: Path) -> None:
    other = packaged(replace(SKETCH, name="other", layers=SKETCH.layers[:1]))
    with pytest.raises(ModelError, match="was not recorded"):
        engine_of(recorded(model), tmp_path).require(other)
    with pytest.raises(ConfigError, match="no times of small for a machine 'tpu'; it has gpu, raspi4"):
        engine_of(recorded(model), tmp_path, "tpu")
    short = recorded(model)
    cut = replace(short.networks[0], samples=short.networks[0].samples[1:])
    with pytest.raises(ModelError, match="record it again"):
        engine_of(replace(short, networks=(cut,)), tmp_path).require(model)
    with pytest.raises(ModelError, match="sample of tensor 0"):
        content_of(model.graph.tensors[0], "no base64!")
    path = tmp_path / "wrong.json"
    for content, why in (("[", "is not JSON"), ("{}", "version expected"), ('{"version": 1}', "Field required")):
        path.write_text(content)
        with pytest.raises(ModelError, match=why):
            read_recording(path)
    with pytest.raises(ModelError, match="No such file"):
        read_recording(tmp_path / "none.json")
