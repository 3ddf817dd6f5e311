"""Which device answers a stream: a retained claim for each, since two that do answer each frame twice.

The planner goes by one device and cannot stop another with a configuration of its own, so a device finds out itself.
Before it starts it asks whoever claims a stream of its own (`presence.require_free`). Of two that start at once, both
see the claims in one order, the broker's: the second to claim gives way. One that was away, or hung, and finds another
claim in place of its own gives way if that device answers to it; a claim of nobody is replaced.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable

from broker import topics
from broker.errors import BrokerError, BrokerRefused, RequestTimeout
from broker.session import Message
from broker.topics import Namespace
from nodes.protocol.asking import ask
from nodes.protocol.commands import PING, PING_TIMEOUT_S
from nodes.protocol.messages import MessageError, Owner, to_bytes
from nodes.session.presence import Presence, StreamOwned
from pipeline.plan import StreamId

_log = logging.getLogger(__name__)

GRACE_S = 1.0
"""For one that came second to put the claim back that it found."""


class Ownership:
    """Of one device's streams, before its session starts; `gone` are claimants that did not answer, by session.

    `on_lost` is called once, in some thread, when another device has a stream; `lost` says which.
    """

    def __init__(
        self,
        presence: Presence,
        names: Namespace,
        streams: Iterable[StreamId],
        *,
        gone: Collection[str],
        on_lost: Callable[[], None],
    ) -> None:
        self.lost: StreamOwned | None = None
        self._presence, self._names, self._on_lost = presence, names, on_lost
        self._gone = frozenset(gone)
        self._claims = {name: Owner(name, presence.node, presence.token) for name in streams}
        self._held: set[StreamId] = set()
        self._latest: dict[StreamId, Owner] = {}
        self._doubted: set[StreamId] = set()
        self._lock = threading.Lock()
        for claim in self._claims.values():
            presence.session.subscribe([self._topic(claim.stream)], self._on_owner)
            presence.session.keep(self._topic(claim.stream), to_bytes(claim))

    def disconnected(self) -> None:
        """Others may claim meanwhile: what is found at the next connect counts."""
        with self._lock:
            self._held.clear()

    def farewell(self) -> dict[str, bytes]:
        """What to leave retained: no claim of ours; those of others stay."""
        with self._lock:
            return {self._topic(stream): b"" for stream in self._held}

    def _topic(self, stream: StreamId) -> str:
        return self._names.topic(topics.STREAM_OWNER, stream=stream)

    def _on_owner(self, message: Message) -> None:
        claim: Owner | None = self._presence.border.read(message)
        if claim is None or claim.stream not in self._claims or claim.session in self._gone:
            return
        mine = self._claims[claim.stream]
        with self._lock:
            self._latest[claim.stream] = claim
            if claim.node == mine.node:
                self._held.add(claim.stream)
                return
            is_held, is_doubted = claim.stream in self._held, claim.stream in self._doubted
            self._doubted.add(claim.stream)
        if not is_doubted:
            # asking waits, and this is a network thread
            threading.Thread(target=self._resolve, args=(claim, is_held), name="ownership", daemon=True).start()

    def _resolve(self, claim: Owner, is_held: bool) -> None:
        if is_held:
            time.sleep(GRACE_S)
        with self._lock:
            self._doubted.discard(claim.stream)
            claim = self._latest[claim.stream] if is_held else claim  # before ours: what has come since says nothing
        mine = self._claims[claim.stream]
        if claim.node == mine.node:
            return
        try:
            is_there = self._answers(claim)
            self._presence.session.publish(
                self._topic(claim.stream), to_bytes(claim if is_there else mine), retain=True
            )
        except BrokerError as error:
            _log.warning("stream %s is claimed by %s: %s", claim.stream, claim.node, error)
            return
        if is_there:
            self._give_way(claim)
        else:
            about = self._topic(claim.stream)
            self._presence.border.refuse(about, f"{claim.node} claims this device's stream, and does not answer")

    def _answers(self, claim: Owner) -> bool:
        session, answers = self._presence.session, self._presence.reply_topic
        try:
            answer = ask(session, self._names, claim.node, PING, {}, reply_topic=answers, timeout_s=PING_TIMEOUT_S)
        except (RequestTimeout, BrokerRefused, MessageError):
            return False
        return answer.get("session") == claim.session

    def _give_way(self, claim: Owner) -> None:
        with self._lock:
            if self.lost is not None:
                return
            self._held.discard(claim.stream)
            self.lost = StreamOwned(claim)
        self._presence.session.unkeep(self._topic(claim.stream))
        self._on_lost()
