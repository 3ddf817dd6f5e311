"""A node's presence at the broker: its connections as one thing that is up or down.

Knows channels, kept messages, requests and the will; knows nothing of what payloads mean.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final

from broker.availability import Availability
from broker.callbacks import Callbacks
from broker.connection import Connection
from broker.errors import (
    BrokerError,
    BrokerRefused,
    NotConnected,
    SessionTaken,
    TopicOverfull,
)
from broker.messages import Address, Channel, Delivery, Limits, Message, OwnershipToken, Payload, Will, nbytes_of
from broker.outbox import Bundle
from broker.packets import outgoing
from broker.policy import policies
from broker.requests import Requests
from broker.routes import Handler
from broker.throughput import Throughput
from broker.wake import in_network_thread

__all__ = ["Address", "Channel", "Delivery", "Handler", "Limits", "Message", "Session", "Will"]

_DEFAULT_LIMITS: Final = Limits()
_JOIN_S: Final = 10.0


class Session:
    """Connections of one node: CONTROL, BULK and, with `takes_frames`, FRAMES and RESULTS.

    It is *up* when all are connected, all subscriptions acknowledged and all kept messages delivered. It comes back by
    itself for as long as it is not stopped, and not taken over by another client with its id.

    Args:
        name: unique in its `scope`, such as `edge-1`.
        scope: a pipeline; the client ids are `trisect.<scope>.<name>.control` and so on. Neither has a dot, so that no
            two of them make the same one.
        secret: ends the client ids, where a broker lets other clients in that must not take this one's place: with
            another user's client id they would end its connection, and no mosquitto binds client ids to certificates.
        token: distinguishes this process from an earlier one of the same name.
        is_new_name: nobody had this name before, as with a random one. Then no message is missed on CONTROL while a
            broker with persistence restarts.
        max_bytes: the most that a payload on a topic may have, None for any; what has more is not sent, and dropped on
            its arrival.
        will: published by the broker, retained, when the node is gone without `stop`. The topic `owner` next to it
            then distinguishes two processes with one name, which the broker itself does not.
        on_up, on_down, on_taken: called one at a time, in order, in the thread `<name>.events`, where they may publish,
            subscribe and wait.
        on_missed: called there, too, when the broker has dropped messages for a channel: once for all within a second.

    Handlers given to `subscribe` run in network threads: they must hand over and return. Nothing waits in there:
    publish raises QueueFull at once, subscribe does not wait for SUBACK.
    """

    def __init__(
        self,
        address: Address,
        *,
        name: str,
        token: str,
        scope: str = "",
        secret: str = "",
        will: Will | None = None,
        takes_frames: bool = False,
        is_new_name: bool = False,
        on_up: Callable[[], None] = lambda: None,
        on_down: Callable[[str], None] = lambda reason: None,
        on_taken: Callable[[SessionTaken], None] = lambda taken: None,
        on_missed: Callable[[Channel], None] = lambda channel: None,
        limits: Limits = _DEFAULT_LIMITS,
        max_bytes: Callable[[str], int | None] = lambda topic: None,
    ) -> None:
        self.address, self.name, self.token = address, name, token
        self._on_taken, self._max_bytes = on_taken, max_bytes
        full_name = ".".join(("trisect", *filter(None, (scope, name))))
        # next to the will, so that the right to write below the node's own name is enough
        self._ownership = OwnershipToken(f"{will.topic.rpartition('/')[0]}/owner", token.encode()) if will else None
        self._start_lock = threading.Lock()
        self._started = False
        self._callbacks = Callbacks(name)
        channels = policies(limits, takes_frames=takes_frames, is_new_name=is_new_name)
        self._availability = Availability(
            name,
            address,
            channels.keys(),
            self._callbacks,
            report_every_s=limits.report_every_s,
            on_up=on_up,
            on_down=on_down,
            on_taken=self._leave_field,
            on_missed=on_missed,
        )
        self._requests = Requests(self)
        self._connections = {
            channel: Connection(
                address,
                client_id=".".join((full_name, channel.value, *filter(None, (secret,)))),
                thread_name=f"{name}.{channel.value}",
                channel=channel,
                policy=policy,
                limits=limits,
                listener=self._availability,
                will=will if channel is Channel.CONTROL else None,
                ownership=self._ownership if channel is Channel.CONTROL else None,
                max_bytes=max_bytes,
            )
            for channel, policy in channels.items()
        }

    @property
    def is_up(self) -> bool:
        """True while all connections are ready."""
        return self._availability.is_up

    @property
    def max_packet_bytes(self) -> int | None:
        """The broker's Maximum Packet Size, from the last CONNACK; None: unlimited, or not connected yet."""
        return self._connections[Channel.BULK].max_packet_bytes

    @property
    def bulk(self) -> Connection:
        """The connection of the bulk channel, for what goes another way as well (`broker.direct`)."""
        return self._connections[Channel.BULK]

    @property
    def local_host(self) -> str | None:
        """The address from which this machine reaches the broker, None while there is no connection."""
        return self.bulk.local_host

    @property
    def up(self) -> Throughput:
        """Throughput of the bulk channel to the broker, from a message's first byte to its acknowledgement."""
        return self._connections[Channel.BULK].up

    @property
    def down(self) -> Throughput:
        """Throughput of the bulk channel from the broker, from a message's first byte here to its last."""
        return self._connections[Channel.BULK].down

    @property
    def sent_bytes_total(self) -> int:
        """Bytes of all PUBLISH packets sent, repetitions included."""
        return sum(connection.sent_bytes_total for connection in self._connections.values())

    @property
    def received_bytes_total(self) -> int:
        """Bytes of all payloads received."""
        return sum(connection.inbox.received_bytes_total for connection in self._connections.values())

    @property
    def queued_bytes(self) -> int:
        """Bytes published and not yet acknowledged, over all channels."""
        return sum(connection.outbox.queued_bytes for connection in self._connections.values())

    def connects_total(self, channel: Channel) -> int:
        """Connections made on this channel so far."""
        return self._connections[channel].connects_total

    def open_total(self, channel: Channel) -> int:
        """Messages received on this channel that are not acknowledged yet."""
        return self._connections[channel].inbox.redelivery.open_count

    @property
    def dropped_total(self) -> int:
        """Messages given up: QoS 0 without a connection, expired ones, ones too large for a new broker."""
        boxes = [connection.outbox for connection in self._connections.values()]
        return sum(box.dropped_total + box.expired_total for box in boxes)

    @property
    def refused_total(self) -> int:
        """Messages that were dropped on their arrival: too large, or an ownership token that cannot be one."""
        return sum(connection.inbox.refused.total for connection in self._connections.values())

    @property
    def missed_total(self) -> int:
        """Messages that were meant for this session and that the broker dropped or let expire, as far as it shows."""
        return sum(connection.inbox.gaps.total for connection in self._connections.values())

    @property
    def internal_errors_total(self) -> int:
        """Faults of handlers and callbacks, of which each has cost the message or the call that it came with."""
        return self._callbacks.failures.total + sum(c.inbox.failures.total for c in self._connections.values())

    @property
    def reconnects_total(self) -> int:
        """Connections made again after the first, over all channels."""
        return sum(max(0, connection.connects_total - 1) for connection in self._connections.values())

    def start(self, wait_s: float | None = None) -> Session:
        """Connect in the background and, with `wait_s`, wait until up.

        Raises after waiting in vain: BrokerUnreachable; at once: BrokerRefused (e.g. a wrong password), SessionTaken.
        It goes on trying after BrokerUnreachable, until stopped. A second start only waits.
        """
        with self._start_lock:
            is_first, self._started = not self._started, True
        if is_first:
            self._callbacks.start()
            for connection in self._connections.values():
                connection.start()
        if wait_s is not None:
            self._availability.wait_up(wait_s, lambda channel: self._connections[channel].client_id)
        return self

    def stop(self, final: Mapping[str, bytes] | None = None, *, wait_s: float = 5.0, comes_back: bool = True) -> None:
        """Say goodbye: deliver what is queued, then `final` (topic -> payload, retained), then DISCONNECT; no will.

        Waits at most `wait_s` for acknowledgements; without a connection it does not wait at all. For one that
        `comes_back`, the broker collects frames meanwhile.
        """
        if not self._availability.stop():
            return
        self._callbacks.expect_end()
        give_up = time.monotonic() + wait_s
        control = self._connections[Channel.CONTROL]
        if self.is_up:
            # half of the time at most, so that a stuck tensor does not cost the last words
            for channel in self._connections.keys() - {Channel.CONTROL}:
                self._connections[channel].outbox.wait_empty(max(0.0, give_up - wait_s / 2 - time.monotonic()))
            ownership = {self._ownership.topic: b""} if self._ownership else {}
            for topic, payload in {**ownership, **(final or {})}.items():
                control.unkeep(topic)
                control.publish(outgoing(topic, payload, retain=True), wait_s=max(0.0, give_up - time.monotonic()))
            control.outbox.wait_empty(max(0.0, give_up - time.monotonic()))
        self._close(comes_back=comes_back)

    def __enter__(self) -> Session:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def subscribe(
        self,
        filters: Sequence[str],
        handler: Handler,
        *,
        channel: Channel = Channel.CONTROL,
        qos: int = 1,
        wait_s: float = 5.0,
    ) -> None:
        """Have messages handed to `handler`, now and after each reconnect. Waits for SUBACK when connected.

        Raises BrokerRefused, SubscribeTimeout. A filter given twice, with two handlers, goes to both.
        """
        self._connection(channel).subscribe(filters, handler, qos=qos, wait_s=wait_s)

    def unsubscribe(self, filters: Sequence[str], *, channel: Channel = Channel.CONTROL) -> None:
        """Forget filters, with all of their handlers."""
        self._connection(channel).unsubscribe(filters)

    def publish(
        self,
        topic: str,
        payload: Payload,
        *,
        qos: int = 1,
        retain: bool = False,
        channel: Channel = Channel.CONTROL,
        expiry_s: float | None = None,
        response_topic: str | None = None,
        correlation: bytes | None = None,
        traceparent: str | None = None,
        wait_s: float | None = 10.0,
        repeated: bool = True,
        settled: Callable[[bool], None] | None = None,
        unread: Callable[[], None] | None = None,
        refused: Callable[[BrokerRefused], None] | None = None,
        bundle: Bundle | None = None,
    ) -> bool:
        """Queue a message; wait up to `wait_s` (None: for ever) while the channel's bytes are at their bound.

        Without a connection QoS 1 waits in the queue, within the same bound, and is sent, in order, at the next connect
        unless `expiry_s` has passed; QoS 0 is dropped and counted. After a lost connection unacknowledged QoS 1
        messages are sent again, so that a receiver may see one twice; not so what is not to be `repeated`. `settled` is
        told, in some thread, whether the broker acknowledged it; False leaves open whether it has it. `unread` is
        called when the broker says that nobody subscribes to the topic, `refused` when it will never take the message,
        which is logged otherwise. Returns False, and has queued nothing, when
        the rest of its `bundle` was lost before.

        Raises PayloadTooLarge and TopicOverfull before a byte leaves, QueueFull, NotConnected (only when stopped).
        """
        most = self._max_bytes(topic)
        if most is not None and nbytes_of(payload) > most:
            raise TopicOverfull(topic=topic, size=nbytes_of(payload), limit=most)
        item = outgoing(
            topic,
            payload,
            qos=qos,
            retain=retain,
            expiry_s=expiry_s,
            response_topic=response_topic,
            correlation=correlation,
            traceparent=traceparent,
        )
        item.repeated, item.settled, item.unread, item.refused, item.bundle = repeated, settled, unread, refused, bundle
        return self._connection(channel).publish(item, wait_s=wait_s)

    def keep(self, topic: str, payload: bytes, *, at_connect: bool = True) -> None:
        """Publish retained on CONTROL, now and at each connect: a broker without persistence forgets.

        What the caller says itself at each connect, in new words, is not for `at_connect`.
        """
        self._connections[Channel.CONTROL].keep(topic, payload, at_connect=at_connect)

    def unkeep(self, topic: str) -> None:
        """Keep it no longer, and leave to the broker what it has."""
        self._connections[Channel.CONTROL].unkeep(topic)

    def forget(self, topic: str) -> None:
        """Remove a retained message from the broker, and keep it no longer."""
        self._connections[Channel.CONTROL].unkeep(topic)
        self.publish(topic, b"", retain=True)

    def request(
        self,
        topic: str,
        payload: bytes,
        *,
        reply_topic: str,
        timeout_s: float,
        correlation: bytes | None = None,
        id_of: Callable[[bytes], bytes | None] = lambda reply: None,
    ) -> bytes:
        """Publish with a response topic and correlation data, and return the payload of the reply.

        A reply without correlation data is known by `id_of` it, where `correlation` stands in the payload as well.
        Raises RequestTimeout, BrokerRefused. It waits, so it must not be called in a handler.
        """
        if in_network_thread():
            raise BrokerError(f"request({topic}) waits, and a handler must not; call it in another thread")
        return self._requests.ask(
            topic, payload, reply_topic=reply_topic, timeout_s=timeout_s, correlation=correlation, id_of=id_of
        )

    def _leave_field(self, channel: Channel) -> None:
        """Leave the broker to the other client that has our id."""
        for connection in self._connections.values():
            connection.stop(wait_s=_JOIN_S, leave_session=True)
        self._on_taken(SessionTaken(self._connections[channel].client_id))

    def _connection(self, channel: Channel) -> Connection:
        if channel not in self._connections:
            raise NotConnected(self.name, f"it was made without {channel.name}; pass takes_frames=True")
        return self._connections[channel]

    def _close(self, *, comes_back: bool) -> None:
        # the control connection last: while it stands, a fault would still be told by the will
        for connection in reversed(self._connections.values()):
            connection.stop(wait_s=_JOIN_S, comes_back=comes_back)
        self._availability.closed()
        self._callbacks.stop(_JOIN_S)
