"""What a process retains on the broker, put right whenever somebody else writes there.

A broker without an access list lets everybody write everywhere, and keeps the last that was written: a state or a
manifest in another's name would stand until that other one starts again. Nobody but its process writes on these topics,
so whatever comes back that it did not send is refused, and what it said last is said again.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

from broker.messages import Message
from broker.session import Session
from nodes.protocol.border import Border

SMALL_BYTES = 16 << 10
"""Said again at once. A manifest has megabytes: it waits for `say_again`, or each forged byte would cost many."""
ECHOES_AWAITED = 64


@dataclass(slots=True)
class _Word:
    """What stands on a topic, and what was said there and has not come back yet, oldest first."""

    payload: bytes = b""
    awaited: deque[bytes] = field(default_factory=lambda: deque(maxlen=ECHOES_AWAITED))


class OwnWords:
    """Thread safe."""

    def __init__(self, session: Session, border: Border) -> None:
        self._session, self._border = session, border
        self._words: dict[str, _Word] = {}
        self._wrong: set[str] = set()
        self._lock = threading.Lock()

    def keep(self, topic: str, payload: bytes) -> None:
        """Publish retained, now, at each connect, and when somebody else has written there."""
        with self._lock:
            is_new = topic not in self._words
            self._note(topic, payload)
        self._session.keep(topic, payload)
        if is_new:
            self._session.subscribe([topic], self.heard)

    def note(self, topic: str, payload: bytes) -> None:
        """What is published there by other means; the caller has subscribed to `heard`."""
        with self._lock:
            self._note(topic, payload)

    def heard(self, message: Message) -> None:
        """A message on one of these topics: an echo, or somebody else's."""
        with self._lock:
            word = self._words.get(message.topic)
            if word is None:
                return
            if message.payload in word.awaited:
                while word.awaited.popleft() != message.payload:
                    pass
                return
            if message.payload == word.payload:
                return
            is_small = len(word.payload) <= SMALL_BYTES
            if not is_small:
                self._wrong.add(message.topic)
        self._border.refuse(message.topic, "only its own process writes there; what that said last is said again")
        if is_small:
            self._say(message.topic)

    def say_again(self) -> None:
        """Put right what waits for it; from time to time."""
        with self._lock:
            wrong, self._wrong = self._wrong, set()
        for topic in wrong:
            self._say(topic)

    def _say(self, topic: str) -> None:
        with self._lock:
            payload = self._words[topic].payload
            self._note(topic, payload)
        self._session.publish(topic, payload, retain=True, wait_s=0.0)

    def _note(self, topic: str, payload: bytes) -> None:
        word = self._words.setdefault(topic, _Word())
        word.payload = payload
        word.awaited.append(payload)
