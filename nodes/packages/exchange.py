"""A process's part in handing packages around: it learns what is published, fetches what it wants, serves what it has.

It has connections of its own, so that no tensor waits behind a piece, in either direction. One thread takes every
decision (`fetching` holds them), another one publishes. What comes is held against the manifest, and a manifest and a
version against an operator's seal where the pipeline has an authority; what is refused is counted at the border.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from typing_extensions import assert_never

from broker import topics
from broker.complaints import Complaints
from broker.errors import BrokerError
from broker.session import Channel, Message, Session
from broker.topics import Namespace
from nodes.config.sections import Config
from nodes.packages.fetching import Action, Ask, Complete, Fetcher, Queue, Subscribe, Unsubscribe
from nodes.protocol.border import Border
from nodes.protocol.messages import to_bytes
from nodes.protocol.packages import MOST_PACKAGES, Fetch, Holdings, PublishedPackage, Seal, Version
from pipeline.errors import TrisectError
from pipeline.models import kept
from pipeline.pieces.manifest import PackageManifest, pieces_in, spans_of
from pipeline.pieces.partial import PartialPackage, WrongPiece
from pipeline.protocol_version import PROTOCOL_VERSION

_log = logging.getLogger(__name__)

TICK_S: Final = 0.25
SAY_EVERY_S: Final = 2.0
"""While pieces come, what is held is said so often."""
EXPIRY_S: Final = 60.0
"""After which a piece that waits in the broker is asked for again anyway."""
ON_THEIR_WAY: Final = 8
"""Pieces that are published and not acknowledged at a time: what one has asked for another may still join."""
PUBLISH_WAIT_S: Final = 30.0
RATE_OVER_S: Final = 2.0
SUBSCRIBED_AT_ONCE: Final = 256
STUCK_S: Final = 10.0


class Source(Protocol):
    """Something that has pieces of a package."""

    @property
    def manifest(self) -> PackageManifest:
        """Its manifest."""
        ...

    @property
    def held(self) -> frozenset[int]:
        """Pieces that are here."""
        ...

    def read(self, piece: int) -> bytes | None:
        """A piece's bytes, None where they are not here."""
        ...


@dataclass(slots=True)
class _Rate:
    """Bytes per second over the last seconds in which any came."""

    _came: list[tuple[float, int]] = field(default_factory=list)

    def add(self, nbytes: int, now: float) -> float | None:
        """Count bytes; None before there are enough."""
        self._came = [(at, n) for at, n in self._came if now - at <= RATE_OVER_S]
        self._came.append((now, nbytes))
        seconds = now - self._came[0][0]
        return sum(n for _, n in self._came[1:]) / seconds if seconds > TICK_S else None


@dataclass(slots=True)
class _Open:
    """A package that is fetched or served here; `failed` are told when it cannot be."""

    source: Source
    fetcher: Fetcher
    is_ours: bool
    rate: _Rate = field(default_factory=_Rate)
    waiting: dict[Hashable, tuple[Callable[[], None], Callable[[Exception], None]]] = field(default_factory=dict)
    stuck_since: float | None = None


Job: TypeAlias = Callable[[float], None]


