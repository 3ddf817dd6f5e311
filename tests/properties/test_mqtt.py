"""Laws of the MQTT codec: cuts in the stream change nothing, what is written is read, and no bytes end a process."""

from __future__ import annotations

import random
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.mqtt.client import MqttClient
from broker.mqtt.outgoing import OutgoingBuffers
from broker.mqtt.packets import Connect, Disconnect, Packet, Puback, Publish, publish_head, publish_size
from broker.mqtt.properties import Property
from broker.mqtt.reader import Reader
from tests.effort import examples
from tests.mqtt_bytes import Placer, any_sizes, feed, in_pieces
from tests.properties.mqtt_fuzz import CodecFuzz, contents

laws = settings(max_examples=examples(75), deadline=None)
P = Property
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
topics = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0+#"), min_size=1, max_size=40)
properties = st.fixed_dictionaries(
    {},
    optional={
        P.MESSAGE_EXPIRY: st.integers(0, 2**32 - 1),
        P.CONTENT_TYPE: texts,
        P.RESPONSE_TOPIC: topics,
        P.CORRELATION_DATA: st.binary(max_size=200),
        P.SUBSCRIPTION_IDENTIFIER: st.lists(st.integers(1, 268_435_455), min_size=1, max_size=3),
        P.USER_PROPERTY: st.lists(st.tuples(texts, texts), min_size=1, max_size=3),
    },
)
payloads = st.builds(
    lambda seed, size: random.Random(seed).randbytes(size),
    st.integers(0, 9),
    st.sampled_from((0, 1, 127, 128, 4095, 4096, 16_383, 16_384, 70_000)),
)


@laws
@given(topics, payloads, st.integers(0, 65_535), st.booleans(), properties, st.integers(0, 2**32))
def test_a_message_comes_back_however_it_is_cut(
    topic: str, payload: bytes, packet_id: int, retain: bool, asked: dict[P, object], seed: int
) -> None:
    qos = 1 if packet_id else 0
    head = publish_head(topic, len(payload), qos=qos, packet_id=packet_id, retain=retain, properties=asked)
    stream = head + payload
    assert publish_size(topic, len(payload), qos, asked) == len(stream)
    found = list(feed(Reader(Placer()), in_pieces(stream * 2, any_sizes(random.Random(seed)))))
    sent = Publish(
        topic=topic,
        qos=qos,
        packet_id=packet_id,
        retain=retain,
        properties=asked,
        payload=payload,
        nbytes=len(payload),
    )
    assert contents(found) == [sent, sent]


@laws
@given(st.integers(1, 65_535), st.sampled_from((0, 0x10, 0x80, 0x97)), st.booleans(), st.integers(0, 2**32))
def test_an_acknowledgement_comes_back(packet_id: int, code: int, with_reason: bool, seed: int) -> None:
    reason = {P.REASON_STRING: "why"} if with_reason else {}
    sent: list[Puback | Disconnect] = [Puback(packet_id, code, reason), Disconnect(code, reason), Puback(packet_id)]
    stream = b"".join(packet.encode() for packet in sent)
    assert list(feed(Reader(), in_pieces(stream, any_sizes(random.Random(seed), 5)))) == sent


@pytest.mark.parametrize("seed", range(30))
def test_cuts_in_a_stream_change_nothing(seed: int) -> None:
    fuzz = CodecFuzz(seed)
    stream = b"".join(fuzz.packet() for _ in range(20))

    def read(most: int) -> list[object]:
        reader = Reader(Placer())
        packets: list[Packet] = list(feed(reader, in_pieces(stream, any_sizes(fuzz.chance, most))))
        assert reader.is_idle
        return contents(packets)

    whole = read(1 << 20)
    assert len(whole) == 20
    assert read(40) == read(5000) == whole


@laws
@given(st.lists(st.lists(st.binary(max_size=50), max_size=4), max_size=20), st.integers(0, 2**32))
def test_what_is_queued_leaves_in_order_whatever_a_socket_takes(messages: list[list[bytes]], seed: int) -> None:
    box, chance = OutgoingBuffers(), random.Random(seed)
    for number, parts in enumerate(messages):
        box.put(parts, mark=number)
    ends = list(accumulate(sum(map(len, parts)) for parts in messages))
    sent, passed = b"", box.taken(0)
    while box:
        views = box.next()
        nbytes = chance.randrange(1, sum(map(len, views)) + 1)
        sent += b"".join(views)[:nbytes]
        passed += box.taken(nbytes)
        assert passed == [number for number, end in enumerate(ends) if end <= len(sent)]
    assert sent == b"".join(part for parts in messages for part in parts)


@laws
@given(st.lists(st.sampled_from(("publish", "subscribe", "answer")), max_size=200), st.integers(0, 2**32))
def test_packet_ids_in_use_are_unique(plan_request: list[str], seed: int) -> None:
    client = MqttClient(Connect(client_id="c", clean_start=True, keepalive_s=0), lambda head, first: None, now=0.0)
    client._is_connected = True
    chance, in_use = random.Random(seed), set[int]()
    for request_plan in plan_request:
        if request_plan == "answer":
            if not in_use:
                continue
            number = chance.choice(sorted(in_use))
            in_use.remove(number)
            data = Puback(number).encode()
            client.buffer()[: len(data)] = data
            assert client.received(len(data), 0.0) == [Puback(number)]
            continue
        number = client.publish("t", [b""], qos=1, retain=False, properties={})
        assert number not in in_use
        in_use.add(number)


@pytest.mark.parametrize("seed", range(4))
def test_no_bytes_end_the_reader(seed: int) -> None:
    fuzz = CodecFuzz(seed)
    fuzz.run(2_500)
    assert not fuzz.deaths, fuzz.examples
    assert fuzz.packets.keys() == {"Connack", "Puback", "Suback", "Pingresp", "Disconnect", "Publish"}
    assert len(fuzz.refused) > 10
