"""Presence of a process on the broker under its id: session token, birth and will, and one process per id."""

from __future__ import annotations

import logging
import os
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any

from broker import topics
from broker.complaints import shortened
from broker.errors import BrokerRefused, NotConnected, RequestTimeout, SessionTaken
from broker.session import Address, Channel, Limits, Message, Session, Will
from broker.tls import Tls
from broker.topics import Namespace
from nodes.config.broker_section import BrokerSection
from nodes.config.sections import Config
from nodes.protocol.asking import REQUEST_ID, ask
from nodes.protocol.border import Border
from nodes.protocol.commands import PING, PING_TIMEOUT_S
from nodes.protocol.messages import LifeState, NodeState, Owner, to_bytes
from nodes.session.clock import PipelineClock
from nodes.session.own_words import OwnWords
from pipeline.errors import ConfigError, TrisectError
from pipeline.plan import NodeId, StreamId
from pipeline.ranges import MOST_REASON

_log = logging.getLogger(__name__)

RETAINED_WAIT_S = 10.0
"""At most; a broker hands retained messages out in milliseconds, unless its machine is overloaded."""
PLANNER_TIER = "planner"
WILL_DELAY_S = 2.0
_GONE = frozenset({LifeState.LOST, LifeState.STOPPED})
DAY_S = 86_400.0


class IdInUse(TrisectError):
    """Another living process has this node's id."""

    def __init__(self, node: NodeId, answer: dict[str, Any]) -> None:
        super().__init__(
            f"node id {node!r} is in use: process {answer.get('pid')} on {answer.get('host')} answers to it",
            node=node,
            hint="stop that one, or give this one another id",
        )


class StreamOwned(TrisectError):
    """Another living device answers this device's stream."""

    def __init__(self, owner: Owner) -> None:
        super().__init__(
            f"stream {owner.stream!r} is answered by {owner.node}, which runs with another configuration than this "
            "one; stop that device, or correct `device` of the stream in one of the two"
        )


def address_of(config: Config) -> Address:
    """The broker's address in the configuration."""
    section = config.broker
    (host, port), *others = section.endpoints
    return Address(host, port, section.username, section.password, _tls_of(section), tuple(others))


def _tls_of(section: BrokerSection) -> Tls | None:
    if (member := section.credentials) is not None:
        return Tls(member.authority, member.certificate, member.key)
    files = {name: path for name in ("ca", "certificate", "key") if (path := getattr(section, name)) is not None}
    if not files and not section.tls:
        return None
    texts = {}
    for name, path in files.items():
        try:
            texts[name] = path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no PEM, which is text"
            raise ConfigError(f"broker.{name}: {path} cannot be read: {why}") from error
    return Tls(texts.get("ca"), texts.get("certificate"), texts.get("key"))


def _secret_of(config: Config) -> str:
    return config.broker.credentials.secret if config.broker.credentials else ""


def reply_topic(config: Config, session: Session) -> str:
    """Where answers to this session go: an enrolled member may read only what goes to its own name."""
    member = config.broker.credentials
    return Namespace(config.pipeline).topic(topics.REPLY, client=member.name if member else session.name)


def guest_session(config: Config, purpose: str, *, on_up: Callable[[], None] = lambda: None) -> Session:
    """A session besides that of a node, or of a command that is none: a name of its own, no will. Not started."""
    token = secrets.token_hex(4)
    return Session(
        address_of(config),
        name=f"{purpose}-{token}",
        scope=config.pipeline,
        secret=_secret_of(config),
        token=token,
        is_new_name=True,
        on_up=on_up,
        max_bytes=Namespace(config.pipeline).max_bytes,
    )


