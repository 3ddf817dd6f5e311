"""Each message reaches those who watch exactly once, whatever the line loses and whoever is restarted."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Hashable
from typing import Any

import pytest

from benchmarks.line import Line
from broker.exactly_once import ExactlyOncePublisher, Publication
from broker.server import Server, ServerSettings
from broker.session import Address, Channel, Message, Session
from tests.integration.conftest import PATIENCE_S, OpenSession, Received, Signal, eventually

RESULT, FENCE = "result/cam", "node/device-1/fence"


def key_of(message: Message) -> Hashable:
    return int(json.loads(message.payload))


class Device:
    """A session with a publisher, as a node has it."""

    def __init__(self, open_session: OpenSession, address: Address, **options: Any) -> None:
        self.delivered: set[Hashable] = set()
        self.caught_up, self.up = Signal(), Signal()

        def on_up() -> None:
            self.results.connected()
            self.up()

        self.session: Session = open_session(
            address, "device-1", start=False, takes_frames=True, on_up=on_up, **options
        )
        self.results = ExactlyOncePublisher(
            self.session, FENCE, delivered=self.delivered.add, caught_up=lambda: self.caught_up(set(self.delivered))
        )
        self.results.recognise([RESULT], key_of)
        self.session.start(PATIENCE_S)

    def publish(self, number: int) -> None:
        self.results.publish(number, lambda: [Publication(RESULT, str(number).encode())])


def watcher(open_session: OpenSession, address: Address) -> Received:
    received, session = Received(), open_session(address, "watcher", start=False, is_new_name=True)
    session.subscribe([RESULT], received)
    session.start(PATIENCE_S)
    return received


def test_a_message_whose_acknowledgement_is_lost_is_not_published_again(
    address: Address, open_session: OpenSession
) -> None:
    received = watcher(open_session, address)
    with Line(address.host, address.port) as line:
        device = Device(open_session, line.address)
        device.up.wait()
        line.loses_down = True
        device.publish(1)
        assert received.next().payload == b"1"
        assert not device.delivered
        line.cut()
        device.up.wait()
        eventually(lambda: 1 in device.delivered)
        device.publish(2)
        assert received.next().payload == b"2"


def test_a_message_that_the_broker_never_got_is_published_again(address: Address, open_session: OpenSession) -> None:
    received = watcher(open_session, address)
    with Line(address.host, address.port) as line:
        device = Device(open_session, line.address)
        device.up.wait()
        line.loses_up = True
        device.publish(1)
        line.cut()
        assert received.next().payload == b"1"
        eventually(lambda: 1 in device.delivered)
        assert received.empty()


@pytest.mark.parametrize("taken", [True, False])
def test_the_next_process_knows_what_the_broker_took_of_the_one_before(
    address: Address, open_session: OpenSession, taken: bool
) -> None:
    received = watcher(open_session, address)
    with Line(address.host, address.port) as line:
        device = Device(open_session, line.address)
        device.up.wait()
        line.loses_down, line.loses_up = taken, not taken
        device.publish(1)
        if taken:
            assert received.next().payload == b"1"
        device.session.stop(wait_s=0.0)  # its farewell is lost with the rest
        line.cut()
        (known,) = Device(open_session, line.address).caught_up.wait()
        assert known == ({1} if taken else set())


def test_random_breaks_neither_lose_nor_repeat_on_either_side(address: Address, open_session: OpenSession) -> None:
    chance = random.Random(5)
    received = Received()
    seen: list[int] = []
    with Line(address.host, address.port) as line, Line(address.host, address.port) as view:
        session = open_session(view.address, "watcher", start=False, is_new_name=True)
        session.subscribe([RESULT], received)
        session.start(PATIENCE_S)
        device = Device(open_session, line.address)
        device.up.wait()
        for number in range(300):
            device.publish(number)
            if chance.random() < 0.1:
                broken = chance.choice([line, view])
                broken.loses_up, broken.loses_down = chance.choice([(True, False), (False, True), (True, True)])
                time.sleep(chance.uniform(0.0, 0.05))  # any moment will do: chance is what is tested
                broken.cut()
        eventually(lambda: device.delivered >= set(range(300)))
        while len(seen) < 300:
            seen.append(int(received.next().payload))
        device.publish(300)
        assert received.until(b"300") == []
    assert sorted(seen) == list(range(300))


def test_a_restart_of_the_broker_neither_loses_nor_repeats(tmp_path: Any, open_session: OpenSession) -> None:
    with Server(ServerSettings(persistence_dir=tmp_path / "broker")) as server:
        address = Address(server.host, server.port)
        received = watcher(open_session, address)
        device = Device(open_session, address)
        device.up.wait()
        for number in range(100):
            device.publish(number)
            if number % 25 == 20:
                server.restart()
        seen = sorted(int(payload) for payload in received.payloads(100))
        assert seen == list(range(100))
        eventually(lambda: device.delivered >= set(range(100)))
        assert received.empty()


def test_another_channel_is_not_disturbed(address: Address, open_session: OpenSession) -> None:
    device = Device(open_session, address)
    device.up.wait()
    received = Received()
    device.session.subscribe(["frame/+"], received, channel=Channel.FRAMES)
    open_session(address, "camera").publish("frame/cam", b"1")
    message = received.next()
    message.ack()
    assert message.delivery is not None
    assert not message.delivery.is_repeat
