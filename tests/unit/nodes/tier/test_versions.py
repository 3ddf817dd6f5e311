"""Versions of a device's models: new ones taken, and gone back from when they cannot be run."""

from pathlib import Path

import pytest

from nodes.config.sections import StreamSection
from nodes.tier.pushed_models import Pushed
from nodes.tier.versions import PATIENT_REFUSALS, Versions
from pipeline.errors import ModelError
from pipeline.models.host_memory import TooLarge
from pipeline.pieces.manifest import manifest_of
from pipeline.plan import NodeId, StreamId
from tests.unit.pipeline.pieces.test_pieces import package_file

CAM, DOOR = StreamId("camera"), StreamId("door")


@pytest.fixture
def pushed(tmp_path: Path) -> tuple[Pushed, Pushed]:
    made = []
    for seed in (1, 2):
        package = package_file(tmp_path / f"{seed}.trisect", seed=seed, weights=100, blocks=2)
        manifest = manifest_of(package, name="net")
        made.append(Pushed("net", f"net.{manifest.digest[:12]}", manifest.digest, package, manifest))
    return made[0], made[1]


@pytest.fixture
def versions(pushed: tuple[Pushed, Pushed]) -> Versions:
    streams = {
        CAM: StreamSection(device=NodeId("d"), model="net"),
        DOOR: StreamSection(device=NodeId("d"), model="other"),
    }
    return Versions(streams, [pushed[0]])


def test_streams_of_the_model_go_over_and_others_stay(versions: Versions, pushed: tuple[Pushed, Pushed]) -> None:
    first, second = pushed
    assert versions.model_of == {CAM: first.name, DOOR: "other"}
    assert versions.arrived(second) == (CAM,)
    assert versions.model_of == {CAM: second.name, DOOR: "other"}


def test_a_package_that_cannot_be_run_is_gone_back_from_at_once(
    versions: Versions, pushed: tuple[Pushed, Pushed]
) -> None:
    first, second = pushed
    versions.arrived(second)
    assert versions.refuses(CAM, second.name, ModelError("array 3 is damaged")) == first.name
    assert versions.model_of[CAM] == first.name
    assert "array 3" in versions.refused[second.name]
    assert versions.refuses(CAM, second.name, ModelError("again")) is None
    versions.arrived(second)  # rolled out again: it gets another chance
    assert versions.refused == {}


def test_memory_that_a_plan_lacks_is_no_reason_until_several_plans_lack_it(
    versions: Versions, pushed: tuple[Pushed, Pushed]
) -> None:
    first, second = pushed
    versions.arrived(second)
    error = TooLarge("it takes", 2, 1, "buy more")
    for _ in range(PATIENT_REFUSALS - 1):
        assert versions.refuses(CAM, second.name, error) is None
    assert versions.refuses(CAM, second.name, error) == first.name


def test_the_first_version_has_none_to_go_back_to(versions: Versions, pushed: tuple[Pushed, Pushed]) -> None:
    assert versions.refuses(CAM, pushed[0].name, ModelError("damaged")) is None
