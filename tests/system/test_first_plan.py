"""A machine that has measured nothing yet: its first plan comes at once, from an estimate, and is mended."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from broker import topics
from broker.server import Server, ServerSettings
from broker.session import Message
from nodes.cli import demo
from nodes.client.processes import Processes
from nodes.client.stream_client import StreamClient
from nodes.config.loader import load_config
from nodes.protocol.messages import NodeInfo, from_bytes, parse_json
from pipeline.estimator import Speed
from pipeline.plan import NodeId

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

PATIENCE_S = 120.0
UNMEASURED = "estimated, not measured, for "


class Listener(StreamClient):
    """Hears each plan that is published, not the newest only, and what nodes say of themselves."""

    def __enter__(self) -> Listener:
        self.heard: list[tuple[int, str]] = []
        self.infos: dict[NodeId, NodeInfo] = {}
        self.session.subscribe([self.names.filter(topics.INFO)], self._on_info)
        super().__enter__()
        return self

    def mended(self) -> list[int]:
        """The epochs whose estimates were replaced by what the nodes have measured."""
        return [epoch for epoch, reason in self.heard if reason.startswith("estimated at ")]

    def _on_info(self, message: Message) -> None:
        info = from_bytes(NodeInfo, message.payload)
        self.infos[info.node] = info

    def _on_plan(self, message: Message) -> None:
        plan = parse_json(message.payload)
        self.heard.append((plan["epoch"], plan["reason"]))
        super()._on_plan(message)


def test_a_first_plan_is_estimated_and_mended_when_the_node_has_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "broker").mkdir()
    with Server(ServerSettings(persistence_dir=tmp_path / "broker")) as server, Processes(tmp_path) as processes:
        path = demo.write_config(tmp_path, "mobilenet_v2", server.port)

        def start(name: str, *arguments: str) -> None:
            processes.start(name, [*arguments, "-c", str(path)])

        start("planner", "planner")
        start(demo.DEVICE, "node", "--id", demo.DEVICE, "--state-dir", str(tmp_path / "state"))
        with Listener(load_config(path), demo.STREAM) as client:
            assert client.wait(lambda: bool(client.mended()), PATIENCE_S, processes.check)
            epoch, first = client.heard[0]
            assert first.startswith("first plan; ")
            assert first.endswith(UNMEASURED + demo.DEVICE)
            assert client.mended() == [epoch] == [1]
            assert Speed.from_json(client.infos[demo.DEVICE].speed or {}).macs_per_s > 0
            assert client.wait(lambda: client.active == epoch, PATIENCE_S, processes.check)
            # what one node of a machine has measured, the next one has
            start(demo.EDGE, "node", "--id", demo.EDGE, "--state-dir", str(tmp_path / "state"))
            assert client.wait(lambda: demo.EDGE in client.ready(), PATIENCE_S, processes.check)
            assert not any(demo.EDGE in reason for _, reason in client.heard if UNMEASURED in reason)
            assert client.infos[demo.EDGE].speed == client.infos[demo.DEVICE].speed
    kept = sorted(name.partition("-")[0] for name in os.listdir(tmp_path / "cache" / "trisect" / "profiles"))
    assert kept == sorted([client.plans[epoch]["digest"], "codecs", "lock", "speed"])
