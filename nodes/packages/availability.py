"""Who holds which pieces: others as they say, and this process as it says itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from broker import topics
from broker.session import Session
from broker.topics import Namespace
from nodes.packages.store import PackageStore
from nodes.protocol.messages import to_bytes
from nodes.protocol.packages import Holdings
from pipeline.pieces.manifest import PackageManifest, pieces_in, spans_of

ANNOUNCE_EVERY_S: Final = 2.0
"""While pieces come, what is held is published this often."""
MOST_HOLDERS: Final = 2_048


@dataclass(slots=True)
class Availability:
    """`me` is this process's name, under which its own holdings are retained. `now` is seconds of a monotonic clock."""

    session: Session
    names: Namespace
    me: str
    store: PackageStore
    _others: dict[str, Holdings] = field(default_factory=dict)
    _announced: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    _announced_at: float = 0.0

    def take(self, node: str, holdings: Holdings | None) -> None:
        """Take what another process holds; None for one that holds nothing any more."""
        if holdings is None:
            self._others.pop(node, None)
        elif node in self._others or len(self._others) < MOST_HOLDERS:
            self._others[node] = holdings

    def pieces_of(self, node: str, package: str, manifest: PackageManifest) -> frozenset[int]:
        """Pieces of a package that another process holds."""
        holdings, most = self._others.get(node), len(manifest.pieces)
        spans = holdings.packages.get(package, ()) if holdings is not None else ()
        return pieces_in((start, min(end, most)) for start, end in spans)  # whatever it claims

    def holders_of(self, package: str, manifest: PackageManifest) -> dict[str, frozenset[int]]:
        """Pieces of a package by each other process that is known."""
        return {node: self.pieces_of(node, package, manifest) for node in self._others}

    def announce(self, now: float, *, at_once: bool = False) -> None:
        """Publish what is held here if that has changed, at most every `ANNOUNCE_EVERY_S` unless `at_once`."""
        if not at_once and now - self._announced_at < ANNOUNCE_EVERY_S:
            return
        held = {package: spans_of(pieces) for package, pieces in self.store.held().items()}
        if held != self._announced:
            self._announced, self._announced_at = held, now
            topic = self.names.topic(topics.HOLDINGS, node=self.me)
            self.session.keep(topic, to_bytes(Holdings(self.me, held)))  # type: ignore[arg-type]
