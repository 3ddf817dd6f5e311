"""A node's part in the direct way: its port, who may come to it, and its ways to the nodes that it sends tensors to.

Nodes say where they listen in their info, on the broker, and that they live in their state; each end is held against
both, so that a way leads from one living process of the pipeline to another, as far as the broker keeps others out.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from types import TracebackType

import psutil

from broker import acl, topics
from broker.complaints import Complaints
from broker.direct.listener import DirectListener
from broker.direct.ways import Destination, DirectWays
from broker.errors import BrokerError
from broker.inbox import Inbox
from broker.messages import Channel, Limits, Message, Payload
from broker.mqtt.packets import Connect
from broker.topics import Namespace
from nodes.config.sections import Config
from nodes.protocol.messages import DirectAddress, LifeState, NodeInfo, NodeState
from nodes.protocol.reports import direct_metric
from nodes.session.presence import Presence
from nodes.session.worker_thread import Worker
from pipeline.plan import NodeId
from pipeline.ranges import MOST_NODES

_log = logging.getLogger(__name__)

MOST_HOSTS = 8
TENSORS = frozenset({topics.OUT, topics.TILE, topics.TILED, topics.NODE_RESULT})
"""What may go directly."""
PACKET_BYTES = topics.CHUNK_LIMIT + topics.MIB
"""The largest chunk, with room for its topic and properties."""
_GONE = frozenset({LifeState.LOST, LifeState.STOPPED})


class Direct:
    """A context: it listens from entry on, if the configuration has it, and closes all at the end.

    `publish` in any thread, and off or on: what has no direct way goes through the broker.
    """

    def __init__(self, config: Config, names: Namespace, presence: Presence) -> None:
        self._config, self._names, self._presence = config, names, presence
        self._node, self._session = presence.node, presence.session
        self.is_on = config.transport.direct
        self._sessions: dict[NodeId, str] = {}
        self._infos: dict[NodeId, NodeInfo] = {}
        self._needed: dict[object, frozenset[NodeId]] = {}
        self._port = 0
        self._said: DirectAddress | None = None
        self._complaints = Complaints(_log)
        self._may_write = lru_cache(4096)(self._may_write_uncached)
        limits = Limits(keepalive_s=config.transport.keepalive_s)
        tls = self._session.address.tls
        bulk = self._session.bulk.inbox
        self._inbox = Inbox(
            Channel.BULK,
            receive_maximum=None,
            manual_ack=False,
            send_ack=lambda mid: None,
            max_bytes=names.max_bytes,
            routes=bulk.routes,
        )
        self._ways = DirectWays(self._session, name=str(self._node), tls=tls, users=self._users, limits=limits)
        self.worker: Worker[Callable[[], None]] = Worker(f"{self._node}.ways", lambda job: job())
        self._listener: DirectListener | None = None
        if self.is_on:
            self._listener = DirectListener(
                f"{self._node}.direct",
                self._inbox,
                tls=tls,
                admit=self._admit,
                may_write=self._may_write,
                limits=limits,
                most_bytes=PACKET_BYTES,
            )

    def __enter__(self) -> Direct:
        if self._listener is not None:
            section = self._config.nodes[self._node].direct
            self._port = self._listener.start(section.listen_host, section.listen_port or section.port or 0)
            self.worker.start()
            self._session.subscribe([self._names.filter(topics.STATE)], self._on_state)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listener is not None:
            self.worker.stop()
            self._ways.stop()
            self._listener.stop()

    def address(self) -> DirectAddress | None:
        """Where others find this node, for its info; None while it does not listen, or knows no address of its own."""
        if self._listener is None:
            return None
        section = self._config.nodes[self._node].direct
        hosts = (section.host,) if section.host is not None else hosts_from(self._session.local_host)
        self._said = DirectAddress(hosts, section.port or self._port) if hosts else None
        return self._said

    def has_moved(self) -> bool:
        """True when what was said of its address is not so any more."""
        return self._said != self.address()

    def follow(self, key: object, peers: Iterable[NodeId]) -> None:
        """Have ways to these nodes until `forget(key)`."""
        if self.is_on:
            self.worker.put(partial(self._need, key, frozenset(peers) - {self._node}))

    def forget(self, key: object) -> None:
        """Have no ways any more that were for `key` alone."""
        if self.is_on:
            self.worker.put(partial(self._need, key, frozenset()))

    def publish(
        self,
        topic: str,
        payload: Payload,
        *,
        to: NodeId | None,
        expiry_s: float | None,
        wait_s: float | None,
        traceparent: str | None = None,
    ) -> None:
        """See `broker.direct.ways.DirectWays.publish`."""
        self._ways.publish(topic, payload, to=to, expiry_s=expiry_s, traceparent=traceparent, wait_s=wait_s)

    @property
    def sent_bytes_total(self) -> int:
        """Bytes of the packets that went directly."""
        return self._ways.sent_bytes_total

    @property
    def received_bytes_total(self) -> int:
        """Bytes of all payloads that came directly."""
        return self._inbox.received_bytes_total

    @property
    def refused_total(self) -> int:
        """Connections and messages that were refused."""
        listener = 0 if self._listener is None else self._listener.complaints.total
        return self._inbox.refused.total + self._complaints.total + listener

    @property
    def internal_errors_total(self) -> int:
        """Faults, of which each has cost what it came with."""
        return self._inbox.failures.total + self.worker.failures.total

    def report(self) -> dict[str, float]:
        """Telemetry: `direct.<node>.stands` (1 or 0), bytes sent and received directly, and messages sent again."""
        if not self.is_on:
            return {}
        stands: dict[str, float] = {direct_metric(NodeId(peer)): int(up) for peer, up in self._ways.standing().items()}
        return {
            **stands,
            "direct_sent_bytes_total": self.sent_bytes_total,
            "direct_received_bytes_total": self.received_bytes_total,
            "direct_sent_again_total": self._ways.sent_again_total,
        }

    # Who may come, and write what: in the listener's thread.

    def _admit(self, hello: Connect, common_name: str) -> str | None:
        node = NodeId(hello.client_id)
        session = self._sessions.get(node)
        is_named = self._session.address.tls is None or common_name in self._users(node)
        is_living = session is not None and _is_same(hello.username, session)
        if is_named and is_living and _is_same(hello.password, self._presence.token) and node != self._node:
            return node
        why = (
            f"its certificate is that of {common_name[:80]!r}"
            if not is_named
            else "it is no living process that the broker knows"
            if not is_living
            else "it looked for another process"
        )
        self._complaints.add(hello.client_id[:80], f"{hello.client_id[:80]!r} may not send tensors directly: {why}")
        return None

    def _may_write_uncached(self, node: str, topic: str) -> bool:
        parsed = self._names.parse(topic)
        member = acl.Member(node, ("node",))
        return parsed is not None and parsed[0] in TENSORS and acl.may(member, "write", topic, self._names)

    def _users(self, node: str) -> tuple[str, ...]:
        """Common names that a node's certificate may have: as enrolled, or made by other hands."""
        return acl.user_of(self._config.pipeline, node), node

    # What the broker says of others: in network threads, and from there to the worker.

    def _on_state(self, message: Message) -> None:
        state = self._presence.border.read(message)
        if not isinstance(state, NodeState) or state.node == self._node:
            return
        session = None if state.state in _GONE else state.session
        known = self._sessions.get(state.node)
        if state.state in _GONE and known is not None and known != state.session:
            return  # the will of an earlier process
        if session == known or (known is None and len(self._sessions) >= MOST_NODES):
            return
        if session is None:
            self._sessions.pop(state.node, None)
        else:
            self._sessions[state.node] = session
        if self._listener is not None:
            self._listener.dismiss(state.node)
        self.worker.offer(partial(self._settle, state.node))

    def _on_info(self, message: Message) -> None:
        info = self._presence.border.read(message)
        if isinstance(info, NodeInfo):
            self.worker.offer(partial(self._take_info, info))

    # In the worker.

    def _take_info(self, info: NodeInfo) -> None:
        if any(info.node in peers for peers in self._needed.values()):
            self._infos[info.node] = info
            self._settle(info.node)

    def _need(self, key: object, peers: frozenset[NodeId]) -> None:
        before = frozenset[NodeId]().union(*self._needed.values())
        self._needed.pop(key, None)
        if peers:
            self._needed[key] = peers
        now = frozenset[NodeId]().union(*self._needed.values())
        for node in before - now:
            self._session.unsubscribe([self._names.topic(topics.INFO, node=node)])
            self._infos.pop(node, None)
            self._settle(node)
        for node in now - before:
            try:
                self._session.subscribe([self._names.topic(topics.INFO, node=node)], self._on_info)
            except BrokerError as error:  # an access list of before, say; tensors take the broker's way then
                self._complaints.add(node, f"where {node} listens for tensors cannot be read: {error}")

    def _settle(self, node: NodeId) -> None:
        """Have a way to the node if it is needed and the process lives that said where it listens; else none."""
        info = self._infos.get(node)
        if info is None or info.direct is None or self._sessions.get(node) != info.session:
            self._ways.leave(node)
            return
        endpoints = tuple((host, info.direct.port) for host in info.direct.hosts)
        self._ways.reach(node, Destination(endpoints, info.session))


def _is_same(said: str | None, wanted: str) -> bool:
    return said is not None and hmac.compare_digest(said.encode(), wanted.encode())


def hosts_from(local: str | None) -> tuple[str, ...]:
    """Addresses of this machine by which others may reach it: that from which it reaches the broker, if that is not on
    this machine, too; else all that other machines can see, behind the one that only this machine can.
    """
    if local is None:
        return ()
    local = local.removeprefix("::ffff:")
    if not ipaddress.ip_address(local).is_loopback:
        return (local,)
    found = []
    for addresses in psutil.net_if_addrs().values():
        for one in addresses:
            try:
                address = ipaddress.ip_address(one.address)
            except ValueError:
                continue  # of a link layer, or with a scope
            if not (address.is_loopback or address.is_link_local):
                found.append(str(address))
    return (local, *found)[:MOST_HOSTS]
