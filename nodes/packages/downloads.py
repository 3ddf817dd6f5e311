"""Fetch pieces of packages into this process's store: what `fetching` decides, done over a session.

All but the session's callback runs in one thread. What comes is held against the manifest; what is refused is counted
at the border.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Final, TypeAlias

from typing_extensions import assert_never

from broker import topics
from broker.complaints import Complaints
from broker.errors import BrokerError
from broker.session import Channel, Message, Session
from broker.topics import Namespace
from nodes.packages.availability import Availability
from nodes.packages.fetching import Action, Ask, Complete, Fetcher, Subscribe, Unsubscribe
from nodes.packages.store import PackageStore
from nodes.protocol.border import Border
from nodes.protocol.messages import to_bytes
from nodes.protocol.packages import Fetch
from pipeline.errors import TrisectError
from pipeline.pieces.manifest import PackageManifest, spans_of
from pipeline.pieces.partial import PartialPackage, WrongPiece
from pipeline.protocol_version import PROTOCOL_VERSION

_log = logging.getLogger(__name__)

REQUEST_EXPIRY_S: Final = 60.0
"""After which a request that waits in the broker has been made again anyway."""
RATE_OVER_S: Final = 2.0
LEAST_RATE_OVER_S: Final = 0.25
SUBSCRIBED_AT_ONCE: Final = 256
STUCK_S: Final = 10.0

Job: TypeAlias = Callable[[float], None]
"""To be done in the thread that takes the decisions; it is given the time, in seconds of a monotonic clock."""
Done: TypeAlias = Callable[[PartialPackage], None]
Failed: TypeAlias = Callable[[Exception], None]


@dataclass(slots=True)
class _Rate:
    """Bytes per second over the last seconds in which any came."""

    _came: list[tuple[float, int]] = field(default_factory=list)

    def add(self, nbytes: int, now: float) -> float | None:
        """Count bytes; None before there are enough."""
        self._came = [(at, n) for at, n in self._came if now - at <= RATE_OVER_S]
        self._came.append((now, nbytes))
        seconds = now - self._came[0][0]
        return sum(n for _, n in self._came[1:]) / seconds if seconds > LEAST_RATE_OVER_S else None


@dataclass(slots=True)
class _Download:
    """A package of which pieces are or may be fetched; `waiting` has by key who is told of the end, good or bad."""

    package: PartialPackage
    fetcher: Fetcher
    rate: _Rate = field(default_factory=_Rate)
    waiting: dict[Hashable, tuple[Done, Failed]] = field(default_factory=dict)
    stuck_since: float | None = None


@dataclass(slots=True)
class Downloader:
    """Fetches what is wanted. `share`, from 0 to 1, is where in what is missing it begins (`Fetcher`).

    `post` has a job done in the thread in which all methods are called.
    """

    session: Session
    names: Namespace
    me: str
    border: Border
    store: PackageStore
    availability: Availability
    failures: Complaints
    share: float
    post: Callable[[Job], None]
    received_bytes_total: int = 0
    duplicates_total: int = 0
    refused_total: int = 0
    _downloads: dict[str, _Download] = field(default_factory=dict)

    def want(
        self,
        key: Hashable,
        digest: str,
        manifest: PackageManifest,
        blocks: Collection[int] | None,
        done: Done,
        failed: Failed,
        now: float,
    ) -> None:
        """Have what these blocks need (None: all of it) here, then say so."""
        try:
            pieces = manifest.whole if blocks is None else manifest.needed(blocks)
            download = self._opened(digest, manifest, pieces)
        except (TrisectError, OSError) as error:
            failed(error)
            return
        download.waiting[key] = done, failed
        self._perform(digest, download, download.fetcher.want(key, pieces, now))

    def resume(self, digest: str, manifest: PackageManifest) -> None:
        """Open what an earlier run has left of a package: others may need it. Raises ModelError."""
        self._opened(digest, manifest, frozenset())

    def drop(self, key: Hashable, now: float) -> None:
        """Want it no longer; who waits for it is told that it failed."""
        for digest, download in self._downloads.items():
            waiting = download.waiting.pop(key, None)
            if waiting is not None:
                self._perform(digest, download, download.fetcher.drop(key, now))
                _, failed = waiting
                failed(TrisectError("it is not wanted any more"))

    def remove(self, digest: str) -> None:
        """Fetch and hold nothing more of a package that is published no more."""
        download = self._downloads.pop(digest, None)
        for _, failed in download.waiting.values() if download is not None else ():
            failed(TrisectError(f"package {digest} is published no more"))
        self.store.remove(digest)

    def tick(self, now: float) -> None:
        """See what does not come."""
        for digest, download in list(self._downloads.items()):
            self._perform(digest, download, download.fetcher.tick(now))
            self._look_if_stuck(digest, download, now)

    def reconnected(self, now: float) -> None:
        """Ask again for what was on its way."""
        for digest, download in self._downloads.items():
            self._perform(digest, download, download.fetcher.reconnected(now))

    def availability_changed(self, node: str, now: float) -> None:
        """Take what another process holds now."""
        for digest, download in self._downloads.items():
            pieces = self.availability.pieces_of(node, digest, download.package.manifest)
            self._perform(digest, download, download.fetcher.holds(node, pieces, now))

    def look_after_damage(self, digest: str, piece: int, now: float) -> None:
        """Fetch a piece again that could not be read: if it was damaged on this disk, others do not get it."""
        download = self._downloads.get(digest)
        if download is not None and download.package.missing([piece]):
            _log.warning("piece %d of package %s was damaged on this disk, and is not served", piece, digest)
            self._perform(digest, download, download.fetcher.lost([piece], now))
            self.availability.announce(now, at_once=True)

    def _opened(self, digest: str, manifest: PackageManifest, pieces: frozenset[int]) -> _Download:
        """The package's file, with room for these pieces. Raises ModelError for a cache that is too small for them."""
        source = self.store.sources.get(digest)
        if source is None:
            package = self.store.open(digest, manifest)
            download = _Download(package, Fetcher(manifest.piece_bytes, package.held, share=self.share))
            self._downloads[digest] = download
            for node, held in self.availability.holders_of(digest, manifest).items():
                download.fetcher.holds(node, held, time.monotonic())
        else:
            assert isinstance(source, PartialPackage)
            download = self._downloads[digest]
        self.store.make_room(download.package, pieces, download.fetcher.wanted)
        return download

    def _look_if_stuck(self, digest: str, download: _Download, now: float) -> None:
        if not download.fetcher.is_stuck:
            download.stuck_since = None
        elif download.stuck_since is None:
            download.stuck_since = now
        elif now - download.stuck_since >= STUCK_S:
            name, count = download.package.manifest.name, len(download.fetcher.missing)
            text = f"nobody who is there has {count} pieces of {name} ({digest}); `trisect model push FILE` serves them"
            self.failures.add(f"stuck {digest}", text)

    def _piece_arrived(self, digest: str, message: Message, now: float) -> None:
        parsed, download = self.names.parse(message.topic), self._downloads.get(digest)
        if parsed is None or download is None:
            return
        sender, piece = parsed[1]["node"], int(parsed[1]["index"])
        self.received_bytes_total += len(message.payload)
        try:
            is_new = download.package.put(piece, message.payload)
        except WrongPiece as error:
            self.refused_total += 1
            self.border.refuse(message.topic, str(error))
            self._perform(digest, download, download.fetcher.refused(piece, sender, now))
            return
        except TrisectError as error:  # the disk is full
            self._give_up(digest, download, error, now)
            return
        self.duplicates_total += not is_new
        rate = download.rate.add(len(message.payload), now)
        self._perform(digest, download, download.fetcher.arrived(piece, sender, now, rate=rate))

    def _give_up(self, digest: str, download: _Download, error: Exception, now: float) -> None:
        waiting, download.waiting = download.waiting, {}
        for key, (_, failed) in waiting.items():
            self._perform(digest, download, download.fetcher.drop(key, now))
            failed(error)

    def _perform(self, digest: str, download: _Download, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Subscribe():
                    self._subscribe(digest, action.pieces, download.fetcher)
                case Unsubscribe():
                    filters = [self._piece_filter(digest, piece) for piece in action.pieces]
                    self.session.unsubscribe(filters, channel=Channel.BULK)
                case Ask():
                    self._request(action.holder, Fetch(digest, spans_of(action.pieces), action.listening_s))
                case Complete():
                    waiting = download.waiting.pop(action.key, None)
                    self.availability.announce(time.monotonic(), at_once=True)
                    if waiting is not None:
                        done, _ = waiting
                        done(download.package)
                case _:
                    assert_never(action)

    def _subscribe(self, digest: str, pieces: tuple[int, ...], fetcher: Fetcher) -> None:
        handler = partial(self._hand_over_piece, digest)
        for start in range(0, len(pieces), SUBSCRIBED_AT_ONCE):
            some = pieces[start : start + SUBSCRIBED_AT_ONCE]
            filters = [self._piece_filter(digest, piece) for piece in some]
            try:
                self.session.subscribe(filters, handler, channel=Channel.BULK)
                if self.session.is_up:  # else nobody has confirmed it
                    fetcher.listens(some, time.monotonic())
            except BrokerError as error:  # it is remembered, and subscribed at the next connect
                self.failures.add("subscribe", f"{self.me}: {error}")

    def _hand_over_piece(self, digest: str, message: Message) -> None:
        """Runs in the session's thread."""
        self.post(partial(self._piece_arrived, digest, message))

    def _piece_filter(self, digest: str, piece: int) -> str:
        return self.names.filter(topics.PIECE, digest=digest, index=piece)

    def _request(self, holder: str, fetch: Fetch) -> None:
        payload = to_bytes({"protocol": PROTOCOL_VERSION, **asdict(fetch)})
        try:
            self.session.publish(
                self.names.topic(topics.FETCH, node=holder), payload, expiry_s=REQUEST_EXPIRY_S, wait_s=0.0
            )
        except BrokerError as error:  # what does not come is asked for again
            self.failures.add("publish", f"{self.me}: {error}")
