"""Measures a node's way to the broker and back: round trip, bytes per second up, bytes per second down.

Up is timed to the broker's acknowledgement. Down is timed on retained messages of the node's own, which the broker
sends as soon as they are subscribed to; so the two directions are told apart, as slow uplinks demand.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable

from broker import topics
from broker.session import Channel, Message, Session
from broker.topics import Namespace
from nodes.messages import LinkReport
from pipeline.errors import TrisectError
from pipeline.plan import NodeId

ECHOES = 7
SMALL_BYTES = 1024
FIRST_BYTES = 1 << 17
LARGE_BYTES = 1 << 22
QUICK_S = 0.05
"""When the first bytes pass quicker than this the link is fast, and more are sent for a steadier number."""
TRIES = 5
TRIES_S = 0.5
LEAST_S = 1e-6
EXPIRY_S = 60.0


class ProbeError(TrisectError):
    """The broker did not answer a probe in time."""


def measure(
    session: Session, names: Namespace, node: NodeId, *, chunk_bytes: int, timeout_s: float = 60.0
) -> LinkReport:
    """Measure now. Raises ProbeError after `timeout_s` without an answer."""
    probe = _Probe(session, names, node, chunk_bytes, time.monotonic() + timeout_s)
    try:
        round_trip_s = probe.round_trip_s()
        nbytes = LARGE_BYTES if probe.up_seconds(FIRST_BYTES) < QUICK_S else FIRST_BYTES
        up_s = _best(lambda: probe.up_seconds(nbytes)) - round_trip_s / 2
        down_s = _best(lambda: probe.down_seconds(nbytes)) - round_trip_s / 2
    finally:
        probe.clear()
    up, down = (nbytes / max(seconds, LEAST_S) for seconds in (up_s, down_s))
    return LinkReport(node, session.token, up, down, round_trip_s, time.time())


def _best(measure_s: Callable[[], float]) -> float:
    """The quickest of several tries, within a time: what disturbs a try only makes it slower."""
    give_up = time.monotonic() + TRIES_S
    quickest = measure_s()
    for _ in range(TRIES - 1):
        if time.monotonic() > give_up:
            break
        quickest = min(quickest, measure_s())
    return quickest


class _Probe:
    def __init__(self, session: Session, names: Namespace, node: NodeId, chunk_bytes: int, give_up: float) -> None:
        self._session, self._names, self._node = session, names, node
        self._chunk_bytes, self._give_up = chunk_bytes, give_up
        self._used: set[str] = set()
        self._arrived = threading.Semaphore(0)

    def round_trip_s(self) -> float:
        """The median of small messages through the broker to this very node."""
        topic = self._topic(0)
        self._session.subscribe([topic], self._on_message, channel=Channel.BULK)
        seconds = []
        for _ in range(ECHOES):
            began = time.perf_counter()
            self._session.publish(topic, bytes(SMALL_BYTES), channel=Channel.BULK)
            self._await(1)
            seconds.append(time.perf_counter() - began)
        self._session.unsubscribe([topic], channel=Channel.BULK)
        return statistics.median(seconds)

    def up_seconds(self, nbytes: int) -> float:
        """Until the broker has acknowledged `nbytes`, in chunks, which it retains."""
        began = time.perf_counter()
        for index, offset in enumerate(range(0, nbytes, self._chunk_bytes), start=1):
            topic = self._topic(index)
            self._used.add(topic)
            chunk = bytes(min(self._chunk_bytes, nbytes - offset))
            self._session.publish(topic, chunk, retain=True, expiry_s=EXPIRY_S, channel=Channel.BULK)
        while self._session.queued_bytes:
            if time.monotonic() > self._give_up:
                raise ProbeError(f"{nbytes} bytes were not acknowledged by {self._session.address} in time")
            time.sleep(0.0002)
        return time.perf_counter() - began

    def down_seconds(self, nbytes: int) -> float:
        """Until the retained chunks are back."""
        used = sorted(self._used)[: -(-nbytes // self._chunk_bytes)]
        began = time.perf_counter()
        self._session.subscribe(used, self._on_message, channel=Channel.BULK)
        self._await(len(used))
        seconds = time.perf_counter() - began
        self._session.unsubscribe(used, channel=Channel.BULK)
        return seconds

    def clear(self) -> None:
        """Leave nothing retained."""
        for topic in self._used:
            self._session.publish(topic, b"", retain=True, channel=Channel.BULK)

    def _topic(self, index: int) -> str:
        return self._names.topic(topics.PROBE, node=self._node, index=index)

    def _on_message(self, message: Message) -> None:
        if message.payload:
            self._arrived.release()

    def _await(self, messages: int) -> None:
        for _ in range(messages):
            if not self._arrived.acquire(timeout=max(0.0, self._give_up - time.monotonic())):
                raise ProbeError(f"a probe did not come back from {self._session.address} in time")
