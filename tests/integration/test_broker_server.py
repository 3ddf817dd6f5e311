"""mosquitto as a child: starts, answers, stops, says what is wrong, and does not outlive us."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from broker.errors import MosquittoMissing, PortTaken, ServerFailed, SettingsError
from broker.ports import answers_mqtt, free_port, is_free
from broker.server import Server, ServerSettings, find_mosquitto, render
from broker.session import Address
from tests.integration.conftest import OpenSession, Received


def test_a_started_server_answers_mqtt_and_a_stopped_one_is_gone() -> None:
    with Server() as server:
        assert answers_mqtt(server.host, server.port, timeout_s=5)
        assert server.pid is not None
        assert server.is_running
    assert server.returncode == 0
    assert is_free(server.host, server.port)


def test_a_server_restarts_on_the_same_port() -> None:
    with Server() as server:
        port, pid = server.port, server.pid
        server.restart()
        assert server.port == port
        assert server.pid != pid
        assert answers_mqtt(server.host, port, timeout_s=5)


def test_a_taken_port_is_named_with_the_mend(server: Server) -> None:
    with pytest.raises(PortTaken, match=f"{server.port} is taken .* port 0"):
        Server(ServerSettings(port=server.port)).start()


def test_a_missing_mosquitto_is_named_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(MosquittoMissing, match="apt install mosquitto"):
        find_mosquitto(str(tmp_path))


def test_mosquitto_is_found_in_sbin_when_path_does_not_have_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert os.access(find_mosquitto(), os.X_OK)


def test_a_mosquitto_that_dies_shows_its_log(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match="no-such-file"):
        Server(ServerSettings(password_file=tmp_path / "no-such-file")).start()


def test_a_killed_server_reports_the_signal() -> None:
    with Server() as server:
        server.kill()
        assert server.returncode == -signal.SIGKILL


def test_a_server_with_a_directory_remembers_across_a_restart(tmp_path: Path, open_session: OpenSession) -> None:
    with Server(ServerSettings(persistence_dir=tmp_path / "broker")) as server:
        address = Address(server.host, server.port)
        writer = open_session(address, "writer")
        writer.publish("t", b"kept", retain=True)
        writer.stop()  # waits for the acknowledgement
        server.restart()
        late, seen = open_session(address, "late"), Received()
        late.subscribe(["t"], seen)
        assert seen.next().payload == b"kept"
        late.stop()


def test_the_configuration_holds_what_tensors_need() -> None:
    lines = render(ServerSettings(port=1883, websockets_port=9001, memory_limit_bytes=2**30)).splitlines()
    assert "listener 1883 127.0.0.1" in lines
    assert "set_tcp_nodelay true" in lines
    assert "max_packet_size 16777216" in lines
    assert "max_queued_bytes 536870912" in lines
    assert "memory_limit 1073741824" in lines
    assert "allow_anonymous true" in lines
    assert "persistence false" in lines
    assert lines[lines.index("listener 9001 127.0.0.1") + 1] == "protocol websockets"


def test_a_password_file_turns_anonymous_access_off(tmp_path: Path) -> None:
    text = render(ServerSettings(port=1883, host="0.0.0.0", password_file=tmp_path / "users"))
    assert "allow_anonymous false" in text
    assert f"password_file {tmp_path}/users" in text


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "broker.local"])
def test_a_broker_open_to_the_network_without_passwords_is_refused(host: str) -> None:
    with pytest.raises(SettingsError, match="password_file"):
        ServerSettings(host=host)


def test_bounds_that_mosquitto_cannot_read_are_refused() -> None:
    with pytest.raises(SettingsError, match="max_queued_bytes"):
        ServerSettings(max_queued_bytes=2**31)
    with pytest.raises(SettingsError, match="cannot hold one packet"):
        ServerSettings(max_packet_bytes=2**20, max_queued_bytes=2**19)


_PARENT = """
import sys, time
from broker.server import Server
with Server() as server:
    print(server.pid, server.port, flush=True)
    time.sleep(600)
"""


def test_the_broker_dies_with_a_parent_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, port = map(int, parent.stdout.readline().split())
        broker = os.pidfd_open(pid)
        try:
            parent.kill()
            # readable once the process has ended
            assert select.select([broker], [], [], 30)[0], "mosquitto outlived its parent"
        finally:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(broker, signal.SIGKILL)
            os.close(broker)
    assert is_free("127.0.0.1", port)


def test_a_websockets_listener_answers_beside_the_other(tmp_path: Path) -> None:
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    websockets_port = free_port("127.0.0.1")
    with Server(ServerSettings(websockets_port=websockets_port)) as server:
        assert answers_mqtt(server.host, server.port, timeout_s=5)
        client = Client(CallbackAPIVersion.VERSION2, transport="websockets")
        connected = threading.Event()
        client.on_connect = lambda *_: connected.set()
        client.connect("127.0.0.1", websockets_port)
        client.loop_start()
        assert connected.wait(10)
        client.disconnect()
        client.loop_stop()


def test_its_log_is_kept_in_a_file_of_its_owner_and_named_when_it_ends(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "broker.log"
    with Server(log_file=log) as server:
        assert server.log_file == log
        server.check()
        server.kill()
        with pytest.raises(ServerFailed, match=f"status -9; the end of its log, which is {log}"):
            server.check()
    assert "trisect-probe" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_log_file_that_cannot_be_written_does_not_cost_the_broker(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with Server(log_file=tmp_path / "file" / "broker.log") as server:
        assert server.log_file is None
        assert server.is_running
    assert "trisect-probe" in server.log_tail  # after its end: a reader of its own collects the lines
