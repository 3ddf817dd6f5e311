"""`trisect publish`: files become frames of a stream, and each gives its result, or it is said where they were lost."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from broker import topics
from broker.errors import BrokerError, RequestTimeout
from broker.session import Channel, Message, Session
from broker.topics import Namespace
from nodes.client.requests import CONNECT_WAIT_S, RequestRefused
from nodes.config.sections import Config
from nodes.protocol.asking import ask
from nodes.protocol.border import Border
from nodes.protocol.commands import PING_TIMEOUT_S, TAKEN
from nodes.protocol.messages import MessageError
from nodes.session.presence import guest_session, reply_topic
from pipeline import ranges
from pipeline.errors import ConfigError
from pipeline.plan import StreamId
from pipeline.ranges import Count, Word

ASK_AFTER_S = 2.0
"""Without a result for that long, the device is asked what has come there."""
ADVICE = "raise max_queued_messages, max_queued_bytes or memory_limit there (mosquitto.conf), or lower --rate-hz"


@dataclass(frozen=True, slots=True)
class Utilisation:
    """A device's answer: its process, this publisher's frames that came, those answered, and all that are open."""

    session: Word
    taken: Count
    answered: Count
    open: Count


@dataclass(slots=True)
class _Frames:
    """The frames of one publisher that have no result yet, by correlation data, each with its digest."""

    total: int
    open: dict[str, str] = field(default_factory=dict)
    unsent: dict[str, str] = field(default_factory=dict)
    sent: int = 0

    def result_of(self, result: dict[str, Any]) -> bool:
        """Whether this is the result of one of them, which then has it."""
        correlation = result.get("correlation")
        if correlation is None:  # over a bridge in MQTT 3.1.1: equal frames have equal results
            correlation = next((c for c, digest in self.open.items() if digest == result.get("frame")), None)
        if result.get("frame") not in (None, self.open.get(correlation or "")):
            return False  # of another publisher: all of an enrolled member have one reply topic
        return self.open.pop(correlation or "", None) is not None


def publish(
    config: Config, stream: StreamId, files: Sequence[Path], *, rate_hz: float | None, timeout_s: float
) -> Iterator[dict[str, Any]]:
    """Publish files as frames, and yield the result of each as it comes.

    Raises ConfigError for a file that cannot be read, RequestRefused when results stay away for `timeout_s`, or as soon
    as it is known that the broker has dropped frames or their results.
    """
    with guest_session(config, "publish") as session:
        yield from _Publisher(config, stream, session, len(files)).run(files, rate_hz, timeout_s)


class _Publisher:
    """One run of `publish`."""

    def __init__(self, config: Config, stream: StreamId, session: Session, total: int) -> None:
        self._session = session
        self._names = Namespace(config.pipeline)
        self._border = Border(self._names)
        self._device = config.streams[stream].device
        self._topic = self._names.topic(topics.FRAME, stream=stream)
        self._reply_topic = reply_topic(config, session)
        self._result_topic = self._names.topic(topics.RESULT, stream=stream)
        self._results: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._frames = _Frames(total)
        self._before: Utilisation | None = None
        self._first: Utilisation | None = None

    def run(self, files: Sequence[Path], rate_hz: float | None, timeout_s: float) -> Iterator[dict[str, Any]]:
        """All files, then all results."""
        self._session.start(CONNECT_WAIT_S)
        self._session.subscribe([self._reply_topic, self._result_topic], self._results.put)
        self._first = self._ask()
        next_at = time.monotonic()
        for number, file in enumerate(files):
            time.sleep(max(0.0, next_at - time.monotonic()))
            next_at = time.monotonic() + (1.0 / rate_hz if rate_hz else 0.0)
            self._send(file, f"{file.name}#{number}")
        quiet_since = time.monotonic()
        while self._frames.open:
            result = self._next_result(ASK_AFTER_S)
            if result is not None:
                quiet_since = time.monotonic()
                yield result
            elif why := self._why_lost():
                raise RequestRefused(why)
            elif time.monotonic() - quiet_since >= timeout_s:
                raise RequestRefused(
                    f"{len(self._frames.open)} of {self._frames.total} frames have no result after {timeout_s:.0f} s; "
                    "is the device node running? see `trisect watch`"
                )

    def _send(self, file: Path, correlation: str) -> None:
        try:
            payload = file.read_bytes()
        except OSError as error:
            raise ConfigError(f"{file}: {error.strerror}") from error

        def settled(taken: bool) -> None:
            if not taken:
                self._frames.unsent[correlation] = str(file)

        self._frames.open[correlation] = xxhash.xxh3_64_hexdigest(payload)
        try:
            self._session.publish(
                self._topic,
                payload,
                channel=Channel.BULK,
                response_topic=self._reply_topic,
                correlation=correlation.encode(),
                wait_s=None,
                settled=settled,
            )
        except BrokerError as error:
            raise RequestRefused(f"{file}: {error}") from error
        self._frames.sent += 1

    def _next_result(self, wait_s: float) -> dict[str, Any] | None:
        """The next result of one of these frames; None when there was none for so long."""
        give_up = time.monotonic() + wait_s
        while (left_s := give_up - time.monotonic()) > 0:
            try:
                message = self._results.get(timeout=left_s)
            except queue.Empty:
                return None
            parsed = self._names.parse(message.topic)
            if parsed is None or (message.topic == self._result_topic and b'"correlation"' in message.payload):
                continue  # it comes, or has come, on the reply topic
            result: dict[str, Any] | None = self._border.read(message)
            if result is not None and self._frames.result_of(result):
                return result
        return None

    def _ask(self) -> Utilisation | None:
        """What has come at the device; None when it does not answer, or is of an earlier version."""
        try:
            answer = ask(
                self._session,
                self._names,
                self._device,
                TAKEN,
                {},
                reply_topic=self._reply_topic,
                timeout_s=PING_TIMEOUT_S,
            )
            return ranges.read(Utilisation, answer, error=MessageError, what="an answer of a device")
        except (RequestTimeout, MessageError):
            return None

    def _why_lost(self) -> str:
        """Where frames were lost for good, empty while they may still come: the device is asked twice."""
        if unsent := [file for name, file in self._frames.unsent.items() if name in self._frames.open]:
            return (
                f"the broker at {self._session.address} did not take {len(unsent)} of {self._frames.total} frames, "
                f"{unsent[0]} among them; see the log above"
            )
        now, before = self._ask(), self._before
        self._before = now
        if now is None or now != before or self._first is None or self._first.session != now.session:
            return ""
        if now.open or self._session.queued_bytes or now.answered < now.taken:
            return ""  # the broker may have more for the device than it takes at once
        if dropped := max(0, self._frames.sent - (now.taken - self._first.taken)):
            return (
                f"the broker at {self._session.address} dropped {dropped} of {self._frames.total} frames before they "
                f"reached {self._device}; {ADVICE}"
            )
        return (
            f"the broker at {self._session.address} dropped the results of {len(self._frames.open)} of "
            f"{self._frames.total} frames on their way back from {self._device}; {ADVICE}"
        )
