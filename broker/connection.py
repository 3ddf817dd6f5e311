"""One line to the broker and the one thread that touches it.

Knows how to stay connected, to deliver an outbox and to keep subscriptions. All of the line runs in one named thread;
other threads queue what they want and wake it.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Final

from broker.errors import BrokerError, BrokerRefused, BrokerUnreachable, PayloadTooLarge
from broker.inbox import Inbox
from broker.line import BROKEN, Accepted, Incoming, Opening
from broker.lines import new_line
from broker.messages import Address, Channel, Limits, Message, OwnershipToken, Will
from broker.mqtt.reasons import FAILURE, NO_SUBSCRIBERS, name_of
from broker.numbering import Numbers
from broker.outbox import Outbox, Outgoing
from broker.ownership import Ownership
from broker.packets import outgoing
from broker.policy import Listener, Policy
from broker.recovery import Recovery
from broker.repetition import Repetition
from broker.routes import Handler, Route
from broker.subscriptions import Suback, Subscriptions, raise_refusal, wait
from broker.throughput import Throughput
from broker.tls import explained
from broker.wake import Wake, enter_network_thread, in_network_thread
from broker.window import Window

if TYPE_CHECKING:
    from paho.mqtt.client import SocketLike  # exists for type checkers only

_log = logging.getLogger(__name__)
_POLL_S: Final = 1.0
_DISCONNECT_S: Final = 2.0
_AWAY_S: Final = 0.5
"""How long a thread that looks for the broker may take to end; it ends by itself when its attempt does."""


class Connection:
    """A connection that comes back by itself. Methods without underscore are thread safe."""

    def __init__(
        self,
        address: Address,
        *,
        client_id: str,
        thread_name: str,
        channel: Channel,
        policy: Policy,
        limits: Limits,
        listener: Listener,
        will: Will | None = None,
        ownership: OwnershipToken | None = None,
        max_bytes: Callable[[str], int | None] = lambda topic: None,
    ) -> None:
        self.client_id = client_id
        self.outbox = Outbox(thread_name, limit_bytes=policy.queue_bytes)
        self.inbox = Inbox(
            channel,
            receive_maximum=policy.receive_maximum,
            manual_ack=policy.manual_ack,
            send_ack=self._post_ack,
            max_bytes=max_bytes,
            missed=self._missed,
        )
        self._numbers = Numbers()
        self.max_packet_bytes: int | None = None
        self.sent_bytes_total = 0
        self.up, self.down = Throughput(), Throughput()
        self.connects_total = 0
        self._address, self._channel, self._policy, self._limits = address, channel, policy, limits
        self._listener = listener
        self._ownership = Ownership(ownership, self) if ownership is not None else None
        self._kept: dict[str, bytes] = {}
        self._kept_lock = threading.Lock()
        self._unready: set[object] = set()  # what has to be answered until this connection counts as ready
        self._connected = False
        self._window = Window()
        self._last_error: BrokerError | None = None
        self._noted = ""
        self._endpoint = (address.host, address.port)
        self._stopping = False
        self._wake = Wake()
        self._line = new_line(
            address, self, client_id=client_id, policy=policy, limits=limits, place=self.inbox.place, will=will
        )
        self._subscriptions = Subscriptions(self._line)
        self._recovery = Recovery(
            self.inbox.routes,
            self._subscriptions,
            asks_again=channel is Channel.CONTROL,
            tell=lambda: listener.missed(channel),
        )
        self._repetition = Repetition(ownership, self.inbox.routes, self._subscriptions, say=self._say_kept)
        self._thread = threading.Thread(target=self._run, name=thread_name, daemon=True)

    @property
    def sock(self) -> SocketLike | None:
        """The socket, None while there is no connection."""
        return self._line.sock

    def start(self) -> None:
        """Connect, in the background."""
        self._thread.start()

    def publish(self, item: Outgoing, *, wait_s: float | None) -> bool:
        """Queue a message; False when the rest of its bundle was lost before.

        Raises PayloadTooLarge, QueueFull, NotConnected (when stopped).
        """
        self._check_size(item)
        if item.qos == 0 and not self._connected:
            self.outbox.dropped_total += 1  # nothing could tell whether it was ever sent
            return True
        is_queued = self.outbox.put(item, wait_s=0.0 if in_network_thread() else wait_s)
        self._wake.nudge()
        return is_queued

    def keep(self, topic: str, payload: bytes) -> None:
        """Publish retained, now and at each connect. Raises PayloadTooLarge."""
        self._check_size(outgoing(topic, payload, retain=True))
        with self._kept_lock:
            self._kept[topic] = payload
            if self._connected:
                self.publish_kept(topic, payload)

    def unkeep(self, topic: str) -> None:
        """Do not publish it again at the next connect."""
        with self._kept_lock:
            self._kept.pop(topic, None)

    def subscribe(self, filters: Sequence[str], handler: Handler, *, qos: int, wait_s: float) -> None:
        """Remember and, when connected, wait for SUBACK. Raises BrokerRefused, SubscribeTimeout."""
        routes = [self.inbox.routes.add(filter_, handler, qos=qos) for filter_ in filters]
        self._wake.post(self.inbox.deliver_unclaimed)
        if not self._connected:
            return  # the next connect subscribes to everything that is remembered
        answers: list[Suback] = [Future() for _ in routes]
        for route, answer in zip(routes, answers, strict=True):
            self._wake.post(partial(self._subscriptions.send, route, answer))
        if not in_network_thread():
            wait(filters, answers, wait_s)

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """Forget filters with all of their handlers."""
        gone = [filter_ for filter_ in filters if self.inbox.routes.remove(filter_)]
        if gone:
            self._wake.post(partial(self.inbox.gaps.unsubscribed, gone))
            self._wake.post(partial(self._subscriptions.withdraw, gone))

    def stop(self, *, wait_s: float, leave_session: bool = False, comes_back: bool = True) -> None:
        """DISCONNECT with reason 0, so that no will is sent, and join the thread. What is still queued is dropped.

        With `leave_session`, whatever the broker holds for this client id stays, for another client that has it; so it
        does where the policy says so, for one that `comes_back`.
        """
        self._stopping = True
        kept = self._policy.keep_on_stop and comes_back
        self.outbox.close()
        if self._thread.ident is None:  # never started
            self._wake.close()
            return
        # a clean stop needs no session to come back to, except where the broker collects work for the next process
        keep_session = leave_session or kept
        self._wake.post(lambda: self._line.disconnect(keep_session=keep_session))
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            # without a connection there is nothing to say goodbye to; a name may take most of a minute to resolve
            was_up = self._connected
            self._thread.join(wait_s if was_up else min(wait_s, _AWAY_S))
            if self._thread.is_alive() and was_up:
                _log.warning("%s did not end within %.1f s", self._thread.name, wait_s)

    # The rest runs in the network thread.

    def _run(self) -> None:
        enter_network_thread()
        delay_s = self._limits.reconnect_min_s
        while not self._stopping:
            if self._attempt():
                delay_s = self._limits.reconnect_min_s
            self._pause(delay_s * random.uniform(0.75, 1.25))
            delay_s = min(2 * delay_s, self._limits.reconnect_max_s)
        self.outbox.close()
        self._wake.close()

    def _attempt(self) -> bool:
        """Connect to the first address that answers. Returns whether there was a connection at all."""
        errors: list[BrokerError] = []
        for endpoint in self._address.endpoints:
            self._endpoint = endpoint
            error = self._attempt_here()
            if error is None or self._stopping:
                return error is None
            errors.append(error)
        self._listener.failed(self._channel, _one_of(errors))
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
            if not self._stopping:  # a callback that met a closed outbox
                _log.exception("%s: unexpected; connecting again", self._thread.name)
            self._last_error = self._unreachable(repr(error))
        self._line.close()
        self._mark_lost(str(self._last_error or "the connection ended"))
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
                max_packet_bytes=self._limits.max_packet_bytes,
            )
        )

    def _stay(self, connects_before: int) -> None:
        give_up = time.monotonic() + self._limits.connect_timeout_s
        stop_by: float | None = None
        while (sock := self._line.sock) is not None:
            now = time.monotonic()
            if self.connects_total == connects_before and now > give_up:
                raise TimeoutError(f"no CONNACK within {self._limits.connect_timeout_s:.1f} s")
            if self._stopping:
                stop_by = stop_by or now + _DISCONNECT_S
                if now > stop_by:  # a peer that does not read; it will notice that the line is gone
                    return
            self._turn(sock)

    def _turn(self, sock: SocketLike) -> None:
        self._wake.run_posted()
        if self._connected:
            self._recovery.due(time.monotonic())
            self._repetition.due(time.monotonic())
        if self._line.wants_write:
            self._line.write()
        self._drain()
        if self._line.sock is not sock:
            return
        pending = self._line.has_unread
        readable = self._wake.sleep(0.0 if pending else _POLL_S, other_fd=sock.fileno(), write=self._line.wants_write)
        if readable or pending:
            self._read()
        self._line.tick()

    def _read(self) -> None:
        self.down.began(time.monotonic())
        nbytes, is_idle = self._line.read(), not self._line.is_amid_packet
        if nbytes or is_idle:
            self.down.moved(nbytes, time.monotonic(), is_idle=is_idle)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping and (left := until - time.monotonic()) > 0:
            self._wake.sleep(left)
            self._wake.run_posted()

    def _drain(self) -> None:
        # one at a time: the first byte should leave before the last chunk is taken, and what is taken cannot expire
        while self._connected and not self._line.wants_write:
            item = self.outbox.take(self._window.size)
            if item is None:
                return
            try:
                self._check_size(item)
            except PayloadTooLarge as error:
                # accepted before the broker's limit was known, or the broker came back with a smaller one
                _log.error("%s: dropped: %s", self._thread.name, error)
                self.outbox.dropped(item)
                continue
            self.up.began(time.monotonic())
            try:
                mid = self._line.publish(
                    item,
                    remaining_s=item.remaining_s(time.monotonic()),
                    number=self._numbers.next(item) if item.qos else None,
                )
            except ValueError as error:
                # taken from the queue and not in flight: nobody else could settle it any more
                _log.error("%s: a message on %s is not sent: %s", self._thread.name, item.topic, error)
                self.outbox.dropped(item)
                continue
            self.outbox.sent(mid, item)
            self.sent_bytes_total += item.size
            self._line.write()

    # What the line tells (broker.line.LineUser).

    def accepted(self, answer: Accepted) -> None:
        """A connection stands: ask for everything that is remembered."""
        self._window.connected(min(answer.receive_maximum, self._limits.max_inflight_messages))
        self.max_packet_bytes = answer.max_packet_bytes
        self.inbox.redelivery.connected(resumed=answer.session_present)
        self.inbox.gaps.connected(resumed=answer.session_present)
        self._numbers.connected()
        self.connects_total += 1
        self._unready = {self}  # until everything below is under way
        self._connected = True
        self._subscriptions.connected(with_identifiers=answer.has_identifiers)
        for route in self.inbox.routes.all():
            self._resubscribe(route)
        with self._kept_lock:
            for topic, payload in self._kept.items():
                self.publish_kept(topic, payload, then=lambda _delivered: None)
        if self._ownership is not None:
            self._ownership.connected(resumed=answer.session_present)
        self._answered(self)

    def refused(self, code: int) -> None:
        """The broker does not want this client."""
        self._last_error = BrokerRefused(f"{self.client_id} at CONNECT", code=code, reason=name_of(code))

    def ended(self, reason: str, *, is_taken_over: bool) -> None:
        """The connection is gone."""
        if not self._connected and reason != BROKEN:
            self._noted = reason  # such as what TLS has words for
        if is_taken_over:
            self._give_way(reason)
        self._mark_lost(reason)

    def subscribed(self, mid: int, codes: Sequence[int]) -> None:
        """SUBACK."""
        self._subscriptions.answered(mid, codes)

    def published(self, mid: int, code: int) -> None:
        """The broker has a message, or has refused it."""
        item = self.outbox.acked(mid, accepted=code < FAILURE)
        if item is None:
            return
        self._window.acked()
        self.up.moved(item.size, time.monotonic(), is_idle=self.outbox.in_flight == 0)
        if code == NO_SUBSCRIBERS and item.unread is not None:
            item.unread()
        if code >= FAILURE:
            _log.error("%s", BrokerRefused(f"a message on {item.topic}", code=code, reason=name_of(code)))

    def arrived(self, message: Incoming) -> None:
        """A message came."""
        self.up.opposed(self.down, time.monotonic())
        self.inbox.arrived(message)

    # What the ownership of the client id needs (broker.ownership.Owner).

    def publish_kept(self, topic: str, payload: bytes, *, then: Callable[[bool], None] | None = None) -> None:
        """Queue what must not be resent from the queue. With `then`, the connection is not ready before it settles."""
        item = outgoing(topic, payload, retain=True)
        item.kept = True
        if then is not None:

            def settled(delivered: bool) -> None:
                then(delivered)
                self._answered(item)

            self._unready.add(item)
            item.settled = settled
        self.outbox.put(item, wait_s=0.0)
        self._wake.nudge()

    @property
    def is_stopping(self) -> bool:
        """It is on its way out."""
        return self._stopping

    def claimed(self) -> None:
        """The broker retains our token."""
        self._repetition.claimed(time.monotonic())

    def watch(self, topic: str, handler: Handler) -> None:
        """Subscribe, before this connection counts as ready."""
        self._resubscribe(self.inbox.routes.add(topic, handler, qos=1))

    def leave(self, reason: str) -> None:
        """Leave the client id, and its session, to another process."""
        self._line.disconnect(keep_session=True)
        self._give_way(reason)

    def refuse(self, message: Message, why: str) -> None:
        """Count a message that is dropped, and say so now and then."""
        self.inbox.refused.add(message.topic, f"{message.topic}: {why}")

    def _give_way(self, reason: str) -> None:
        self._stopping = True  # two nodes with one id would otherwise throw each other out for ever
        self._mark_lost(reason)
        self._listener.taken(self._channel)

    def _missed(self, topic: str) -> None:
        self._recovery.missed(topic)

    def _post_ack(self, mid: int) -> None:
        connection = self.connects_total

        def send() -> None:
            # after a reconnect the broker sends the message again, and is answered then
            if self._connected and connection == self.connects_total:
                self._line.acknowledge(mid)

        self._wake.post(send)

    def _say_kept(self) -> None:
        with self._kept_lock:
            for topic, payload in self._kept.items():
                self.publish_kept(topic, payload)

    def _resubscribe(self, route: Route) -> None:
        """Subscribe where nobody waits, except for this connection to become ready."""
        answer: Suback = Future()
        self._unready.add(answer)
        answer.add_done_callback(partial(self._resubscribed, route.filter))
        self._subscriptions.send(route, answer)

    def _resubscribed(self, filter_: str, answer: Suback) -> None:
        try:
            raise_refusal(filter_, answer.result())
        except BrokerRefused as error:
            _log.error("%s: %s", self._thread.name, error)  # nobody waits who could be told
        self._answered(answer)

    def _answered(self, what: object) -> None:
        if what in self._unready:
            self._unready.discard(what)
            if not self._unready and self._connected and not self._stopping:
                self._listener.ready(self._channel)

    def _mark_lost(self, reason: str) -> None:
        if not self._connected:
            return
        self._connected = False
        self._unready.clear()
        if self._ownership is not None:
            self._ownership.lost()
            self.inbox.routes.remove(self._ownership.topic)  # watched again once the next connect has looked into it
        self.inbox.redelivery.lost()
        self._subscriptions.lost()
        self._repetition.lost()
        self._window.lost(self.outbox.in_flight)
        self.outbox.lost()
        self.up.lost()
        self.down.lost()
        if not self._stopping:
            self._listener.lost(self._channel, reason)

    def _check_size(self, item: Outgoing) -> None:
        if self.max_packet_bytes is not None and item.size > self.max_packet_bytes:
            raise PayloadTooLarge(topic=item.topic, size=item.size, limit=self.max_packet_bytes)

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
