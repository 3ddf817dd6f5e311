"""The direct way between two nodes' sessions: its port among strangers, and lines that break, with a real broker."""

from __future__ import annotations

import json
import random
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from broker import topics
from broker.direct import listener
from broker.messages import Channel, Message
from broker.mqtt.packets import Connect
from broker.mqtt.reasons import NOT_AUTHORIZED
from broker.server import Server
from broker.tls import context_of, require_peer
from broker.topics import Namespace
from nodes.config.loader import parse_config
from nodes.config.sections import Config
from nodes.protocol.messages import LifeState, NodeInfo, to_bytes
from nodes.session.direct import Direct
from nodes.session.presence import Presence, address_of, wait_up
from pipeline.plan import NodeId
from tests.integration.conftest import PATIENCE_S, Received, eventually
from tests.integration.enrolled import running
from tests.mqtt_bytes import CONNACK, framed, message
from tests.relay import Relay

pytestmark = pytest.mark.integration

NAMES = Namespace("lab")
EDGE, CLOUD = NodeId("edge-1"), NodeId("cloud-1")
TOPIC = NAMES.topic(topics.OUT, node=EDGE, stream="s", epoch=1, tensor=3)


def config_of(broker_port: int, **of_cloud: Any) -> Config:
    nodes = {"edge-1": {"tier": "edge"}, "cloud-1": {"tier": "cloud", "direct": of_cloud}}
    values = {"pipeline": "lab", "broker": {"port": broker_port}, "nodes": nodes, "transport": {"direct": True}}
    return parse_config(json.dumps(values), Path("lab.yaml"), runs=False)


@dataclass
class Member:
    """A node with nothing but its presence and its part in the direct way."""

    presence: Presence
    direct: Direct
    received: Received = field(default_factory=Received)

    def introduce(self) -> None:
        """Say where it listens, as nodes do, and that it lives."""
        info = NodeInfo(
            self.presence.node,
            self.presence.tier,
            self.presence.token,
            "0",
            "none",
            "0",
            1,
            "none",
            {},
            direct=self.direct.address(),
        )
        self.presence.words.keep(NAMES.topic(topics.INFO, node=self.presence.node), to_bytes(info))
        self.presence.enter(LifeState.READY)

    def send(self, payload: bytes, to: NodeId | None = CLOUD, topic: str = TOPIC) -> None:
        self.direct.publish(topic, payload, to=to, expiry_s=30, wait_s=PATIENCE_S)

    def stands(self) -> bool:
        return self.direct.report().get(f"direct.{CLOUD}.stands") == 1


def enter(stack: ExitStack, config: Config, node: NodeId) -> Member:
    presence = stack.enter_context(Presence(config, NAMES, node, config.nodes[node].tier.label))
    wait_up(presence.session)
    member = Member(presence, stack.enter_context(Direct(config, NAMES, presence)))
    presence.session.subscribe([TOPIC], member.received, channel=Channel.BULK)
    member.introduce()
    return member


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


class Spy:
    """Counts what crosses the broker on tensors' topics."""

    def __init__(self, member: Member) -> None:
        self.payloads: list[bytes] = []
        member.presence.session.subscribe([NAMES.filter(topics.OUT)], self._on_message)

    def _on_message(self, message: Message) -> None:
        self.payloads.append(message.payload)


def test_messages_go_directly_while_both_ends_can_and_through_the_broker_elsewhere(
    server: Server, stack: ExitStack
) -> None:
    edge, cloud = (enter(stack, config_of(server.port), node) for node in (EDGE, CLOUD))
    spy = Spy(edge)
    edge.send(b"before")
    assert cloud.received.payloads(1) == [b"before"]
    edge.direct.follow(1, [EDGE, CLOUD])
    eventually(edge.stands)
    sent = [bytes([number]) * (1 << 18) for number in range(8)]
    for payload in sent:
        edge.send(payload)
    assert cloud.received.payloads(8) == sent
    edge.send(b"for all", to=None)
    assert cloud.received.payloads(1) == [b"for all"]
    edge.send(b"elsewhere", to=NodeId("cloud-2"))
    assert cloud.received.payloads(1) == [b"elsewhere"]
    edge.direct.forget(1)
    eventually(lambda: not edge.stands())
    edge.send(b"after")
    assert cloud.received.payloads(1) == [b"after"]
    eventually(lambda: len(spy.payloads) == 4)
    assert spy.payloads == [b"before", b"for all", b"elsewhere", b"after"]
    assert edge.direct.sent_bytes_total > 8 << 18
    assert cloud.direct.received_bytes_total == 8 << 18