class Exchange:
    """Starts with `start`; its callbacks come in its own thread.

    `on_version` is called with each model's newest version and its package, once both are known and believed;
    `on_removed` with the digest of a package that is published no more. `keeps_all` has every published package fetched
    whole, to be served when who published it is gone.
    """

    def __init__(
        self,
        config: Config,
        session: Session,
        me: str,
        directory: Path,
        border: Border,
        *,
        on_version: Callable[[Version, PublishedPackage], None] = lambda version, package: None,
        on_removed: Callable[[str], None] = lambda digest: None,
        keeps_all: bool = False,
    ) -> None:
        self._config, self._session, self._me, self._directory, self._border = config, session, me, directory, border
        self._names = Namespace(config.pipeline)
        self._on_version, self._on_removed, self._keeps_all = on_version, on_removed, keeps_all
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._published: dict[str, PublishedPackage] = {}
        self._versions: dict[str, Version] = {}
        self._told: dict[str, Version] = {}
        self._open: dict[str, _Open] = {}
        self._holdings: dict[str, Holdings] = {}
        self._share = int.from_bytes(hashlib.sha256(me.encode()).digest()[:4], "big") / 2.0**32
        self._said: Mapping[str, tuple[tuple[int, int], ...]] = {}
        self._said_at = 0.0
        self._queue, self._may_send = Queue(), threading.Condition()
        self._sending, self._stopped = 0, False
        self.failures = Complaints(_log)
        self.received_bytes_total = 0
        self.sent_bytes_total = 0
        self.duplicates_total = 0
        self.refused_total = 0
        self._thread = threading.Thread(target=self._run, name=f"{me}.packages", daemon=True)
        self._sender = threading.Thread(target=self._send, name=f"{me}.packages.send", daemon=True)

    # From any thread.

    def start(self) -> None:
        """Subscribe and begin; the session is the caller's to start, with `connected` as its `on_up`."""
        for kind, take in (
            (topics.PACKAGE, self._package_arrived),
            (topics.VERSION, self._version_arrived),
            (topics.HOLDINGS, self._holdings_arrived),
        ):
            self._session.subscribe([self._names.filter(kind)], partial(self._hand_over, take))
        self._session.subscribe([self._names.topic(topics.FETCH, node=self._me)], partial(self._hand_over, self._asked))
        self._thread.start()
        self._sender.start()

    def stop(self) -> None:
        """End; what has come stays on the disk. The session is the caller's to stop, after this."""
        with self._may_send:
            self._stopped = True
            self._may_send.notify_all()
        self._jobs.put(None)
        self._thread.join(5.0)
        self._sender.join(5.0)

    def connected(self) -> None:
        """The session is up, perhaps again."""
        self._jobs.put(self._reconnected)

    def offer(self, source: Source) -> None:
        """Serve what somebody has from now on: a whole file that is published from here."""
        self._jobs.put(lambda now: self._offer(source))

    def want(
        self,
        key: Hashable,
        package: str,
        blocks: Collection[int] | None,
        done: Callable[[PartialPackage], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Have what these blocks need (None: all of it) of a published package here, then say so."""
        self._jobs.put(lambda now: self._want(key, package, blocks, done, failed, now))

    def drop(self, key: Hashable) -> None:
        """Want it no longer; what has come stays until its room is needed."""
        self._jobs.put(lambda now: self._drop(key, now))

    def call(self, job: Callable[[], None]) -> None:
        """Have something done in the thread that takes the decisions."""
        self._jobs.put(lambda now: job())

    # In the exchange's thread.

    @property
    def published(self) -> Mapping[str, PublishedPackage]:
        """What is published, by digest."""
        return self._published

    @property
    def versions(self) -> Mapping[str, Version]:
        """The newest version of each model."""
        return self._versions

    @property
    def holdings(self) -> Mapping[str, Holdings]:
        """What others hold."""
        return self._holdings

    @property
    def internal_errors_total(self) -> int:
        """Faults of this code and of callbacks."""
        return self.failures.total

    def report(self) -> dict[str, float]:
        """Telemetry."""
        return {
            "packages_received_bytes_total": self.received_bytes_total,
            "packages_sent_bytes_total": self.sent_bytes_total,
            "packages_duplicate_pieces_total": self.duplicates_total,
            "packages_refused_pieces_total": self.refused_total,
        }

    def _hand_over(self, take: Callable[[Any, Message, float], None], message: Message) -> None:
        self._jobs.put(partial(self._read, take, message))

    def _read(self, take: Callable[[Any, Message, float], None], message: Message, now: float) -> None:
        value = self._border.read(message)
        if value is not None or not message.payload:
            take(value, message, now)

    def _run(self) -> None:
        tick_at = 0.0
        while True:
            try:
                job = self._jobs.get(timeout=TICK_S)
            except queue.Empty:
                job = self._tick
            if job is None:
                return
            now = time.monotonic()
            for each in (job, self._tick) if now >= tick_at and job is not self._tick else (job,):
                try:
                    each(now)
                except Exception as error:
                    self.failures.add(type(error).__name__, f"{self._me}: packages", error=error)
            tick_at = now + TICK_S if now >= tick_at else tick_at

    def _tick(self, now: float) -> None:
        for digest, opened in list(self._open.items()):
            self._perform(digest, opened, opened.fetcher.tick(now))
            self._look_if_stuck(digest, opened, now)
        self._say_holdings(now)

    def _look_if_stuck(self, digest: str, opened: _Open, now: float) -> None:
        if not opened.fetcher.is_stuck:
            opened.stuck_since = None
        elif opened.stuck_since is None:
            opened.stuck_since = now
        elif now - opened.stuck_since >= STUCK_S:
            name, count = opened.source.manifest.name, len(opened.fetcher.missing)
            text = f"nobody who is there has {count} pieces of {name} ({digest}); `trisect model push FILE` serves them"
            self.failures.add(f"stuck {digest}", text)

    def _reconnected(self, now: float) -> None:
        self._say_holdings(now, again=True)
        for digest, opened in self._open.items():
            self._perform(digest, opened, opened.fetcher.reconnected(now))

    def _package_arrived(self, package: PublishedPackage | None, message: Message, now: float) -> None:
        if package is None:
            self._package_removed(message.topic)
            return
        if package.digest not in self._published and len(self._published) >= MOST_PACKAGES:
            self._border.refuse(message.topic, f"{MOST_PACKAGES} packages are published, and this would be one more")
            return
        if not self._is_sealed(message.topic, package.text(self._config.pipeline), package.seal):
            return
        self._published[package.digest] = package
        if self._keeps_all:
            name = package.manifest.name
            self._want("all", package.digest, None, partial(self._have_all, name), partial(self._lacks, name), now)
        elif (self._directory / f"{package.digest}.trisect").exists() and package.digest not in self._open:
            self._opened(package.digest, ())  # of an earlier run: others may need it
        self._tell_versions()

    def _have_all(self, name: str, package: PartialPackage) -> None:
        _log.info("has all of package %s of %s", package.digest, name)

    def _lacks(self, name: str, error: Exception) -> None:
        _log.warning("cannot keep all of a package of %s: %s", name, error)

    def _package_removed(self, topic: str) -> None:
        parsed = self._names.parse(topic)
        digest = parsed[1]["digest"] if parsed else ""
        if self._published.pop(digest, None) is None:
            return
        opened = self._open.pop(digest, None)
        if opened is not None:
            for _, failed in opened.waiting.values():
                failed(TrisectError(f"package {digest} is published no more"))
            if isinstance(opened.source, PartialPackage):
                opened.source.path.unlink(missing_ok=True)
                opened.source.close()
        self._on_removed(digest)

    def _version_arrived(self, version: Version | None, message: Message, now: float) -> None:
        if version is None:
            parsed = self._names.parse(message.topic)
            self._versions.pop(parsed[1]["model"] if parsed else "", None)
            return
        known = self._versions.get(version.model)
        if known is not None and version.number < known.number:
            self._border.refuse(message.topic, f"number: {known.number} or more, not {version.number}: an old message")
            return
        if self._is_sealed(message.topic, version.text(self._config.pipeline), version.seal):
            self._versions[version.model] = version
            self._tell_versions()

    def _tell_versions(self) -> None:
        for model, version in self._versions.items():
            package = self._published.get(version.package)
            if package is not None and self._told.get(model) != version:
                self._told[model] = version
                self._on_version(version, package)

    def _is_sealed(self, topic: str, text: str, seal: Seal | None) -> bool:
        """Whether an operator has said it; where there is no authority, whoever may write there is believed."""
        member = self._config.broker.credentials
        if member is None:
            return True
        from nodes.enrolment.seal import BadSeal, check

        try:
            if seal is None:
                raise BadSeal("no operator has sealed it")
            check(text, seal.signature, seal.certificate, member.authority, self._config.pipeline)
        except BadSeal as error:
            self._border.refuse(topic, str(error))
            return False
        return True

    def _holdings_arrived(self, holdings: Holdings | None, message: Message, now: float) -> None:
        parsed = self._names.parse(message.topic)
        node = parsed[1]["node"] if parsed else ""
        if node == self._me:
            return
        if holdings is None:
            self._holdings.pop(node, None)
        else:
            self._holdings[node] = holdings
        held = holdings.packages if holdings is not None else {}
        for digest, opened in self._open.items():
            pieces = pieces_in(held.get(digest, ())) & opened.source.manifest.whole
            self._perform(digest, opened, opened.fetcher.holds(node, pieces, now))

    def _asked(self, fetch: Fetch | None, message: Message, now: float) -> None:
        opened = self._open.get(fetch.package) if fetch is not None else None
        if fetch is None or opened is None:
            return
        wanted = pieces_in(fetch.pieces)
        if foreign := wanted - opened.source.manifest.whole:
            self._border.refuse(
                message.topic, f"pieces: below {len(opened.source.manifest.pieces)}, not {max(foreign)}"
            )
            return
        with self._may_send:
            self._queue.ask(fetch.package, sorted(wanted & opened.source.held))
            self._may_send.notify_all()

    def _offer(self, source: Source) -> None:
        manifest = source.manifest
        fetcher = Fetcher(manifest.piece_bytes, source.held, share=self._share)
        self._open[manifest.digest] = _Open(source, fetcher, is_ours=False)
        self._say_holdings(time.monotonic(), again=True)

    def _want(
        self,
        key: Hashable,
        package: str,
        blocks: Collection[int] | None,
        done: Callable[[PartialPackage], None],
        failed: Callable[[Exception], None],
        now: float,
    ) -> None:
        try:
            published = self._published.get(package)
            if published is None:
                raise TrisectError(f"package {package} is not published; `trisect model list` shows those that are")
            manifest = published.manifest
            pieces = manifest.whole if blocks is None else manifest.needed(blocks)
            opened = self._opened(package, pieces)
        except (TrisectError, OSError) as error:
            failed(error)
            return
        assert isinstance(opened.source, PartialPackage)
        source = opened.source
        opened.waiting[key] = (lambda: done(source)), failed
        self._perform(package, opened, opened.fetcher.want(key, pieces, now))

    def _opened(self, package: str, pieces: Iterable[int]) -> _Open:
        """The package's file, with room for these pieces. Raises ModelError for a cache that is too small for them."""
        opened = self._open.get(package)
        manifest = self._published[package].manifest
        if opened is None:
            source = PartialPackage(self._directory, manifest)
            opened = _Open(source, Fetcher(manifest.piece_bytes, source.held, share=self._share), is_ours=True)
            self._open[package] = opened
            for node, holdings in self._holdings.items():
                held = pieces_in(holdings.packages.get(package, ())) & manifest.whole
                opened.fetcher.holds(node, held, time.monotonic())
        assert isinstance(opened.source, PartialPackage)
        self._make_room(opened.source, frozenset(pieces))
        return opened

    def _make_room(self, package: PartialPackage, pieces: frozenset[int]) -> None:
        """Have other packages go for what is wanted, and in the end pieces of this one that nobody wants here."""
        limit, nbytes_of = kept.limit_bytes(), package.manifest.nbytes_of
        wanted = sum(map(nbytes_of, pieces))
        if wanted > limit:
            raise kept.too_small(f"{len(pieces)} pieces of package {package.digest}", wanted, limit)
        missing = sum(map(nbytes_of, package.missing(pieces)))
        if not missing:
            return
        kept.prune(self._directory, max(0.0, limit - missing))
        if (over := kept.taken_bytes(self._directory) + missing - limit) > 0:
            unwanted = iter(sorted(package.held - pieces - self._in_use(package)))
            while over > 0 and (piece := next(unwanted, None)) is not None:
                over -= package.forget([piece])

    def _in_use(self, package: PartialPackage) -> frozenset[int]:
        return self._open[package.digest].fetcher.wanted if package.digest in self._open else frozenset()

    def _drop(self, key: Hashable, now: float) -> None:
        for digest, opened in self._open.items():
            waiting = opened.waiting.pop(key, None)
            if waiting is not None:
                self._perform(digest, opened, opened.fetcher.drop(key, now))
                waiting[1](TrisectError("it is not wanted any more"))

    def _piece_arrived(self, digest: str, message: Message, now: float) -> None:
        parsed, opened = self._names.parse(message.topic), self._open.get(digest)
        if parsed is None or opened is None or not isinstance(opened.source, PartialPackage):
            return
        sender, piece = parsed[1]["node"], int(parsed[1]["index"])
        self.received_bytes_total += len(message.payload)
        try:
            is_new = opened.source.put(piece, message.payload)
        except WrongPiece as error:
            self.refused_total += 1
            self._border.refuse(message.topic, str(error))
            self._perform(digest, opened, opened.fetcher.refused(piece, sender, now))
            return
        except TrisectError as error:  # the disk is full
            self._give_up(digest, opened, error, now)
            return
        self.duplicates_total += not is_new
        rate = opened.rate.add(len(message.payload), now)
        self._perform(digest, opened, opened.fetcher.arrived(piece, sender, now, rate=rate))

    def _give_up(self, digest: str, opened: _Open, error: Exception, now: float) -> None:
        waiting, opened.waiting = opened.waiting, {}
        for key, (_, failed) in waiting.items():
            self._perform(digest, opened, opened.fetcher.drop(key, now))
            failed(error)

    def _perform(self, digest: str, opened: _Open, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Subscribe():
                    self._subscribe(digest, action.pieces)
                case Unsubscribe():
                    filters = [self._piece_filter(digest, piece) for piece in action.pieces]
                    self._session.unsubscribe(filters, channel=Channel.BULK)
                case Ask():
                    payload = asdict(Fetch(digest, spans_of(action.pieces)))
                    topic = self._names.topic(topics.FETCH, node=action.holder)
                    self._publish_small(topic, to_bytes({"protocol": PROTOCOL_VERSION, **payload}))
                case Complete():
                    done, _ = opened.waiting.pop(action.key, (lambda: None, None))
                    self._say_holdings(time.monotonic(), again=True)
                    done()
                case _:
                    assert_never(action)

    def _subscribe(self, digest: str, pieces: tuple[int, ...]) -> None:
        handler = partial(self._hand_over_piece, digest)
        for start in range(0, len(pieces), SUBSCRIBED_AT_ONCE):
            filters = [self._piece_filter(digest, piece) for piece in pieces[start : start + SUBSCRIBED_AT_ONCE]]
            try:
                self._session.subscribe(filters, handler, channel=Channel.BULK)
            except BrokerError as error:  # it is remembered, and subscribed at the next connect
                self.failures.add("subscribe", f"{self._me}: {error}")

    def _hand_over_piece(self, digest: str, message: Message) -> None:
        self._jobs.put(partial(self._piece_arrived, digest, message))

    def _piece_filter(self, digest: str, piece: int) -> str:
        return self._names.filter(topics.PIECE, digest=digest, index=piece)

    def _publish_small(self, topic: str, payload: bytes) -> None:
        try:
            self._session.publish(topic, payload, expiry_s=EXPIRY_S, wait_s=0.0)
        except BrokerError as error:  # what does not come is asked for again
            self.failures.add("publish", f"{self._me}: {error}")

    def _say_holdings(self, now: float, *, again: bool = False) -> None:
        if not again and now - self._said_at < SAY_EVERY_S:
            return
        held = {digest: spans_of(opened.source.held) for digest, opened in self._open.items() if opened.source.held}
        if held != self._said:
            self._said, self._said_at = held, now
            topic = self._names.topic(topics.HOLDINGS, node=self._me)
            self._session.keep(topic, to_bytes(Holdings(self._me, held)))  # type: ignore[arg-type]

    # In the sender's thread.

    def _send(self) -> None:
        while True:
            with self._may_send:
                self._may_send.wait_for(lambda: self._stopped or (len(self._queue) and self._sending < ON_THEIR_WAY))
                if self._stopped:
                    return
                item = self._queue.take()
                assert item is not None
                self._sending += 1
            try:
                self._publish_piece(*item)
            except Exception as error:
                self._left(*item, False)
                self.failures.add(type(error).__name__, f"{self._me}: a piece was not sent: {error}")

    def _publish_piece(self, digest: str, piece: int) -> None:
        opened = self._open.get(digest)
        data = opened.source.read(piece) if opened is not None else None
        if data is None:
            self._left(digest, piece, False)
            self._jobs.put(partial(self._lost, digest, piece))
            return
        topic = self._names.topic(topics.PIECE, node=self._me, digest=digest, index=piece)
        self.sent_bytes_total += len(data)
        self._session.publish(
            topic,
            data,
            channel=Channel.BULK,
            expiry_s=EXPIRY_S,
            wait_s=PUBLISH_WAIT_S,
            settled=partial(self._left, digest, piece),
        )

    def _left(self, digest: str, piece: int, delivered: bool) -> None:
        with self._may_send:
            self._sending -= 1
            self._queue.left(digest, piece)
            self._may_send.notify_all()

    def _lost(self, digest: str, piece: int, now: float) -> None:
        """A piece on this disk is not any more what it was: others do not get it, and it is fetched again."""
        opened = self._open.get(digest)
        if opened is not None and isinstance(opened.source, PartialPackage) and opened.source.missing([piece]):
            _log.warning("piece %d of package %s was damaged on this disk, and is not served", piece, digest)
            self._perform(digest, opened, opened.fetcher.lost([piece], now))
            self._say_holdings(now, again=True)
