"""How fast a slowed line passes messages is seen from those that cross it, each way on its own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from broker.server import Server
from broker.session import Address, Channel, Session
from broker.throughput import TURNS, Throughput
from tests.integration.conftest import PATIENCE_S, OpenSession

pytestmark = pytest.mark.integration

UP_BYTES_PER_S, DOWN_BYTES_PER_S, SLOW_BYTES_PER_S = 1e6, 4e6, 3e5
PIECE_BYTES = 4096
TENSOR_BYTES = 100_000


class SlowLine:
    """Stands between a node and the broker, and passes bytes on at a rate each way, as a shaper does."""

    def __init__(self, broker: Address, up_bytes_per_s: float, down_bytes_per_s: float) -> None:
        self._broker = broker
        self._rates = up_bytes_per_s, down_bytes_per_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]
        self.address = Address("127.0.0.1", self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                node, _ = self._listener.accept()
            except OSError:
                return
            broker = socket.create_connection((self._broker.host, self._broker.port))
            for each in (node, broker):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets += [node, broker]
            for source, sink, rate in ((node, broker, self._rates[0]), (broker, node, self._rates[1])):
                threading.Thread(target=self._pass_on, args=(source, sink, rate), daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, sink: socket.socket, rate: float) -> None:
        free_at = 0.0
        try:
            while data := source.recv(PIECE_BYTES):
                free_at = max(free_at, time.monotonic()) + len(data) / rate
                time.sleep(max(0.0, free_at - time.monotonic()))
                sink.sendall(data)
        except OSError:
            pass
        for each in (source, sink):
            each.close()


@pytest.fixture
def slow(module_server: Server) -> Iterator[SlowLine]:
    line = SlowLine(Address(module_server.host, module_server.port), UP_BYTES_PER_S, DOWN_BYTES_PER_S)
    yield line
    line.close()


@pytest.fixture
def edge(slow: SlowLine, open_session: OpenSession) -> Session:
    return open_session(slow.address, "edge-1")


def until(condition: Callable[[], bool], meanwhile: Callable[[], None] = lambda: None) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up
        meanwhile()
        time.sleep(0.005)


def is_close(direction: Throughput, bytes_per_s: float) -> bool:
    # a busy machine makes it slower; how close it comes on a quiet one is in docs/benchmarks.md
    found = direction.bytes_per_s()
    return found is not None and bytes_per_s / 4 < found < 1.5 * bytes_per_s


def test_each_ways_rate_is_seen_though_pauses_lie_between_messages(
    edge: Session, module_server: Server, open_session: OpenSession
) -> None:
    other = open_session(Address(module_server.host, module_server.port), "cloud-1")
    edge.subscribe(["tensors/down"], lambda message: None, channel=Channel.BULK)

    def pass_one(sender: Session, topic: str, direction: Throughput) -> None:
        before = direction.sampled_at
        sender.publish(topic, bytes(TENSOR_BYTES), channel=Channel.BULK)
        until(lambda: direction.sampled_at > before)
        time.sleep(0.05)  # the pause is what is tested: it must not count

    def cross() -> None:
        pass_one(edge, "tensors/up", edge.up)
        pass_one(other, "tensors/down", edge.down)

    until(lambda: is_close(edge.up, UP_BYTES_PER_S) and is_close(edge.down, DOWN_BYTES_PER_S), cross)


def test_acknowledgements_behind_tensors_do_not_make_the_way_up_slow(
    module_server: Server, open_session: OpenSession
) -> None:
    line = SlowLine(Address(module_server.host, module_server.port), DOWN_BYTES_PER_S, SLOW_BYTES_PER_S)
    try:
        node = open_session(line.address, "edge-2")
        node.subscribe(["tensors/mine"], lambda message: None, channel=Channel.BULK)

        def cross(topic: str) -> None:
            before = node.up.sampled_at
            node.publish(topic, bytes(TENSOR_BYTES), channel=Channel.BULK)
            until(lambda: node.up.sampled_at > before and node.queued_bytes == 0)

        until(lambda: is_close(node.up, DOWN_BYTES_PER_S), lambda: cross("tensors/up"))
        for _ in range(2 * max(count for count, _ in TURNS)):
            cross("tensors/mine")
        # the acknowledgement waits for the tensor to come back, which alone takes TENSOR_BYTES / SLOW_BYTES_PER_S
        assert (node.up.bytes_per_s() or 0.0) > 2 * SLOW_BYTES_PER_S
    finally:
        line.close()
