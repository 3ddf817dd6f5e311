"""What a process retains stands as it said it, whoever writes there."""

from __future__ import annotations

import time

from broker.session import Address, Session
from broker.topics import INFO, STATE, Namespace
from nodes.protocol.border import Border
from nodes.session.own_words import SMALL_BYTES, OwnWords
from tests.integration.conftest import PATIENCE_S, OpenSession, Received, eventually

NAMES = Namespace("lab")
STATE_TOPIC, INFO_TOPIC = NAMES.topic(STATE, node="edge-1"), NAMES.topic(INFO, node="edge-1")


def retained(address: Address, open_session: OpenSession, topic: str, expected: bytes, name: str) -> bool:
    """Whether the broker comes to keep this payload."""
    give_up, number = time.monotonic() + PATIENCE_S, 0
    while time.monotonic() < give_up:
        number += 1
        late, seen = open_session(address, f"{name}-{number}"), Received()
        late.subscribe([topic], seen)
        if seen.next().payload == expected:
            return True
    return False


def words_of(session: Session) -> tuple[OwnWords, Border]:
    border = Border(NAMES)
    return OwnWords(session, border), border


def test_a_forged_or_cleared_word_is_put_right(address: Address, open_session: OpenSession) -> None:
    words, border = words_of(open_session(address, "edge-1"))
    for number in range(20):
        words.keep(STATE_TOPIC, b"ready %d" % number)
    stranger = open_session(address, "evil")
    for forged in (b"stopped", b"", b"ready 3"):
        stranger.publish(STATE_TOPIC, forged, retain=True)
    eventually(lambda: border.total >= 3)  # or the first look would come before what the stranger says
    assert retained(address, open_session, STATE_TOPIC, b"ready 19", "late")
    assert border.total == 3, "echoes of its own words are refused, or the stranger's are not"


def test_a_large_word_is_put_right_when_asked(address: Address, open_session: OpenSession) -> None:
    words, border = words_of(open_session(address, "edge-1"))
    large = bytes(SMALL_BYTES + 1)
    words.keep(INFO_TOPIC, large)
    stranger = open_session(address, "evil")
    for _ in range(3):
        stranger.publish(INFO_TOPIC, b"forged", retain=True)
    assert retained(address, open_session, INFO_TOPIC, b"forged", "soon")
    eventually(lambda: border.total >= 3)
    words.say_again()
    assert retained(address, open_session, INFO_TOPIC, large, "late")
