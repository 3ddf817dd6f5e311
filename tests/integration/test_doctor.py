"""`trisect doctor` and `check`: what they find with a real broker, without one, and in files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.server import Server, ServerSettings
from nodes.doctor.examination import check_files, run
from tests.integration.enrolled import Enrolled, running

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def lab() -> Iterator[Enrolled]:
    with running() as made:
        yield made


def findings(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, Any]]]:
    code = run(path, as_json=True, timeout_s=3.0)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(line["remedy"] for line in lines if line["level"] != "ok")
    return code, {line["about"]: line for line in lines}


def test_a_node_that_was_enrolled_finds_its_broker_and_what_that_allows(
    lab: Enrolled, capsys: pytest.CaptureFixture[str]
) -> None:
    path = lab.folder.enrol("edge-1")
    lab.server.reload()
    code, found = findings(path, capsys)
    assert code == 0
    assert "TLSv1.3, MQTT 5" in found["address"]["text"]
    for about in ("configuration", "version", "engine", "memory", "processors", "broker", "packets", "in flight"):
        assert found[about]["level"] in {"ok", "warning"}, found[about]
    assert found["clock"]["text"] == "planner does not answer"


def test_an_operator_hears_of_streams_without_a_plan(lab: Enrolled, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = findings(lab.folder.enrol("alice", ["operator"]), capsys)
    assert code == 1
    assert "stream door: no plan" in found["stream"]["text"]
    assert found["node"]["level"] == "warning"


def test_a_revoked_member_is_told_so(lab: Enrolled, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "eve.enrolment"
    kept.write_text(lab.folder.enrol("eve", ["viewer"]).read_text())
    kept.chmod(0o600)
    lab.folder.revoke("eve")
    lab.server.restart()
    code, found = findings(kept, capsys)
    assert code == 1
    assert "has been revoked" in found["address"]["text"]


def test_packets_too_small_for_chunks_are_found_with_the_number_to_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Server(ServerSettings(max_packet_bytes=500_000)) as server:
        path = tmp_path / "lab.yaml"
        path.write_text(
            f"pipeline: lab\nbroker: {{port: {server.port}}}\nmodels: {{m: {{source: mobilenet_v2}}}}\n"
            "streams: {s: {device: d, model: m}}\nnodes: {d: {tier: device}}\n"
        )
        code, found = findings(path, capsys)
    assert code == 1
    assert found["packets"]["level"] == "wrong"
    assert "set transport.chunk_bytes to" in found["packets"]["remedy"]


def test_a_broker_that_is_away_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(
        "pipeline: lab\nbroker: {port: 1}\nmodels: {m: {source: mobilenet_v2}}\n"
        "streams: {s: {device: d, model: m}}\nnodes: {d: {tier: device}}\n"
    )
    code, found = findings(path, capsys)
    assert code == 1
    assert found["broker"]["level"] == "wrong"


def test_files_are_checked_without_running_them(
    lab: Enrolled, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("pipeline: lab\nnodes: {d: {tier: moon}}\n")
    assert check_files([lab.folder.configuration]) == 0
    assert "good; pipeline lab" in capsys.readouterr().out
    assert check_files([wrong, lab.folder.configuration]) == 1
    assert "one of device, edge, cloud" in capsys.readouterr().err
    wrong.write_text(
        "pipeline: lab\nmodels: {m: {source: gone.trisect, labels: gone.txt}}\n"
        "streams: {s: {device: d, model: m}}\nnodes: {d: {tier: device}}\n"
    )
    assert check_files([wrong]) == 0
    shown = capsys.readouterr().out
    assert "gone.trisect is not on this machine" in shown
    assert "gone.txt is not on this machine" in shown
