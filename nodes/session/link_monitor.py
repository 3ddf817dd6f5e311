"""Keeps an eye on a running node's way to the broker, and on its clock, in a thread of its own.

Bandwidth is taken from the messages that cross anyway (`broker.throughput`). Only where none has crossed for a while, a
small one does: up, retained, and then down again. Not both at once, since the broker's acknowledgement would stand
behind the message itself. Another follows soon when one was unlike those before it. The round trip is that of a command
to this very node, answered in the network thread; the clock's offset comes from the same command to the planner.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass

from broker import topics
from broker.complaints import Complaints
from broker.errors import BrokerError
from broker.session import Channel, Message
from broker.throughput import Throughput
from broker.topics import Namespace
from nodes.config.sections import Config
from nodes.protocol.asking import ask
from nodes.protocol.commands import PING
from nodes.protocol.messages import MessageError
from nodes.protocol.reports import FAST_BYTES_PER_S
from nodes.session.presence import Presence
from pipeline import ranges
from pipeline.plan import NodeId
from pipeline.ranges import Timestamp, Word

_log = logging.getLogger(__name__)

QUIET_S = 1.0
"""Without a sample for that long, a probe is sent."""
DOUBT_S = 0.2
"""After a sample that is unlike those before it, sooner."""
PROBE_BYTES = 1 << 18
"""Several times what a line lets through in one burst before its rate shows."""
TOPIC_BYTES = 1 << 10
"""What a packet has beyond a probe, at most."""
PROBE_SHARE, DOUBT_SHARE = 0.3, 0.5
"""Of the time that probes may take, half of it each way: an idle line that is slow is looked at every few seconds."""
PROBE_TIMEOUT_S = 10.0
ECHOES = 16
ECHO_S = 0.5
ECHO_TIMEOUT_S = 2.0
TURN_S = 0.1


class LinkWatch:
    """Started when the node is ready, stopped before its session is."""

    def __init__(self, config: Config, names: Namespace, presence: Presence) -> None:
        self._config, self._names, self._presence = config, names, presence
        self._session = presence.session
        self._echo_s = max(ECHO_S, config.telemetry.interval_s)
        self._round_trips: deque[float] = deque(maxlen=ECHOES)
        self._probe_topic = names.topic(topics.PROBE, node=presence.node, index=0)
        self._probe_at = 0.0
        self.failures = Complaints(_log)
        self._back = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{presence.node}.links", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End; an echo that is under way is not waited for."""
        self._stopping.set()

    @property
    def turns(self) -> int:
        """How often the line has changed."""
        return sum(direction.turns for direction in self._directions)

    def report(self) -> dict[str, float]:
        """Telemetry: what is known of `link.up_bytes_per_s`, `link.down_bytes_per_s` and `link.round_trip_s`."""
        round_trip_s = min(self._round_trips, default=None)
        up = self._session.up.bytes_per_s(round_trip_s or 0.0)
        known = {"up_bytes_per_s": up, "down_bytes_per_s": self._session.down.bytes_per_s()}
        rates = {f"link.{name}": round(value) for name, value in known.items() if value is not None}
        return rates | ({"link.round_trip_s": round(round_trip_s, 6)} if round_trip_s is not None else {})

    def _run(self) -> None:
        echo_at = 0.0
        while not self._stopping.wait(TURN_S):
            if not self._session.is_up:
                continue
            now = time.monotonic()
            try:
                if self._is_probe_due(now):
                    self._probe()
                    share = DOUBT_SHARE if self._is_in_doubt() else PROBE_SHARE
                    self._probe_at = now + (time.monotonic() - now) / share
                if now >= echo_at:
                    echo_at = now + self._echo_s
                    self._echo()
            except (BrokerError, MessageError) as error:
                _log.debug("%s: %s", self._presence.node, error)  # the next turn tries again
            except Exception as error:
                self.failures.add(
                    type(error).__name__, f"{self._presence.node}: its line was not looked at", error=error
                )

    @property
    def _directions(self) -> tuple[Throughput, Throughput]:
        return self._session.up, self._session.down

    def _is_in_doubt(self) -> bool:
        return any(direction.may_have_turned(below=FAST_BYTES_PER_S) for direction in self._directions)

    def _is_probe_due(self, now: float) -> bool:
        limit = self._session.max_packet_bytes
        if limit is not None and limit < PROBE_BYTES + TOPIC_BYTES:
            return False  # what the broker takes at once says nothing of the line
        quiet_s = now - min(direction.sampled_at for direction in self._directions)
        return now >= self._probe_at and quiet_s > (DOUBT_S if self._is_in_doubt() else QUIET_S)

    def _probe(self) -> None:
        """Up, then down. Leaves nothing retained behind, and gives up when the line is too slow for it."""
        there = threading.Event()
        self._back.clear()
        self._session.publish(
            self._probe_topic,
            bytes(PROBE_BYTES),
            retain=True,
            channel=Channel.BULK,
            expiry_s=PROBE_TIMEOUT_S,
            wait_s=0.0,
            repeated=False,
            settled=lambda _delivered: there.set(),
        )
        if there.wait(PROBE_TIMEOUT_S):
            self._session.subscribe([self._probe_topic], self._on_probe, channel=Channel.BULK)
            self._back.wait(PROBE_TIMEOUT_S)
            self._session.unsubscribe([self._probe_topic], channel=Channel.BULK)
        self._session.publish(self._probe_topic, b"", retain=True, channel=Channel.BULK, wait_s=0.0)

    def _on_probe(self, message: Message) -> None:
        if message.payload:
            self._back.set()

    def _echo(self) -> None:
        clock, me = self._presence.clock, self._presence.node
        sent = clock.steady()
        self._ping(str(me))
        self._round_trips.append((clock.steady() - sent) / 2)  # the command and its answer each go there and back
        sent = clock.steady()
        answer = self._ping(str(self._config.planner.id))
        received = clock.steady()
        if answer.clock_ts is not None:
            clock.learn(sent, received, answer.clock_ts, answer.session)

    def _ping(self, node: str) -> _Echo:
        answers = self._presence.reply_topic
        answer = ask(self._session, self._names, NodeId(node), PING, {}, reply_topic=answers, timeout_s=ECHO_TIMEOUT_S)
        return ranges.read(_Echo, answer, error=MessageError, what="an answer to a ping")


@dataclass(frozen=True, slots=True)
class _Echo:
    """An answer to a ping: the answering process, and its clock."""

    session: Word = ""
    clock_ts: Timestamp | None = None
