"""A session's connections as one thing that is up or down, or taken over by another client."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection

from broker.callbacks import Callbacks
from broker.errors import BrokerError, BrokerRefused, BrokerUnreachable, NotConnected, SessionTaken
from broker.messages import Address, Channel

_log = logging.getLogger(__name__)


class Availability:
    """Listens to the connections of `channels` (broker.policy.Listener), in their threads.

    `on_up`, `on_down`, `on_missed` and `on_taken` are posted to `callbacks`. `channels` is complete before the first
    connection starts.
    """

    def __init__(
        self,
        name: str,
        address: Address,
        channels: Collection[Channel],
        callbacks: Callbacks,
        *,
        report_every_s: float,
        on_up: Callable[[], None],
        on_down: Callable[[str], None],
        on_taken: Callable[[Channel], None],
        on_missed: Callable[[Channel], None],
    ) -> None:
        self._name, self._address, self._channels, self._callbacks = name, address, channels, callbacks
        self._report_every_s = report_every_s
        self._on_up, self._on_down, self._on_taken, self._on_missed = on_up, on_down, on_taken, on_missed
        self._state = threading.Condition()
        self._ready: set[Channel] = set()
        self._is_stopped = False
        self._taken: Channel | None = None
        self._last_error: BrokerError | None = None
        self._outage_since: float | None = None
        self._reported_at = 0.0

    @property
    def is_up(self) -> bool:
        """True while all connections are ready."""
        return len(self._ready) == len(self._channels)

    def stop(self) -> bool:
        """Say nothing of what ends from now on; False if that was said before."""
        with self._state:
            was_stopped, self._is_stopped = self._is_stopped, True
        return not was_stopped

    def closed(self) -> None:
        """All connections have ended."""
        with self._state:
            self._ready.clear()
            self._state.notify_all()

    def wait_up(self, wait_s: float, client_id_of: Callable[[Channel], str]) -> None:
        """Wait until up. Raises SessionTaken, NotConnected if stopped, a lasting BrokerRefused, BrokerUnreachable."""

        def settled() -> bool:
            refused = isinstance(self._last_error, BrokerRefused) and self._last_error.lasting
            return self.is_up or self._taken is not None or refused or self._is_stopped

        with self._state:
            self._state.wait_for(settled, wait_s)
            if self.is_up:
                return
            error, taken = self._last_error, self._taken
        if taken is not None:
            raise SessionTaken(client_id_of(taken))
        if self._is_stopped:
            raise NotConnected(self._name, "it was stopped")
        raise error or BrokerUnreachable(self._address.host, self._address.port, f"not ready within {wait_s:.1f} s")

    def ready(self, channel: Channel) -> None:
        """A connection stands."""
        with self._state:
            self._ready.add(channel)
            if not self.is_up:
                return
            outage_since, self._outage_since = self._outage_since, None
            self._last_error = None
            self._state.notify_all()
            self._callbacks.post(self._on_up)
        if outage_since is not None:
            _log.info("%s: %s is back after %.1f s", self._name, self._address, time.monotonic() - outage_since)

    def lost(self, channel: Channel, reason: str) -> None:
        """A connection dropped."""
        with self._state:
            was_up = self.is_up
            self._ready.discard(channel)
            if was_up and not self._is_stopped:
                self._outage_since = self._outage_since or time.monotonic()
                text = f"{channel.value} connection to {self._address}: {reason}"
                self._callbacks.post(lambda: self._on_down(text))

    def failed(self, channel: Channel, error: BrokerError) -> None:
        """An attempt failed: say so, not every time."""
        with self._state:
            now = time.monotonic()
            is_new = self._outage_since is None or self._last_error is None
            self._outage_since = self._outage_since or now
            self._last_error = error
            self._state.notify_all()
            if not is_new and now - self._reported_at < self._report_every_s:
                return
            self._reported_at = now
        _log.warning("%s: %s (keeps trying, for %.0f s now)", self._name, error, now - self._outage_since)

    def missed(self, channel: Channel) -> None:
        """The broker dropped messages that were meant for this channel."""
        self._callbacks.post(lambda: self._on_missed(channel))

    def taken(self, channel: Channel) -> None:
        """Another client has this client id."""
        with self._state:
            self._ready.discard(channel)
            if self._taken is not None or self._is_stopped:
                return
            self._taken = channel
            self._state.notify_all()
        self._callbacks.post(lambda: self._on_taken(channel))