def test_a_line_that_breaks_in_mid_message_loses_none_and_comes_back(server: Server, stack: ExitStack) -> None:
    relay = Relay()
    stack.callback(relay.close)
    edge = enter(stack, config_of(server.port), EDGE)
    with socket.create_server(("127.0.0.1", 0)) as free:
        relay.target = free.getsockname()[1]
    where = {"host": "127.0.0.1", "port": relay.port, "listen_port": relay.target}
    cloud = enter(stack, config_of(server.port, **where), CLOUD)
    spy = Spy(cloud)
    edge.direct.follow(1, [CLOUD])
    eventually(edge.stands)
    relay.swallows_after = 5 << 19  # amid the third message
    sent = [bytes([number]) * (1 << 20) for number in range(12)]
    for payload in sent:
        edge.send(payload)
    got: set[bytes] = set()
    while got < set(sent):  # some may come both ways, and one way overtake the other
        got.add(cloud.received.next().payload)
    assert got == set(sent)
    eventually(lambda: len(spy.payloads) >= 10 and spy.payloads == sent[-len(spy.payloads) :])
    assert edge.direct.report()["direct_sent_again_total"] > 0
    relay.swallows_after, relay.passes = None, True
    eventually(edge.stands)
    edge.send(b"directly again")
    while cloud.received.next().payload != b"directly again":
        pass
    edge.send(b"through the broker", to=None)
    eventually(lambda: spy.payloads[-1] == b"through the broker")
    assert b"directly again" not in spy.payloads


def say(sock: socket.socket, member: Member, **changes: Any) -> bytes:
    """CONNECT as edge-1 would. Returns the answer's first bytes."""
    token = member.presence.token
    hello = Connect(client_id="edge-1", clean_start=True, keepalive_s=15, username="made-up", password=token)
    sock.sendall(replace(hello, **changes).encode())
    return sock.recv(4)


@pytest.fixture
def port(server: Server, stack: ExitStack) -> tuple[Member, Member, int]:
    edge, cloud = (enter(stack, config_of(server.port), node) for node in (EDGE, CLOUD))
    eventually(lambda: EDGE in cloud.direct._sessions)
    address = cloud.direct.address()
    assert address is not None
    return edge, cloud, address.port