def require_free(config: Config, names: Namespace, node: NodeId, streams: Collection[StreamId] = ()) -> set[str]:
    """Raise IdInUse when a living process answers to this id, StreamOwned when another device has one of `streams`.

    Returns the sessions of those that claim a stream and do not answer. Waits for the broker, however long. A process
    that was killed a moment ago is still said to live: until its will is out, or it should have answered.
    """
    found: dict[str, NodeState | Owner] = {}
    border = Border(names)
    heard: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    asked = [
        names.topic(topics.STATE, node=node),
        *(names.topic(topics.STREAM_OWNER, stream=stream) for stream in streams),
    ]

    def on_message(message: Message) -> None:
        if (said := border.read(message)) is not None:
            found[message.topic] = said
            if isinstance(said, NodeState) and said.state in _GONE:
                heard.put(None)

    with guest_session(config, "check") as session:
        wait_up(session)
        session.subscribe(asked, on_message)
        _wait_for_retained(config, session)
        said = [*found.values()]
        gone: set[str] = set()
        for each in said:
            is_over = isinstance(each, NodeState) and each.state in _GONE
            if is_over or (isinstance(each, Owner) and each.node == node):
                continue
            if isinstance(each, Owner):
                answer = _answer_of(config, session, names, each.node)
                if answer is not None and answer.get("session") == each.session:
                    raise StreamOwned(each)
                gone.add(each.session)
            elif (answer := _answer_or_end(config, session, names, node, heard)) is not None:
                raise IdInUse(node, answer)
        return gone


def _wait_for_retained(config: Config, session: Session) -> None:
    """Wait for a message to oneself: what was retained for earlier subscriptions comes before it."""
    topic, back = reply_topic(config, session), threading.Event()
    session.subscribe([topic], lambda _: back.set())
    session.publish(topic, b"{}")
    back.wait(RETAINED_WAIT_S)


def _answer_or_end(
    config: Config, session: Session, names: Namespace, node: NodeId, heard: queue.SimpleQueue[dict[str, Any] | None]
) -> dict[str, Any] | None:
    """The node's answer to a ping; None when there is none in time, or `heard` says first that the node is gone."""
    name = f"{session.name}.ping"
    threading.Thread(target=lambda: heard.put(_answer_of(config, session, names, node)), name=name, daemon=True).start()
    return heard.get()


def _answer_of(config: Config, session: Session, names: Namespace, node: NodeId) -> dict[str, Any] | None:
    try:
        return ask(session, names, node, PING, {}, reply_topic=reply_topic(config, session), timeout_s=PING_TIMEOUT_S)
    except (RequestTimeout, BrokerRefused, NotConnected):
        return None


