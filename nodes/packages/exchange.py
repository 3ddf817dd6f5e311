"""A process's part in handing packages around: it learns what is published, fetches what it wants, serves what it has.

It has connections of its own, so that no tensor waits behind a piece, in either direction. One thread takes every
decision, another one publishes pieces (`uploads`). This is where messages and calls come in; what is published is in
`catalog`, what is here in `store`, who holds what in `availability`, and `downloads` fetches.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Collection, Hashable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from broker import topics
from broker.complaints import Complaints
from broker.session import Message, Session
from broker.topics import Namespace
from nodes.config.sections import Config
from nodes.packages.availability import Availability
from nodes.packages.catalog import Catalog
from nodes.packages.downloads import Done, Downloader, Failed, Job
from nodes.packages.store import PackageStore, Source
from nodes.packages.uploads import Uploader
from nodes.protocol.border import Border
from nodes.protocol.packages import MOST_PACKAGES, SHORT, Fetch, Holdings, PublishedPackage, Version
from pipeline.errors import TrisectError
from pipeline.pieces.partial import PartialPackage

_log = logging.getLogger(__name__)

TICK_S: Final = 0.25
STOP_WAIT_S: Final = 5.0


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
        self._session, self._me, self._border = session, me, border
        self._names = Namespace(config.pipeline)
        self._on_removed, self._keeps_all = on_removed, keeps_all
        self._awaited: dict[str, tuple[Done, Failed]] = {}
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.failures = Complaints(_log)
        self._catalog, self._store = Catalog(config, border, on_version), PackageStore(directory)
        self._availability = Availability(session, self._names, me, self._store)
        self._downloader = Downloader(
            session,
            self._names,
            me,
            border,
            self._store,
            self._availability,
            self.failures,
            share=int.from_bytes(hashlib.sha256(me.encode()).digest()[:4], "big") / 2.0**32,
            post=self._jobs.put,
        )
        self._uploader = Uploader(
            session, self._names, me, border, self._store, self.failures, on_unreadable=self._piece_unreadable
        )
        self._thread = threading.Thread(target=self._run, name=f"{me}.packages", daemon=True)

    # From any thread.

    def start(self) -> None:
        """Subscribe and begin; the session is the caller's to start, with `connected` as its `on_up`."""
        for kind, take in (
            (topics.PACKAGE, self._package_arrived),
            (topics.VERSION, self._version_arrived),
            (topics.HOLDINGS, self._holdings_arrived),
        ):
            self._session.subscribe([self._names.filter(kind)], partial(self._hand_over, take))
        requests = self._names.topic(topics.FETCH, node=self._me)
        self._session.subscribe([requests], partial(self._hand_over, self._request_arrived))
        self._thread.start()
        self._uploader.start()

    def stop(self) -> None:
        """End; what has come stays on the disk. The session is the caller's to stop, after this."""
        self._uploader.stop()
        self._jobs.put(None)
        self._thread.join(STOP_WAIT_S)
        self._uploader.join(STOP_WAIT_S)

    def connected(self) -> None:
        """The session is up, perhaps again."""
        self._jobs.put(self._reconnected)

    def offer(self, source: Source) -> None:
        """Serve what somebody has from now on: a whole file that is published from here."""
        self._jobs.put(partial(self._offer, source))

    def want(self, key: Hashable, package: str, blocks: Collection[int] | None, done: Done, failed: Failed) -> None:
        """Have what these blocks need (None: all of it) of a published package here, then say so."""
        self._jobs.put(partial(self._want, key, package, blocks, done, failed))

    def want_header(self, short: str, done: Done, failed: Failed) -> None:
        """Have the header of the package whose digest begins so, once it is published."""
        self._jobs.put(partial(self._want_header, short, done, failed))

    def drop(self, key: Hashable) -> None:
        """Want it no longer; what has come stays until its room is needed."""
        self._jobs.put(partial(self._downloader.drop, key))

    @property
    def published(self) -> Mapping[str, PublishedPackage]:
        """What is published, by digest."""
        return self._catalog.packages

    @property
    def received_bytes_total(self) -> int:
        """Bytes of pieces that have come, the refused ones' too."""
        return self._downloader.received_bytes_total

    @property
    def sent_bytes_total(self) -> int:
        """Bytes of pieces that were published."""
        return self._uploader.sent_bytes_total

    @property
    def duplicates_total(self) -> int:
        """Pieces that came and were here already."""
        return self._downloader.duplicates_total

    @property
    def refused_total(self) -> int:
        """Pieces that were not the manifest's."""
        return self._downloader.refused_total

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

    def _piece_unreadable(self, digest: str, piece: int) -> None:
        self._jobs.put(partial(self._downloader.look_after_damage, digest, piece))

    # In the exchange's thread.

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

    def _read(self, take: Callable[[Any, Message, float], None], message: Message, now: float) -> None:
        value = self._border.read(message)
        if value is not None or not message.payload:
            take(value, message, now)

    def _tick(self, now: float) -> None:
        self._downloader.tick(now)
        self._availability.announce(now)

    def _reconnected(self, now: float) -> None:
        self._availability.announce(now, at_once=True)
        self._downloader.reconnected(now)

    def _package_arrived(self, package: PublishedPackage | None, message: Message, now: float) -> None:
        if package is None:
            self._package_removed(message.topic)
            return
        if not self._catalog.add_package(message.topic, package):
            return
        digest, manifest = package.digest, package.manifest
        if (awaited := self._awaited.pop(digest[:SHORT], None)) is not None:
            self._want(("header", digest), digest, (), *awaited, now)
        if self._keeps_all:
            name = manifest.name
            self._want("all", digest, None, partial(self._has_all, name), partial(self._lacks, name), now)
        elif self._store.has_file(digest) and digest not in self._store.sources:
            self._downloader.resume(digest, manifest)
        self._catalog.report_versions()

    def _has_all(self, name: str, package: PartialPackage) -> None:
        _log.info("has all of package %s of %s", package.digest, name)

    def _lacks(self, name: str, error: Exception) -> None:
        _log.warning("cannot keep all of a package of %s: %s", name, error)

    def _package_removed(self, topic: str) -> None:
        digest = self._field(topic, "digest")
        if self._catalog.remove_package(digest):
            self._downloader.remove(digest)
            self._on_removed(digest)

    def _version_arrived(self, version: Version | None, message: Message, now: float) -> None:
        if version is None:
            self._catalog.remove_version(self._field(message.topic, "model"))
        else:
            self._catalog.add_version(message.topic, version)

    def _holdings_arrived(self, holdings: Holdings | None, message: Message, now: float) -> None:
        node = self._field(message.topic, "node")
        if node != self._me:
            self._availability.take(node, holdings)
            self._downloader.availability_changed(node, now)

    def _request_arrived(self, fetch: Fetch | None, message: Message, now: float) -> None:
        if fetch is not None:
            self._uploader.take_request(message.topic, fetch)

    def _field(self, topic: str, name: str) -> str:
        parsed = self._names.parse(topic)
        return parsed[1][name] if parsed else ""

    def _offer(self, source: Source, now: float) -> None:
        self._store.sources[source.manifest.digest] = source
        self._availability.announce(now, at_once=True)

    def _want_header(self, short: str, done: Done, failed: Failed, now: float) -> None:
        digest = next((digest for digest in self._catalog.packages if digest.startswith(short)), None)
        if digest is not None:
            self._want(("header", digest), digest, (), done, failed, now)
        elif len(self._awaited) < MOST_PACKAGES:
            self._awaited[short] = done, failed

    def _want(
        self,
        key: Hashable,
        package: str,
        blocks: Collection[int] | None,
        done: Done,
        failed: Failed,
        now: float,
    ) -> None:
        published = self._catalog.packages.get(package)
        if published is None:
            failed(TrisectError(f"package {package} is not published; `trisect model list` shows those that are"))
            return
        self._downloader.want(key, package, published.manifest, blocks, done, failed, now)
