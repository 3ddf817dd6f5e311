"""The one thread that touches a line: it connects, drives the line until it ends, waits, and connects again."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from broker.errors import BrokerError, BrokerRefused, BrokerUnreachable
from broker.line import Line, Opening
from broker.messages import Address, Limits
from broker.policy import Policy
from broker.throughput import Throughput
from broker.tls import explained
from broker.wake import Wake, enter_network_thread

if TYPE_CHECKING:
    from paho.mqtt.client import SocketLike  # exists for type checkers only

_log = logging.getLogger(__name__)
_POLL_S: Final = 1.0
_DISCONNECT_S: Final = 2.0
_MOST_READ: Final = 16
"""Packets that may be read before the thread's other work."""


class NetworkThread:
    """Runs until `is_stopping`. The connection says what the line told it: `connected`, `refused`, `ended`.

    `turn` is called before each wait for the socket, `lost` with the reason when a connection or an attempt has ended,
    `failed` when no address had a connection, `finished` last.
    """

    def __init__(
        self,
        name: str,
        line: Line,
        wake: Wake,
        address: Address,
        policy: Policy,
        limits: Limits,
        *,
        turn: Callable[[], None],
        lost: Callable[[str], None],
        failed: Callable[[BrokerError], None],
        finished: Callable[[], None],
    ) -> None:
        self._line, self._wake, self._address, self._policy, self._limits = line, wake, address, policy, limits
        self._turn, self._lost, self._failed, self._finished = turn, lost, failed, finished
        self._endpoint = (address.host, address.port)
        self._last_error: BrokerError | None = None
        self._noted = ""
        self.is_stopping = False
        self.connects_total = 0
        self.down = Throughput()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def connected(self) -> None:
        """A connection stands."""
        self.connects_total += 1

    def refused(self, error: BrokerRefused) -> None:
        """The broker does not want this client."""
        self._last_error = error

    def ended(self, reason: str) -> None:
        """The line has words for why there was no connection, such as those of TLS."""
        self._noted = reason

    def _run(self) -> None:
        enter_network_thread()
        delay_s = self._limits.reconnect_min_s
        while not self.is_stopping:
            if self._attempt():
                delay_s = self._limits.reconnect_min_s
            self._pause(delay_s * random.uniform(0.75, 1.25))
            delay_s = min(2 * delay_s, self._limits.reconnect_max_s)
        self._finished()

    def _attempt(self) -> bool:
        """Connect to the first address that answers. Returns whether there was a connection at all."""
        errors: list[BrokerError] = []
        for endpoint in self._address.endpoints:
            self._endpoint = endpoint
            error = self._attempt_here()
            if error is None or self.is_stopping:
                return error is None
            errors.append(error)
        self._failed(_one_of(errors))
        return False

    def _attempt_here(self) -> BrokerError | None:
        """Connect and stay connected as long as it lasts. Returns why there was no connection at all."""
        connects_before = self.connects_total
        self._last_error = None
        self._noted = ""
        try:
            self._connect()
            self._stay(connects_before)
        except (OSError, ValueError) as error:  # ValueError: a host that cannot be one
            self._last_error = self._unreachable(explained(error))
        except Exception as error:
            if not self.is_stopping:  # a callback that met a closed outbox
                _log.exception("%s: unexpected; connecting again", self.thread.name)
            self._last_error = self._unreachable(repr(error))
        self._line.close()
        self._lost(str(self._last_error or "the connection ended"))
        if self.connects_total > connects_before:
            return None
        return self._last_error or self._unreachable(
            explained(self._noted or "it closed the connection before CONNACK")
        )

    def _connect(self) -> None:
        policy, is_first = self._policy, self.connects_total == 0
        self._line.open(
            Opening(
                *self._endpoint,
                clean_start=policy.fresh_start and is_first,
                expiry_s=policy.expiry_s,
                receive_maximum=policy.receive_maximum,
                max_packet_bytes=None if policy.any_size else self._limits.max_packet_bytes,
            )
        )

    def _stay(self, connects_before: int) -> None:
        give_up = time.monotonic() + self._limits.connect_timeout_s
        stop_by: float | None = None
        while (sock := self._line.sock) is not None:
            now = time.monotonic()
            if self.connects_total == connects_before and now > give_up:
                raise TimeoutError(f"no CONNACK within {self._limits.connect_timeout_s:.1f} s")
            if self.is_stopping:
                stop_by = stop_by or now + _DISCONNECT_S
                if now > stop_by:  # a peer that does not read; it will notice that the line is gone
                    return
            self._drive(sock)

    def _drive(self, sock: SocketLike) -> None:
        self._wake.run_posted()
        self._turn()
        if self._line.sock is not sock:
            return
        pending = self._line.has_unread
        readable = self._wake.sleep(0.0 if pending else _POLL_S, other_fd=sock.fileno(), write=self._line.wants_write)
        if readable or pending:
            self._read()
        self._line.tick()

    def _read(self) -> None:
        """Read what has come: packets that are read already do not wait for a look at the socket."""
        for _ in range(_MOST_READ):
            self._read_once()
            if self._line.sock is None or not self._line.has_unread:
                return

    def _read_once(self) -> None:
        self.down.began(time.monotonic())
        nbytes, is_idle = self._line.read(), not self._line.is_amid_packet
        if nbytes or is_idle:
            self.down.moved(nbytes, time.monotonic(), is_idle=is_idle)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.is_stopping and (left := until - time.monotonic()) > 0:
            self._wake.sleep(left)
            self._wake.run_posted()

    def _unreachable(self, reason: str) -> BrokerUnreachable:
        return BrokerUnreachable(*self._endpoint, reason)


def _one_of(errors: Sequence[BrokerError]) -> BrokerError:
    """The error to show for all addresses: a refusal says more than silence."""
    refused = [error for error in errors if isinstance(error, BrokerRefused)]
    unreachable = [error for error in errors if isinstance(error, BrokerUnreachable)]
    if refused or len(unreachable) < len(errors) or len(errors) == 1:
        return (refused or errors)[0]
    first, *others = unreachable
    also = "".join(f"; nor at {error.host}:{error.port}: {error.reason}" for error in others)
    return BrokerUnreachable(first.host, first.port, first.reason + also)