class IdCheck:
    """`require_free` in a thread of its own, begun at once, so that a process goes on with its imports meanwhile."""

    def __init__(self, config: Config, names: Namespace, node: NodeId, streams: Collection[StreamId] = ()) -> None:
        self._error: BaseException | None = None
        self._gone: set[str] = set()
        # a daemon: a process that is stopped while no broker is there does not wait for one
        self._thread = threading.Thread(
            target=self._run, args=(config, names, node, streams), name=f"{node}.check", daemon=True
        )
        self._thread.start()

    def result(self) -> set[str]:
        """Wait for what `require_free` returns. Raises IdInUse, StreamOwned, and what the connection raises."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._gone

    def _run(self, config: Config, names: Namespace, node: NodeId, streams: Collection[StreamId]) -> None:
        try:
            self._gone = require_free(config, names, node, streams)
        except BaseException as error:  # is raised where it is waited for
            self._error = error


def wait_up(session: Session) -> None:
    """Wait until the broker is there; the session says in the log what and where it waits for."""
    while not session.is_up:
        session.start()
        time.sleep(0.01)


class Presence:
    """One node's session with its states, as a context: it starts on entry and says `stopped`, and why, at the end.

    `on_up` is called when all is connected and subscribed, before each birth. A birth is published each time, and its
    number counts them: who sees it change knows that what was under way to this node may be lost. What comes in goes
    through its `border`. `final` is retained at its end, beside that it has `stopped`; for one that `comes_back`, the
    broker collects frames meanwhile.
    """

    def __init__(
        self,
        config: Config,
        names: Namespace,
        node: NodeId,
        tier: str,
        *,
        takes_frames: bool = False,
        on_up: Callable[[], None] = lambda: None,
        on_down: Callable[[str], None] = lambda reason: None,
        on_taken: Callable[[], None] = lambda: None,
        why_stopped: Callable[[], str] = lambda: "",
        on_missed: Callable[[Channel], None] = lambda channel: None,
    ) -> None:
        self._why_stopped = why_stopped
        self.node, self.tier, self.token = node, tier, secrets.token_hex(4)
        self.clock = PipelineClock()
        self.border = Border(names)
        self.final: dict[str, bytes] = {}
        self.comes_back = True
        self._names = names
        self._on_up, self._on_taken = on_up, on_taken
        self._taken: SessionTaken | None = None
        self._state = LifeState.INIT
        self._births = 0
        self._credentials = config.broker.credentials
        self._warned_at = time.monotonic()  # at the start, whoever read the enrolment has done so
        self._lock = threading.Lock()
        self.session = Session(
            address_of(config),
            name=str(node),
            scope=config.pipeline,
            secret=_secret_of(config),
            token=self.token,
            will=Will(topic=self.state_topic, payload=self._message(LifeState.LOST), delay_s=WILL_DELAY_S),
            takes_frames=takes_frames,
            on_up=self._up,
            on_down=on_down,
            on_taken=self._give_way,
            on_missed=on_missed,
            limits=Limits(keepalive_s=config.transport.keepalive_s),
            max_bytes=names.max_bytes,
        )
        self.reply_topic = reply_topic(config, self.session)
        self.words = OwnWords(self.session, self.border)
        self.session.subscribe([names.topic(topics.PING, node=node)], self._on_ping)
        self.session.subscribe([self.state_topic], self.words.heard)

    def __enter__(self) -> Presence:
        self.session.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        why = str(error) if isinstance(error, Exception) else self._why_stopped()
        last = self._message(LifeState.STOPPED, why)
        self.words.note(self.state_topic, last)  # its echo is nobody else's word
        self.session.unkeep(self.state_topic)  # nothing is said after the last word
        self.session.stop({self.state_topic: last, **self.final}, comes_back=self.comes_back)
        if self._taken is not None and error is None:
            raise self._taken

    @property
    def is_taken(self) -> bool:
        """True when another process has this id now; leaving raises SessionTaken then."""
        return self._taken is not None

    @property
    def births(self) -> int:
        """The number of births said so far, or about to be."""
        return self._births

    @property
    def state(self) -> LifeState:
        """The state that it has entered last."""
        return self._state

    @property
    def state_topic(self) -> str:
        """The topic of this node's state."""
        return self._names.topic(topics.STATE, node=self.node)

    def certificate_report(self) -> dict[str, float]:
        """Telemetry: seconds until this node's certificate ends, which is mentioned in the log once a day near its end.

        Nothing for a node that was not enrolled.
        """
        if self._credentials is None:
            return {}
        now = time.monotonic()
        if now - self._warned_at >= DAY_S and (warning := self._credentials.warning()) is not None:
            self._warned_at = now
            _log.warning("%s", warning)
        return {"certificate_seconds_left": round(self._credentials.seconds_left())}

    def enter(self, state: LifeState) -> None:
        """Say a new state, now if connected, and at each birth from now on."""
        with self._lock:
            self._state = state
            if self.session.is_up:
                self._say_state()

    def renew(self) -> None:
        """Say a birth more: what was under way to this node is lost, though its connection stands."""
        with self._lock:
            self._births += 1
            if self.session.is_up:
                self._say_state()

    def reply(self, message: Message, answer: dict[str, Any]) -> None:
        """Answer a request, where answers may go."""
        topic, correlation = self.border.reply_to(message)
        if topic is not None:
            request_id = {REQUEST_ID: correlation.decode(errors="replace")} if correlation else {}
            self.session.publish(topic, to_bytes({**answer, **request_id}), correlation=correlation)

    def _up(self) -> None:
        with self._lock:
            self._births += 1
        self._on_up()
        with self._lock:
            self._say_state()

    def _say_state(self) -> None:
        payload = self._message(self._state)
        self.words.note(self.state_topic, payload)
        self.session.keep(self.state_topic, payload, at_connect=False)  # each connect has a birth of its own

    def _give_way(self, taken: SessionTaken) -> None:
        self._taken = taken
        self._on_taken()

    def _on_ping(self, message: Message) -> None:
        who = {"session": self.token, "host": socket.gethostname(), "pid": os.getpid()}
        self.reply(message, {"ok": True, **who, "clock_ts": self.clock.steady()})

    def _message(self, state: LifeState, why: str = "") -> bytes:
        return to_bytes(
            NodeState(
                self.node,
                self.tier,
                state,
                self.token,
                self._births,
                socket.gethostname(),
                os.getpid(),
                time.time(),
                shortened(why, MOST_REASON),
            )
        )
