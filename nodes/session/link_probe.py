"""Measures a node's way to the broker and back, as tensors take it: encoded, through the same threads, decoded.

Round trip is a small tensor to this very node. Up is timed to the broker's acknowledgement; down on retained messages
of the node's own, which the broker sends as soon as they are subscribed to: the two are told apart, as slow uplinks
demand. Tries are spaced, since a pipeline that waits for its next frame is cold, and the quickest counts, since what
disturbs a try (neighbours that start on the same machine) only makes it slower; when two agree on it there is no need
for more.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from broker import topics
from broker.session import Channel, Session
from broker.topics import Namespace
from nodes.protocol.messages import LinkReport
from nodes.session.tensor_handler import Piece, TensorHandler
from nodes.session.worker_thread import Worker
from pipeline.errors import TrisectError
from pipeline.graph import Tensor
from pipeline.plan import NodeId
from pipeline.reassembly import Assembler
from pipeline.wire import FrameKey, Received, encode

SMALL_BYTES = 4096
FIRST_BYTES = 1 << 17
LARGE_BYTES = 1 << 20
QUICK_S = 0.05
"""When the first bytes pass quicker than this the link is fast, and more are sent for a steadier number."""
TRIES = 7
LEAST_TRIES = 3
AGREED = 1.05
"""Two quickest tries within this ratio were both undisturbed."""
TRIES_S = 1.0
GAP_S = 0.01
LEAST_S = 1e-6
OWN_SHARE = 0.25
EXPIRY_S = 60.0


class ProbeError(TrisectError):
    """The broker did not answer a probe in time."""


def measure(
    session: Session, names: Namespace, node: NodeId, *, chunk_bytes: int, timeout_s: float = 60.0
) -> LinkReport:
    """Measure now. Raises ProbeError after `timeout_s` without an answer, BrokerError."""
    with _Probe(session, names, node, chunk_bytes, time.monotonic() + timeout_s) as probe:
        round_trip_s = probe.round_trip_s()
        nbytes = LARGE_BYTES if probe.up_seconds(FIRST_BYTES) < QUICK_S else FIRST_BYTES
        took = _quickest(lambda: probe.up_seconds(nbytes)), _quickest(lambda: probe.down_seconds(nbytes))
    up, down = (nbytes / own_seconds(seconds, round_trip_s / 2) for seconds in took)
    return LinkReport(node, session.token, up, down, round_trip_s, time.time())


def own_seconds(took_s: float, waited_s: float) -> float:
    """The bytes' own part of the time that they took, which has a wait in it: at least OWN_SHARE of it.

    On a fast way both are as long as each other by chance, and the difference may be next to nothing.
    """
    return max(took_s - waited_s, took_s * OWN_SHARE, LEAST_S)


def _quickest(measure_s: Callable[[], float]) -> float:
    give_up = time.monotonic() + TRIES_S
    seconds = [measure_s()]
    while len(seconds) < TRIES and not _agree(seconds) and time.monotonic() < give_up:
        time.sleep(GAP_S)
        seconds.append(measure_s())
    return min(seconds)


def _agree(seconds: Sequence[float]) -> bool:
    quickest, second = sorted(seconds)[:2] if len(seconds) >= LEAST_TRIES else (0.0, math.inf)
    return second <= quickest * AGREED


class _Probe:
    """The topics and threads of one measurement; leaves nothing retained behind."""

    def __init__(self, session: Session, names: Namespace, node: NodeId, chunk_bytes: int, give_up: float) -> None:
        self._session, self._names, self._node = session, names, node
        self._chunk_bytes, self._give_up = chunk_bytes, give_up
        self._retained: list[str] = []
        self._nbytes = 0
        self._whole = threading.Semaphore(0)
        self._published = threading.Semaphore(0)
        self._assembler = Assembler(lambda *_: _tensor(self._nbytes))
        self._handler = TensorHandler(self._assembler, lambda topic: self._node, self._offer)
        self._publisher: Worker[tuple[bool, int]] = Worker(f"{node}.probe.publish", self._publish)
        self._decoder: Worker[Piece] = Worker(f"{node}.probe.decode", self._decode)

    def __enter__(self) -> _Probe:
        self._publisher.start()
        self._decoder.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._publisher.stop()
        self._decoder.stop()
        for topic in self._retained:
            self._session.publish(topic, b"", retain=True, channel=Channel.BULK)

    def round_trip_s(self) -> float:
        """A small tensor from this node to itself."""
        topic = self._topic(0)
        self._session.subscribe([topic], self._handler, channel=Channel.BULK)
        seconds = _quickest(lambda: self._timed(retain=False, nbytes=SMALL_BYTES))
        self._session.unsubscribe([topic], channel=Channel.BULK)
        return seconds

    def up_seconds(self, nbytes: int) -> float:
        """Until the broker has acknowledged a tensor of `nbytes`, which it retains."""
        began = time.perf_counter()
        self._publisher.put((True, nbytes))
        self._await(self._published)
        while self._session.queued_bytes:
            if time.monotonic() > self._give_up:
                raise ProbeError(f"{nbytes:,} bytes were not acknowledged by {self._session.address} in time")
            time.sleep(0.0002)
        return time.perf_counter() - began

    def down_seconds(self, nbytes: int) -> float:
        """Until the tensor that was retained last is back and decoded."""
        self._nbytes = nbytes
        topics_used = self._retained[: -(-nbytes // self._chunk_bytes)]
        began = time.perf_counter()
        self._session.subscribe(topics_used, self._handler, channel=Channel.BULK)
        self._await(self._whole)
        seconds = time.perf_counter() - began
        self._session.unsubscribe(topics_used, channel=Channel.BULK)
        return seconds

    def _timed(self, *, retain: bool, nbytes: int) -> float:
        self._nbytes = nbytes
        began = time.perf_counter()
        self._publisher.put((retain, nbytes))
        self._await(self._whole)
        return time.perf_counter() - began

    def _publish(self, request: tuple[bool, int]) -> None:
        """In a thread of its own, as a node publishes. A retained tensor has a topic for each chunk."""
        retain, nbytes = request
        array = np.zeros(nbytes, np.uint8)
        encoded = encode(_KEY, 0, array, chunk_bytes=self._chunk_bytes)
        for index, chunk in enumerate(encoded.parts(), start=int(retain)):
            topic = self._topic(index)
            self._session.publish(topic, chunk, retain=retain, expiry_s=EXPIRY_S, channel=Channel.BULK)
            if retain and topic not in self._retained:
                self._retained.append(topic)
        if retain:
            self._published.release()

    def _decode(self, piece: Piece) -> None:
        if isinstance(self._assembler.add(self._node, piece), Received):
            self._whole.release()

    def _topic(self, index: int) -> str:
        return self._names.topic(topics.PROBE, node=self._node, index=index)

    def _offer(self, topic: str, sender: str, piece: Piece, traceparent: str | None) -> None:
        if piece:  # a retained tensor is taken back by an empty message
            self._decoder.offer(piece)

    def _await(self, happened: threading.Semaphore) -> None:
        if not happened.acquire(timeout=max(0.0, self._give_up - time.monotonic())):
            raise ProbeError(f"a probe did not come back from {self._session.address} in time")


_KEY = FrameKey("probe", 1, 1, 1, 0)


def _tensor(nbytes: int) -> Tensor:
    return Tensor(0, "probe", (nbytes,), "uint8")
