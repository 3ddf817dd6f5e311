"""systemd units: what they say, what systemd itself says of them, and what a process tells its supervisor."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from nodes.cli import units
from nodes.enrolment import starting
from nodes.enrolment.folder import PipelineFolder
from nodes.session import service
from pipeline.errors import ConfigError

NODES = {"device": ["device-1"], "edge": ["edge-1"], "cloud": ["cloud-1"]}


@pytest.fixture
def folder(tmp_path: Path) -> PipelineFolder:
    text = starting.configuration("lab", "mobilenet_v2", "seed:0", NODES)
    made = PipelineFolder.create(tmp_path / "lab", text, ["localhost"], port=8883)
    for name in ("device-1", "edge-1", "planner"):
        made.enrol(name)
    made.enrol("eve", ["viewer"])
    return made


@pytest.fixture(autouse=True)
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    # systemd looks for it; `make setup` has it in the venv, and a checkout run from elsewhere has none
    monkeypatch.setattr(units, "_executable", lambda: "/bin/true")


def sections(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("["):
            current = found.setdefault(line, [])
        elif line and not line.startswith("#"):
            current.append(line)
    return found


def test_a_nodes_unit_notifies_is_watched_and_has_few_rights(folder: PipelineFolder) -> None:
    unit = units.unit_for(folder.enrolments / "edge-1.enrolment")
    lines = sections(unit.text)["[Service]"]
    assert unit.file == "trisect-edge-1.service"
    assert "ExecStart=/bin/true node --enrolment ${CREDENTIALS_DIRECTORY}/enrolment" in lines
    assert "LoadCredential=enrolment:/etc/trisect/edge-1.enrolment" in lines
    for line in ("Type=notify", "WatchdogSec=60", "Restart=always", "DynamicUser=yes", "PrivateDevices=yes"):
        assert line in lines


def _with_camera(folder: PipelineFolder) -> None:
    text = folder.configuration.read_text().replace("    model: mobilenet_v2\n\n", "    model: mobilenet_v2\n")
    folder.configuration.write_text(text.replace("nodes:", "    source: {camera: 0}\nnodes:"))
    folder.renew("device-1")


def test_a_device_with_a_camera_may_use_it(folder: PipelineFolder) -> None:
    _with_camera(folder)
    lines = sections(units.unit_for(folder.enrolments / "device-1.enrolment").text)["[Service]"]
    assert "SupplementaryGroups=video" in lines
    assert "PrivateDevices=no" in lines


def test_the_planner_and_the_broker_have_units_and_a_viewer_has_none(folder: PipelineFolder) -> None:
    assert "ExecStart=/bin/true planner --enrolment" in units.unit_for(folder.enrolments / "planner.enrolment").text
    broker = units.unit_for(folder.path)
    assert f"ExecStart=/bin/true broker --folder {folder.broker.resolve()}" in broker.text
    assert "User=mosquitto" in broker.text
    with pytest.raises(ConfigError, match="only a node, the planner or a broker is a service"):
        units.unit_for(folder.enrolments / "eve.enrolment")
    with pytest.raises(ConfigError, match="is no enrolment"):
        units.unit_for(folder.configuration)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("what", ["device-1", "edge-1", "planner", "broker"])
def test_systemd_itself_finds_nothing_wrong(folder: PipelineFolder, tmp_path: Path, what: str) -> None:
    if what == "device-1":
        _with_camera(folder)
    unit = units.unit_for(folder.path / "broker" if what == "broker" else folder.enrolments / f"{what}.enrolment")
    path = tmp_path / unit.file
    path.write_text(unit.text)
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if unit.file in line] == []
    path.write_text(unit.text.replace("WatchdogSec", "WatchdogSeconds"))  # and that it looks at all
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False)
    assert "WatchdogSeconds" in done.stderr


def test_a_unit_is_written_with_its_enrolment_and_removed_again(
    folder: PipelineFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "ENROLMENTS", tmp_path / "etc")
    unit = units.unit_for(folder.enrolments / "edge-1.enrolment")
    list(units.install(unit, tmp_path / "system", start=False))
    kept = tmp_path / "etc" / "edge-1.enrolment"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "system" / unit.file).read_text() == unit.text
    with pytest.raises(ConfigError, match="installed: edge-1"):
        list(units.remove("edge-2", tmp_path / "system"))
    list(units.remove("edge-1", tmp_path / "system"))
    assert not kept.exists()


def test_a_program_that_no_other_user_can_reach_is_refused(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    (hidden / "bin").mkdir(parents=True)
    hidden.chmod(0o700)
    with pytest.raises(ConfigError, match="only its owner may enter"):
        units.require_reachable(hidden / "bin" / "trisect", "in /opt")


def test_a_supervisor_is_told_that_we_are_ready_and_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(path))
        supervisor.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        service.ready("serving")
        assert supervisor.recv(100) == b"READY=1\nSTATUS=serving"
        monkeypatch.setenv("WATCHDOG_USEC", "3000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        service.alive()
        assert supervisor.recv(100) == b"WATCHDOG=1"
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
        assert service.watchdog_s() is None
        service.stopping()
        assert supervisor.recv(100) == b"STOPPING=1"


def test_without_a_supervisor_nothing_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    service.ready()
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    service.ready()
