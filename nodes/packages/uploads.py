"""Serve pieces that others ask for, in a thread of its own: few at a time are on their way to the broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from broker import topics
from broker.complaints import Complaints
from broker.session import Channel, Session
from broker.topics import Namespace
from nodes.packages.serving import Queue
from nodes.packages.store import PackageStore
from nodes.protocol.border import Border
from nodes.protocol.packages import Fetch
from pipeline.pieces.manifest import pieces_in

EXPIRY_S: Final = 60.0
"""After which a piece that waits in the broker is asked for again anyway."""
ON_THEIR_WAY: Final = 8
"""Pieces that are published and not acknowledged at a time: what one has asked for another may still join."""
PUBLISH_WAIT_S: Final = 30.0


class Uploader:
    """`on_unreadable` is called from the uploader's thread with a piece that was asked for and cannot be read here."""

    def __init__(
        self,
        session: Session,
        names: Namespace,
        me: str,
        border: Border,
        store: PackageStore,
        failures: Complaints,
        *,
        on_unreadable: Callable[[str, int], None],
    ) -> None:
        self._session, self._names, self._me, self._border, self._store = session, names, me, border, store
        self._failures, self._on_unreadable = failures, on_unreadable
        self._queue, self._may_send = Queue(), threading.Condition()
        self._sending, self._stopped = 0, False
        self.sent_bytes_total = 0
        self._thread = threading.Thread(target=self._run, name=f"{me}.packages.send", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Send no more; `join` waits until the thread has ended."""
        with self._may_send:
            self._stopped = True
            self._may_send.notify_all()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread's end, at most this long."""
        self._thread.join(timeout_s)

    def take_request(self, topic: str, fetch: Fetch) -> None:
        """Queue those of the pieces that are here; refuse a request for pieces that the package does not have."""
        source = self._store.sources.get(fetch.package)
        if source is None:
            return
        wanted = pieces_in(fetch.pieces)
        if foreign := wanted - source.manifest.whole:
            self._border.refuse(topic, f"pieces: below {len(source.manifest.pieces)}, not {max(foreign)}")
            return
        with self._may_send:
            self._queue.ask(fetch.package, sorted(wanted & source.held), time.monotonic(), fetch.listening_s)
            self._may_send.notify_all()

    # In the uploader's thread.

    def _run(self) -> None:
        while True:
            with self._may_send:
                item = self._next()
                if item is None:
                    return
                self._sending += 1
            try:
                self._publish(*item)
            except Exception as error:
                self._left(*item, False)
                self._failures.add(type(error).__name__, f"{self._me}: a piece was not sent: {error}")

    def _next(self) -> tuple[str, int] | None:
        """Wait for a piece that may leave; None when this ends."""
        while not self._stopped:
            now, is_full = time.monotonic(), self._sending >= ON_THEIR_WAY
            if not is_full and (item := self._queue.take(now)) is not None:
                return item
            self._may_send.wait(None if is_full else self._queue.ready_in_s(now))
        return None

    def _publish(self, package: str, piece: int) -> None:
        data = self._store.read(package, piece)
        if data is None:
            self._left(package, piece, False)
            self._on_unreadable(package, piece)
            return
        topic = self._names.topic(topics.PIECE, node=self._me, digest=package, index=piece)
        self.sent_bytes_total += len(data)
        self._session.publish(
            topic,
            data,
            channel=Channel.BULK,
            expiry_s=EXPIRY_S,
            wait_s=PUBLISH_WAIT_S,
            settled=partial(self._left, package, piece),
        )

    def _left(self, package: str, piece: int, delivered: bool) -> None:
        with self._may_send:
            self._sending -= 1
            self._queue.left(package, piece, time.monotonic(), delivered=delivered)
            self._may_send.notify_all()
