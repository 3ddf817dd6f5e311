"""A broker with small limits drops what it has acknowledged: receivers notice, and fetch again what is retained."""

from __future__ import annotations

import threading

from benchmarks.line import Line
from broker.messages import Limits
from broker.server import Server, ServerSettings
from broker.session import Address, Channel, Message, Session
from tests.integration.conftest import PATIENCE_S, OpenSession, Received, Signal, eventually

FRAMES = 200
SMALL = ServerSettings(max_queued_messages=20, max_inflight_messages=20)


class Slow:
    """A handler that keeps its network thread until it is let go, so that the broker's queue for it fills up."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.payloads: list[bytes] = []

    def __call__(self, message: Message) -> None:
        self.go_on.wait(PATIENCE_S)
        self.payloads.append(message.payload)


def flood(session: Session, *, channel: Channel, nbytes: int) -> None:
    for number in range(FRAMES):
        session.publish("t", number.to_bytes(4, "big") + bytes(nbytes), channel=channel, wait_s=None)
    eventually(lambda: session.queued_bytes == 0)


def test_a_full_queue_of_the_broker_is_noticed_and_counted(open_session: OpenSession) -> None:
    with Server(SMALL) as server:
        address, slow, missed = Address(server.host, server.port), Slow(), Signal()
        reader = open_session(address, "reader", on_missed=missed)
        reader.subscribe(["t"], slow, channel=Channel.BULK)
        writer = open_session(address, "writer")
        flood(writer, channel=Channel.BULK, nbytes=100_000)
        slow.go_on.set()
        lasts = 0

        def has_come_through() -> bool:
            nonlocal lasts
            if writer.queued_bytes == 0 and slow.payloads[-1:] != [b"last"]:  # one more: the queue may still be full
                writer.publish("t", b"last", channel=Channel.BULK)
                lasts += 1
            return slow.payloads[-1:] == [b"last"]

        eventually(has_come_through)
        eventually(lambda: FRAMES + lasts == len(slow.payloads) + reader.missed_total)
        lost = FRAMES + lasts - len(slow.payloads)
        assert lost > 0
        assert reader.missed_total == lost
        assert missed.wait() == (Channel.BULK,)


def test_a_broker_at_its_memory_limit_gets_everything_in_the_end(open_session: OpenSession) -> None:
    # mosquitto closes the line of a publisher for whose message it has no memory, with all that is on its way
    with Server(ServerSettings(memory_limit_bytes=4 << 20, max_packet_bytes=1 << 20)) as server:
        address, slow = Address(server.host, server.port), Slow()
        reader = open_session(address, "reader")
        reader.subscribe(["t"], slow, channel=Channel.BULK)
        writer = open_session(address, "writer")
        for number in range(FRAMES):
            writer.publish("t", number.to_bytes(4, "big") + bytes(200_000), channel=Channel.BULK, wait_s=None)
        eventually(lambda: writer.reconnects_total > 2)
        slow.go_on.set()
        eventually(lambda: writer.queued_bytes == 0)
        eventually(lambda: len({payload[:4] for payload in slow.payloads}) + reader.missed_total >= FRAMES)


def test_a_frame_sent_again_on_a_new_connection_is_one_frame(address: Address, open_session: OpenSession) -> None:
    received = Received()
    device = open_session(address, "device-1", start=False, takes_frames=True)
    device.subscribe(["frame"], received, channel=Channel.FRAMES)
    device.start(PATIENCE_S)
    with Line(address.host, address.port) as line:
        camera = open_session(line.address, "camera")
        line.loses_down = True  # the broker takes it, and its acknowledgement does not come back
        camera.publish("frame", b"1", channel=Channel.BULK)
        first = received.next()
        line.cut()
        eventually(lambda: camera.queued_bytes == 0)
    camera = open_session(address, "camera-2")
    camera.publish("frame", b"1", channel=Channel.BULK)
    second = received.next()
    assert received.empty()
    assert [first.payload, second.payload] == [b"1", b"1"]
    assert device.open_total(Channel.FRAMES) == 3
    first.ack()
    assert device.open_total(Channel.FRAMES) == 1, "the repeat is acknowledged with the frame"


def test_a_frame_that_is_too_large_comes_without_its_payload_to_be_answered(
    address: Address, open_session: OpenSession
) -> None:
    received, most = Received(), 1_000
    limits = Limits(max_packet_bytes=100_000)  # which holds for all but frames
    device = open_session(
        address, "device-1", start=False, takes_frames=True, limits=limits, max_bytes=lambda topic: most
    )
    device.subscribe(["frame"], received, channel=Channel.FRAMES)
    device.start(PATIENCE_S)
    camera = open_session(address, "camera")
    for nbytes in (300_000, most + 1, most):
        camera.publish("frame", bytes(nbytes), response_topic="reply/camera", correlation=b"7", channel=Channel.BULK)
        message = received.next()
        assert (message.response_topic, message.correlation) == ("reply/camera", b"7")
        is_refused = nbytes > most
        assert (message.nbytes_refused, len(message.payload)) == ((nbytes, 0) if is_refused else (0, nbytes))
        assert device.open_total(Channel.FRAMES) == 1, "it waits for its answer"
        message.ack()
        eventually(lambda: device.open_total(Channel.FRAMES) == 0)
    assert device.refused_total == 2


def test_what_is_retained_on_a_topic_with_a_gap_is_fetched_again(open_session: OpenSession) -> None:
    with Server(SMALL) as server:
        address, received, slow = Address(server.host, server.port), Received(), Slow()
        reader = open_session(address, "reader", start=False, is_new_name=True)
        reader.subscribe(["blocks"], slow)
        reader.subscribe(["state/+"], received)
        reader.start(PATIENCE_S)
        writer = open_session(address, "writer")
        writer.publish("state/1", b"0", retain=True)
        assert received.next().payload == b"0"
        writer.publish("blocks", b"")  # nothing more is read from here on
        for number in range(1, FRAMES):
            writer.publish("state/1", b"%d" % number, retain=True)
        eventually(lambda: writer.queued_bytes == 0)
        slow.go_on.set()
        received.next()
        while not received.quiet_for(0.5):  # where the broker's queue is full still, the newest is lost, too
            pass
        writer.publish("state/1", b"newest", retain=True)
        received.until(b"newest")
        again = received.next()
        assert (again.payload, again.retain) == (b"newest", True)
        assert reader.missed_total > 0