def connected(number: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", number))
    sock.settimeout(PATIENCE_S)
    return sock


def is_closed(sock: socket.socket) -> bool:
    try:
        while sock.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    return True


def test_only_living_nodes_come_in_and_write_on_their_own_topics(port: tuple[Member, Member, int]) -> None:
    edge, cloud, number = port
    for changes in (
        {},
        {"username": None},
        {"username": edge.presence.token, "password": "0" * 8},
        {"username": edge.presence.token, "client_id": "edge-2"},
        {"username": cloud.presence.token, "client_id": "cloud-1"},
    ):
        with connected(number) as sock:
            answer = say(sock, cloud, **changes)
            assert (answer[0], answer[3]) == (CONNACK, NOT_AUTHORIZED)
            assert is_closed(sock)
    with connected(number) as sock:
        assert say(sock, cloud, username=edge.presence.token)[3] == 0
        for topic in (NAMES.topic(topics.STATE, node=EDGE), TOPIC.replace("edge-1", "edge-2"), "plan/s"):
            for nbytes in (3, 1 << 16):
                sock.sendall(message(topic, bytes(nbytes), packet_id=7))
        sock.sendall(message(TOPIC, b"good", packet_id=8))
        acks = b""
        while not acks.endswith(b"\x40\x02\x00\x08"):
            acks += sock.recv(1 << 12)
        assert acks.count(bytes([0x40, 4, 0, 7, NOT_AUTHORIZED, 0])) == 6
        assert cloud.received.payloads(1) == [b"good"]
        assert cloud.received.empty()
    assert cloud.direct.refused_total >= 11


def test_hostile_bytes_end_their_own_connection_only(port: tuple[Member, Member, int]) -> None:
    edge, cloud, number = port
    edge.direct.follow(1, [CLOUD])
    eventually(edge.stands)
    draw = random.Random(1)
    hostile = [draw.randbytes(draw.randrange(1, 500)) for _ in range(12)]
    hostile += [
        b"\x10\xff\xff\xff\x7f",
        framed(0x10, b"\0\4MQTT\5\xff" + bytes(40)),
        b"\x16\x03\x01\x02\x00",
        b"\xc0\0",
    ]
    hostile += [message(TOPIC, bytes(1 << 15), packet_id=1), b"GET / HTTP/1.1\r\n\r\n"]
    for data in hostile:
        with connected(number) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            assert is_closed(sock)
    with connected(number) as sock:  # a node that was let in takes the place of its earlier connection
        assert say(sock, cloud, username=edge.presence.token)[3] == 0
        sock.sendall(message(TOPIC, bytes(64), packet_id=1)[:-1] + b"\xff" * 64)
        assert is_closed(sock)
    edge.send(b"amid")  # over a way that may just have been taken: through the broker then
    while cloud.received.next().payload != b"amid":
        pass
    silent = [connected(number) for _ in range(listener.MOST_STRANGERS + 4)]
    assert all(is_closed(sock) for sock in silent[:4])
    eventually(edge.stands)
    for payload in (b"small", bytes(1 << 20)):
        edge.send(payload)
        while cloud.received.next().payload != payload:
            pass
    assert cloud.direct.internal_errors_total == 0
    for sock in silent:
        sock.close()


def test_over_tls_a_node_is_who_its_certificate_says(stack: ExitStack) -> None:
    lab = stack.enter_context(running())
    configs = {name: directly(lab.enrol(name)) for name in ("edge-1", "cloud-1", "device-1")}
    edge, cloud = (enter(stack, configs[node], node) for node in (EDGE, CLOUD))
    edge.direct.follow(1, [CLOUD])
    eventually(edge.stands)
    sent = [bytes([number]) * (1 << 20) for number in range(4)]
    for payload in sent:
        edge.send(payload)
    assert cloud.received.payloads(4) == sent
    assert cloud.direct.received_bytes_total == 4 << 20
    address, claimed = cloud.direct.address(), edge.presence.token
    assert address is not None
    for name, code in (("edge-1", 0), ("device-1", NOT_AUTHORIZED)):
        tls = address_of(configs[name]).tls
        assert tls is not None
        context = context_of(replace(tls, peers=("lab.cloud-1",)))
        with context.wrap_socket(connected(address.port)) as sock:
            require_peer(sock, replace(tls, peers=("lab.cloud-1",)))
            with pytest.raises(PermissionError, match=r"lab\.cloud-1"):
                require_peer(sock, replace(tls, peers=("lab.cloud-2",)))
            assert say(sock, cloud, username=claimed)[3] == code
    nobody = ssl.create_default_context()
    nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
    with connected(address.port) as sock:
        answer = b""
        # in TLS 1.3 the first read says that a certificate is asked for
        with suppress(ssl.SSLError, ConnectionError), nobody.wrap_socket(sock) as wrapped:
            answer = say(wrapped, cloud, username=claimed)
        assert answer == b""


def directly(config: Config) -> Config:
    changed = config.model_copy(update={"transport": config.transport.model_copy(update={"direct": True})})
    changed.broker._credentials = config.broker._credentials
    return changed
