"""One connection's protocol: packet ids, keep-alive, and what may come when."""

from __future__ import annotations

import pytest

from broker.errors import ProtocolViolation
from broker.mqtt.client import MqttClient, Silent
from broker.mqtt.outgoing import OutgoingBuffers
from broker.mqtt.packets import PINGREQ, Connect, Disconnect, Packet
from tests.mqtt_bytes import CONNACK, PINGRESP, PUBACK, SUBACK, framed, listed, message

ACCEPTED = framed(CONNACK, b"\0\0" + listed(b""))


def client(*, keepalive_s: int = 10) -> MqttClient:
    made = MqttClient(
        Connect(client_id="c", clean_start=True, keepalive_s=keepalive_s), lambda head, first: None, now=0.0
    )
    drain(made, 0.0)
    return made


def connected(*, keepalive_s: int = 10) -> MqttClient:
    made = client(keepalive_s=keepalive_s)
    give(made, ACCEPTED, 0.0)
    return made


def give(to: MqttClient, data: bytes, now: float) -> list[Packet]:
    buffer = to.buffer()
    buffer[: len(data)] = data
    return to.received(len(data), now)


def drain(of: MqttClient, now: float) -> bytes:
    sent = b"".join(of.outgoing.next())
    of.sent(len(sent), now)
    return sent


def publish(by: MqttClient, qos: int = 1) -> int:
    return by.publish("t", [b"x"], qos=qos, retain=False, properties={})


def test_packet_ids_are_not_given_twice_while_they_await_an_answer() -> None:
    one = connected()
    first = publish(one)
    others = [publish(one) for _ in range(65_534)]
    assert sorted([first, *others]) == list(range(1, 65_536))
    with pytest.raises(RuntimeError, match="65_535 packet ids"):
        publish(one)
    give(one, framed(PUBACK, b"\x01\x02"), 0.0)
    assert one.subscribe("t", qos=1, identifier=None) == 0x0102


def test_qos_0_takes_no_packet_id_and_is_reported_once_it_is_gone() -> None:
    one = connected()
    numbers = [publish(one, qos=0) for _ in range(3)]
    assert min(numbers) > 65_535
    nbytes = sum(map(len, one.outgoing.next()))
    assert one.sent(nbytes - 1, 0.0) == numbers[:2]
    assert one.sent(1, 0.0) == numbers[2:]


@pytest.mark.parametrize(
    "answer",
    [framed(PUBACK, b"\0\x09"), framed(SUBACK, b"\0\1" + listed(b"") + b"\1"), ACCEPTED],
    ids=["an id that awaits none", "the wrong kind", "a second CONNACK"],
)
def test_answers_to_nothing_are_violations(answer: bytes) -> None:
    one = connected()
    assert publish(one) == 1
    with pytest.raises(ProtocolViolation):
        give(one, answer, 0.0)


def test_a_message_before_connack_is_a_violation() -> None:
    with pytest.raises(ProtocolViolation, match="before CONNACK"):
        give(client(), message("t", b""), 0.0)


def test_an_idle_connection_is_kept_alive() -> None:
    one = connected()
    one.tick(9.9)
    assert not one.outgoing
    one.tick(10.0)
    assert drain(one, 10.0) == PINGREQ
    one.tick(19.0)
    assert not one.outgoing
    give(one, PINGRESP, 19.5)
    one.tick(20.0)
    assert drain(one, 20.0) == PINGREQ, "nothing was sent for as long as the keep-alive"


def test_a_silent_peer_is_given_up_after_twice_the_keepalive() -> None:
    one = connected()
    one.tick(10.0)
    drain(one, 10.0)
    one.tick(19.9)
    with pytest.raises(Silent, match=r"no word for 20\.0 s, with a keep-alive of 10 s"):
        one.tick(20.0)


def test_a_peer_that_takes_a_large_tensor_is_not_silent() -> None:
    one = connected()
    one.publish("t", [bytes(1000)], qos=1, retain=False, properties={})
    one.sent(1, 1.0)
    one.tick(10.0)
    for now in range(11, 60):
        one.sent(1, float(now))
        one.tick(float(now))
    with pytest.raises(Silent):
        one.tick(70.0)


def test_a_server_may_ask_for_another_keepalive_or_for_none() -> None:
    for asked, is_due in ((b"\x13\0\2", True), (b"\x13\0\0", False)):
        one = client()
        give(one, framed(CONNACK, b"\0\0" + listed(asked)), 0.0)
        one.tick(2.0)
        assert bool(one.outgoing) is is_due


def test_disconnect_is_the_last_thing() -> None:
    one = connected()
    publish(one)
    one.disconnect(Disconnect())
    assert not one.is_finished
    assert drain(one, 0.0).endswith(b"\xe0\0")
    assert one.is_finished


def test_buffers_are_handed_on_uncopied_and_in_order() -> None:
    box = OutgoingBuffers()
    first, second = bytearray(b"abc"), bytearray(b"defgh")
    box.put([first, b"", second], mark=1)
    box.put([b"ij"])
    box.put([], mark=2)
    assert [view.obj for view in box.next()[:2]] == [first, second]
    assert box.taken(5) == []
    assert b"".join(box.next()) == b"fghij"
    assert box.taken(4) == [1]
    assert box.taken(1) == [2]
    assert not box
