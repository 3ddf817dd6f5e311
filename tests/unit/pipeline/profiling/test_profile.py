"""Profiles: every block has a time, and what is on disk is believed only if it is this machine's."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline import folders
from pipeline.engines import BlockTimes, create
from pipeline.engines.base import Array
from pipeline.engines.checks import zeros
from pipeline.errors import ModelError
from pipeline.estimator import Speed
from pipeline.graph import Block, ModelGraph, Tensor
from pipeline.profiling.profile import Profile, cached, hardware, keep, load_cached, measure_or_load


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@dataclass
class CountingEngine:
    """Measures nothing, and counts how often it was asked."""

    name: str = "counting"
    version: str = "1"
    threads: int = 2
    asked: list[str] = field(default_factory=list)

    def profile(self, model: Any, repeats: int = 10) -> BlockTimes:
        self.asked.append(model.graph.digest)
        return BlockTimes((0.0, 0.5), (0.0, 0.1), 0.5)

    def compile(self, model: Any, blocks: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]) -> Zeros:
        return Zeros({t: zeros(model.graph.tensors[t]) for t in outputs})


@dataclass
class Zeros:
    """A segment that gives zeros."""

    made: dict[int, Array]

    def run(self, tensors: Mapping[int, Array]) -> dict[int, Array]:
        return self.made


@dataclass
class Holder:
    graph: ModelGraph


def _model(digest: str = "d" * 32) -> Any:
    tensors = (Tensor(0, "x", (1, 2), "float32"), Tensor(1, "y", (1, 2), "float32"))
    blocks = (Block(0, "input", "input", (), (), (0,)), Block(1, "dense", "Dense", ("dense",), (0,), (1,)))
    return Holder(ModelGraph("m", digest, tensors, blocks, (0,), (1,)))


def _measured(engine: Any) -> Profile:
    return measure_or_load(engine, _model())


def test_every_block_has_a_time_and_they_add_up_to_the_whole() -> None:
    from pipeline.prepare.model import prepare
    from pipeline.tensorflow_runtime import keras
    from tests.networks import L

    engine = create("tensorflow", 1)
    image = keras.Input((64, 64, 3))
    x = L.ReLU()(L.Conv2D(32, 3)(image))
    x = L.MaxPooling2D()(L.Conv2D(64, 3)(x))
    x = L.LSTM(8)(L.Reshape((30, 1920))(x))
    model = prepare(keras.Model(image, L.Dense(5)(x)), "m")
    times = engine.profile(model, repeats=4)
    assert len(times.seconds) == len(times.spread) == len(model.graph)
    assert times.seconds[0] == 0.0
    assert sum(times.seconds) == pytest.approx(times.total_seconds)
    assert times.unscaled_seconds is not None
    assert times.unscaled_seconds > 0
    timed = {b.kind: times.seconds[b.index] > 0 for b in model.graph.blocks}
    assert timed["Conv2D"]
    assert timed["MaxPooling2D"]
    assert timed["LSTM"], "operations inside a loop were not attributed"
    assert timed["Dense"]


def test_a_profile_is_measured_once_and_then_read() -> None:
    engine = CountingEngine()
    first = _measured(engine)
    assert _measured(engine) == first
    assert len(engine.asked) == 1
    assert load_cached(_model().graph, engine) == first  # type: ignore[arg-type]  # only profile() is asked
    assert [p.name[:32] for p in folders.profiles().glob("*.json")] == ["d" * 32]


@pytest.mark.parametrize("change", [{"version": "2"}, {"threads": 1}, {"name": "other"}])
def test_another_engine_version_or_number_of_threads_measures_anew(change: dict[str, Any]) -> None:
    _measured(CountingEngine())
    other = replace(CountingEngine(), asked=[], **change)
    _measured(other)
    assert len(other.asked) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 1}', b"\xff\xfe", b"[" * 100_000, b"null"])
def test_a_corrupt_file_is_ignored_and_written_anew(content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    engine = CountingEngine()
    _measured(engine)
    path = next(folders.profiles().glob("*.json"))
    path.write_bytes(content)
    assert load_cached(_model().graph, engine) is None  # type: ignore[arg-type]
    assert "ignored" in caplog.text
    _measured(engine)
    assert len(engine.asked) == 2
    assert load_cached(_model().graph, engine) is not None  # type: ignore[arg-type]


def test_a_profile_of_another_machine_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    engine = CountingEngine()
    foreign = replace(_measured(engine), hardware="riscv64 abacus x1")
    keep(foreign.digest, engine, foreign.to_json())  # type: ignore[arg-type]
    assert load_cached(_model().graph, engine) is None  # type: ignore[arg-type]
    assert "another model, engine or machine: hardware riscv64 abacus x1, here " in caplog.text


def test_a_cache_that_cannot_be_written_costs_only_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert _measured(CountingEngine()).seconds == (0.0, 0.5)
    assert "XDG_CACHE_HOME" in caplog.text


@dataclass
class CountingCalibration:
    """Measures nothing, and counts how often it was asked."""

    asked: int = 0

    def __call__(self, engine: Any) -> Speed:
        self.asked += 1
        return Speed(
            macs_per_s=1e10, depthwise_macs_per_s=1e9, bytes_per_s=1e9, weight_bytes_per_s=1e9, operation_s=1e-5 / 3
        )


@pytest.fixture
def calibration(monkeypatch: pytest.MonkeyPatch) -> CountingCalibration:
    create("tensorflow", 1)
    counting = CountingCalibration()
    monkeypatch.setattr("pipeline.profiling.calibration.calibrate", counting)
    return counting


def _calibrated(engine: Any) -> Speed:
    from pipeline.profiling.calibration import calibrate_or_load

    return calibrate_or_load(engine)


def test_a_speed_is_measured_once_for_each_engine_version_and_number_of_threads(
    calibration: CountingCalibration,
) -> None:
    engines = [CountingEngine(), CountingEngine(threads=1), CountingEngine(version="2"), CountingEngine(name="other")]
    for _ in range(3):
        assert len({_calibrated(engine) for engine in engines}) == 1
    assert calibration.asked == len(engines)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"macs_per_s": 1.0}', b"\xff", b"[" * 100_000])
def test_a_corrupt_speed_is_ignored_and_measured_anew(
    content: bytes, calibration: CountingCalibration, caplog: pytest.LogCaptureFixture
) -> None:
    speed = _calibrated(CountingEngine())
    next(folders.profiles().glob("speed-*.json")).write_bytes(content)
    assert _calibrated(CountingEngine()) == _calibrated(CountingEngine()) == speed
    assert "ignored" in caplog.text
    assert calibration.asked == 2


def test_a_speed_is_no_profile_and_stands_in_nobodys_way(calibration: CountingCalibration) -> None:
    engine = CountingEngine()
    _calibrated(engine)
    assert cached(engine, _model()) is None  # type: ignore[arg-type]  # only profile() is asked
    profile = _measured(engine)
    assert cached(engine, _model()) == profile  # type: ignore[arg-type]


def test_a_profile_of_another_number_of_blocks_is_measured_anew() -> None:
    engine = CountingEngine()
    short = replace(_measured(engine), seconds=(0.0,), spread=(0.0,))
    keep(short.digest, engine, short.to_json())  # type: ignore[arg-type]
    assert cached(engine, _model()) is None  # type: ignore[arg-type]
    assert len(_measured(engine).seconds) == 2


def _measure_in_a_process(cache: str, log: str) -> None:
    os.environ["XDG_CACHE_HOME"] = cache

    class Slow(CountingEngine):
        def profile(self, model: Any, repeats: int = 10) -> BlockTimes:
            with open(log, "a", encoding="utf-8") as file:
                file.write("measured\n")
            return super().profile(model, repeats)

    _measured(Slow())


def test_of_three_processes_that_start_together_one_measures(tmp_path: Path) -> None:
    log = tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    arguments = (str(tmp_path / "shared"), str(log))
    processes = [context.Process(target=_measure_in_a_process, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert log.read_text() == "measured\n"


def test_json_goes_round_and_nonsense_is_refused() -> None:
    profile = _measured(CountingEngine())
    value = json.loads(json.dumps(profile.to_json()))
    assert Profile.from_json(value) == profile
    wrong: list[dict[str, Any]] = [
        {"version": 99}, {"seconds": []}, {"seconds": [0.0, -1.0]}, {"seconds": "ab"}, {"spread": [0.0]},
        {"total_seconds": float("nan")}, {"threads": None}, {"threads": float("inf")}, {"seconds": 3},
        {"unscaled_seconds": -1.0}, {"unscaled_seconds": "x"},
    ]  # fmt: skip
    for change in wrong:
        with pytest.raises(ModelError):
            Profile.from_json({**value, **change})
    del value["unscaled_seconds"]
    assert Profile.from_json(value).unscaled_seconds is None
    with pytest.raises(ModelError):
        Profile.from_json([])  # type: ignore[arg-type]


def test_hardware_names_machine_processor_and_cores() -> None:
    assert hardware().startswith(os.uname().machine)
    assert hardware().endswith(f"x{os.cpu_count()}")
