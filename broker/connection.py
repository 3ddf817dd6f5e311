"""One line to the broker and the one thread that touches it.

Knows how to stay connected, to deliver an outbox and to keep subscriptions. All of the line runs in one named thread;
other threads queue what they want and wake it.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial
from typing import TYPE_CHECKING, Final

from broker.errors import BrokerRefused
from broker.inbox import Inbox
from broker.kept import Kept
from broker.line import BROKEN, Accepted, Incoming
from broker.lines import new_line
from broker.messages import Address, Channel, Limits, Message, OwnershipToken, Will
from broker.mqtt.reasons import name_of
from broker.network_thread import NetworkThread
from broker.outbox import Outbox, Outgoing
from broker.ownership import Ownership
from broker.packets import outgoing
from broker.policy import Listener, Policy
from broker.recovery import Recovery
from broker.repetition import Repetition
from broker.routes import Handler, Route
from broker.sender import Sender
from broker.subscriptions import Suback, Subscriptions, raise_refusal, wait
from broker.throughput import Throughput
from broker.wake import Wake, in_network_thread

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
        self.client_id, self._name = client_id, thread_name
        self.outbox = Outbox(thread_name, limit_bytes=policy.queue_bytes)
        self.inbox = Inbox(
            channel,
            receive_maximum=policy.receive_maximum,
            manual_ack=policy.manual_ack,
            send_ack=self._post_ack,
            max_bytes=max_bytes,
            missed=self._missed,
        )
        self._address, self._channel, self._policy, self._limits = address, channel, policy, limits
        self._listener = listener
        self._ownership = Ownership(ownership, self) if ownership is not None else None
        self._kept = Kept(self._publish_if_connected)
        self._unready: set[object] = set()  # what has to be answered until this connection counts as ready
        self._connected = False
        self._wake = Wake()
        self._line = new_line(
            address, self, client_id=client_id, policy=policy, limits=limits, place=self.inbox.place, will=will
        )
        self._sender = Sender(thread_name, self.outbox, self._line, most_inflight=limits.max_inflight_messages)
        self._subscriptions = Subscriptions(self._line)
        self._recovery = Recovery(
            self.inbox.routes,
            self._subscriptions,
            asks_again=channel is Channel.CONTROL,
            tell=lambda: listener.missed(channel),
        )
        self._repetition = Repetition(
            ownership,
            self.inbox.routes,
            self._subscriptions,
            say=lambda: self._kept.publish_all(self.publish_kept),
        )
        self._network = NetworkThread(
            thread_name,
            self._line,
            self._wake,
            address,
            policy,
            limits,
            turn=self._turn,
            lost=self._mark_lost,
            failed=partial(listener.failed, channel),
            finished=self._finished,
        )

    @property
    def sock(self) -> SocketLike | None:
        """The socket, None while there is no connection."""
        return self._line.sock

    @property
    def local_host(self) -> str | None:
        """This machine's address on the way to the broker, None while there is no connection."""
        sock = self._line.sock
        try:
            return str(sock.getsockname()[0]) if isinstance(sock, socket.socket) else None
        except OSError:
            return None

    @property
    def max_packet_bytes(self) -> int | None:
        """The broker's Maximum Packet Size, from the last CONNACK; None: unlimited, or not connected yet."""
        return self._sender.max_packet_bytes

    @property
    def sent_bytes_total(self) -> int:
        """Bytes of the PUBLISH packets sent, repetitions included."""
        return self._sender.sent_bytes_total

    @property
    def up(self) -> Throughput:
        """Throughput to the broker, from a message's first byte to its acknowledgement."""
        return self._sender.up

    @property
    def down(self) -> Throughput:
        """Throughput from the broker, from a message's first byte here to its last."""
        return self._network.down

    @property
    def connects_total(self) -> int:
        """Connections made so far."""
        return self._network.connects_total

    def start(self) -> None:
        """Connect, in the background."""
        self._network.thread.start()

    def publish(self, item: Outgoing, *, wait_s: float | None) -> bool:
        """Queue a message; False when the rest of its bundle was lost before.

        Raises PayloadTooLarge, QueueFull, NotConnected (when stopped).
        """
        self._sender.check_size(item)
        if item.qos == 0 and not self._connected:
            self.outbox.dropped_total += 1  # nothing could tell whether it was ever sent
            return True
        is_queued = self.outbox.put(item, wait_s=0.0 if in_network_thread() else wait_s)
        self._wake.nudge()
        return is_queued

    def withdraw(self, wait_s: float) -> list[Outgoing]:
        """Take no more messages, and give up, in order, those that were not acknowledged."""
        left: Future[list[Outgoing]] = Future()
        # in the connection's thread nothing is between queue and line
        self._wake.post(lambda: left.set_result(self.outbox.shut()))
        try:
            return left.result(wait_s if self._connected else 0.0)
        except FutureTimeout:
            return self.outbox.shut()

    def inherit(self, items: Sequence[Outgoing]) -> None:
        """Queue what another connection had to send and gives up, with all that was not acknowledged there."""
        self.outbox.inherit(items)
        self._wake.nudge()

    def keep(self, topic: str, payload: bytes, *, at_connect: bool = True) -> None:
        """Publish retained, now and at each connect. Raises PayloadTooLarge."""
        self._sender.check_size(outgoing(topic, payload, retain=True))
        self._kept.put(topic, payload, at_connect=at_connect)

    def unkeep(self, topic: str) -> None:
        """Do not publish it again at the next connect."""
        self._kept.drop(topic)

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
        self._network.is_stopping = True
        kept = self._policy.keep_on_stop and comes_back
        self.outbox.close()
        thread = self._network.thread
        if thread.ident is None:  # never started
            self._wake.close()
            return
        # a clean stop needs no session to come back to, except where the broker collects work for the next process
        keep_session = leave_session or kept
        self._wake.post(lambda: self._line.disconnect(keep_session=keep_session))
        if thread.is_alive() and thread is not threading.current_thread():
            # without a connection there is nothing to say goodbye to; a name may take most of a minute to resolve
            was_up = self._connected
            thread.join(wait_s if was_up else min(wait_s, _AWAY_S))
            if thread.is_alive() and was_up:
                _log.warning("%s did not end within %.1f s", thread.name, wait_s)

    # The rest runs in the network thread.

    def _turn(self) -> None:
        if self._connected:
            self._recovery.due(time.monotonic())
            self._repetition.due(time.monotonic())
        if self._line.wants_write:
            self._line.write()
        self._sender.send_waiting()

    def _finished(self) -> None:
        self.outbox.close()
        self._wake.close()

    # What the line tells (broker.line.LineUser).

    def accepted(self, answer: Accepted) -> None:
        """A connection stands: ask for everything that is remembered."""
        self._sender.connected(answer)
        self.inbox.redelivery.connected(resumed=answer.session_present)
        self.inbox.gaps.connected(resumed=answer.session_present)
        self._network.connected()
        self._unready = {self}  # until everything below is under way
        self._connected = True
        self._subscriptions.connected(with_identifiers=answer.has_identifiers)
        for route in self.inbox.routes.all():
            self._resubscribe(route)
        self._kept.at_connect(partial(self.publish_kept, then=lambda _delivered: None))
        if self._ownership is not None:
            self._ownership.connected(resumed=answer.session_present)
        self._answered(self)

    def refused(self, code: int) -> None:
        """The broker does not want this client."""
        self._network.refused(BrokerRefused(f"{self.client_id} at CONNECT", code=code, reason=name_of(code)))

    def ended(self, reason: str, *, is_taken_over: bool) -> None:
        """The connection is gone."""
        if not self._connected and reason != BROKEN:
            self._network.ended(reason)
        if is_taken_over and self._policy.gives_way:
            self._give_way(reason)
        self._mark_lost(reason)

    def subscribed(self, mid: int, codes: Sequence[int]) -> None:
        """SUBACK."""
        self._subscriptions.answered(mid, codes)

    def published(self, mid: int, code: int) -> None:
        """The broker has a message, or has refused it."""
        self._sender.acked(mid, code)

    def arrived(self, message: Incoming) -> None:
        """A message came."""
        self._sender.up.opposed(self.down, time.monotonic())
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
        return self._network.is_stopping

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
        self._network.is_stopping = True  # two nodes with one id would otherwise throw each other out for ever
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

    def _publish_if_connected(self, topic: str, payload: bytes) -> None:
        if self._connected:
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
            _log.error("%s: %s", self._name, error)  # nobody waits who could be told
        self._answered(answer)

    def _answered(self, what: object) -> None:
        if what in self._unready:
            self._unready.discard(what)
            if not self._unready and self._connected and not self._network.is_stopping:
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
        self._sender.lost()
        self.down.lost()
        if not self._network.is_stopping:
            self._listener.lost(self._channel, reason)
