"""Two devices whose configurations give each of them one stream: exactly one answers it, and the other says so."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from broker import topics
from broker.server import Server
from broker.session import Address
from broker.topics import Namespace
from nodes.cli import demo
from nodes.config.loader import load_config
from nodes.config.sections import Config
from nodes.protocol.messages import Owner, to_bytes
from nodes.session.presence import Presence, StreamOwned, require_free
from nodes.tier.ownership import Ownership
from pipeline.plan import NodeId
from tests.integration.conftest import PATIENCE_S, OpenSession, Received, Signal, eventually

OTHER = NodeId("device-2")
STREAMS = [demo.STREAM]


class Device:
    """A device as far as its claims go."""

    def __init__(self, config: Config, node: NodeId, *, gone: set[str] | None = None) -> None:
        self.lost = Signal()
        self.names = Namespace(config.pipeline)
        self.presence = Presence(config, self.names, node, "device", on_down=lambda _: self.ownership.disconnected())
        self.ownership = Ownership(self.presence, self.names, STREAMS, gone=gone or (), on_lost=self.lost)

    def __enter__(self) -> Device:
        self.presence.__enter__()
        return self

    def up(self) -> Device:
        self.presence.session.start(PATIENCE_S)
        eventually(lambda: bool(self.ownership._held) or self.ownership.lost is not None)
        return self

    def __exit__(self, *_: object) -> None:
        self.presence.final = self.ownership.farewell()
        self.presence.__exit__(None, None, None)


@pytest.fixture
def config(server: Server, tmp_path: Path) -> Config:
    return load_config(demo.write_config(tmp_path, "mobilenet_v2", server.port))


@pytest.fixture
def claims(address: Address, open_session: OpenSession, config: Config) -> Callable[[], str]:
    """Whom the claim names that is retained at last."""
    received = Received()
    topic = Namespace(config.pipeline).topic(topics.STREAM_OWNER, stream=demo.STREAM)

    def newest() -> str:
        session = open_session(address, f"view-{time.monotonic_ns()}", start=False)
        session.subscribe([topic], received)
        session.start(PATIENCE_S)
        return str(json.loads(received.next().payload)["node"])

    return newest


def test_a_second_device_is_refused_before_it_starts(config: Config, claims: Callable[[], str]) -> None:
    with Device(config, demo.DEVICE) as first:
        first.up()
        with pytest.raises(StreamOwned, match=r"stream 'camera' is answered by device-1, .* correct `device`"):
            require_free(config, first.names, OTHER, STREAMS)
        assert claims() == demo.DEVICE


def test_of_two_that_start_at_once_one_gives_way(config: Config, claims: Callable[[], str]) -> None:
    with ExitStack() as stack:
        both = [stack.enter_context(Device(config, node)) for node in (demo.DEVICE, OTHER)]
        eventually(lambda: any(device.ownership.lost is not None for device in both))
        (left,) = [device for device in both if device.ownership.lost is None]
        eventually(lambda: bool(left.ownership._held))
        time.sleep(1.5)  # time itself is tested: the winner's doubts must end without its giving way
        assert left.ownership.lost is None
        assert claims() == left.presence.node


def test_the_claim_of_a_device_that_is_gone_keeps_nobody_out(
    config: Config, address: Address, open_session: OpenSession, claims: Callable[[], str]
) -> None:
    names = Namespace(config.pipeline)
    stale = Owner(demo.STREAM, OTHER, "dead")
    session = open_session(address, "setter")
    session.publish(names.topic(topics.STREAM_OWNER, stream=demo.STREAM), to_bytes(stale), retain=True)
    eventually(lambda: session.queued_bytes == 0)
    gone = require_free(config, names, demo.DEVICE, STREAMS)
    assert gone == {"dead"}
    with Device(config, demo.DEVICE, gone=gone) as device:
        device.up()
        assert device.ownership.lost is None
        assert claims() == demo.DEVICE


def test_a_claim_of_nobody_is_replaced_and_ends_no_device(
    config: Config, address: Address, open_session: OpenSession, claims: Callable[[], str]
) -> None:
    with Device(config, demo.DEVICE) as device:
        device.up()
        forged = Owner(demo.STREAM, OTHER, "forged")
        topic = device.names.topic(topics.STREAM_OWNER, stream=demo.STREAM)
        open_session(address, "stranger").publish(topic, to_bytes(forged), retain=True)
        eventually(lambda: device.presence.border.total == 1)
        assert claims() == demo.DEVICE
        assert device.ownership.lost is None


def test_a_device_that_comes_back_to_another_ones_claim_gives_way(
    server: Server, config: Config, claims: Callable[[], str]
) -> None:
    with Device(config, demo.DEVICE) as first:
        first.up()
        dead = {first.presence.token}  # as if it had hung, and had not answered
        with Device(config, OTHER, gone=dead) as second:
            first.lost.wait()
            assert first.ownership.lost is not None
            assert "device-2" in str(first.ownership.lost)
            eventually(lambda: bool(second.ownership._held))
            assert second.ownership.lost is None
            assert claims() == OTHER


def test_a_device_that_ends_leaves_no_claim(config: Config) -> None:
    with Device(config, demo.DEVICE) as device:
        device.up()
    assert require_free(config, device.names, OTHER, STREAMS) == set()
