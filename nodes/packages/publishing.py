"""An operator's part: publish a package, roll one out, list what there is, remove it."""

from __future__ import annotations

import logging
import math
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from broker import topics
from broker.session import Message, Session
from broker.topics import Namespace
from nodes.config.credentials import Credentials
from nodes.config.sections import Config
from nodes.packages.exchange import Exchange
from nodes.protocol.border import Border
from nodes.protocol.messages import Applied, NodeInfo, to_bytes
from nodes.protocol.packages import Holdings, PublishedPackage, Seal, Version, versioned
from nodes.session.presence import guest_session
from pipeline import folders
from pipeline.errors import ConfigError, TrisectError
from pipeline.lite.package import Package
from pipeline.models import PreprocessMode
from pipeline.pieces.manifest import LEAST_PIECE_BYTES, PIECE_BYTES, PackageManifest, manifest_of, pieces_in
from pipeline.pieces.partial import WholeFile
from pipeline.plan import Plan, StreamId

_log = logging.getLogger(__name__)

CONNECT_WAIT_S: Final = 10.0
QUIET_S: Final = 0.5
HEADER_BYTES: Final = 4_096
"""Of a packet, besides a piece."""
LOOK_S: Final = 0.5


@dataclass
class Known:
    """What the broker retains of packages, versions, plans, and which of them nodes run."""

    packages: dict[str, PublishedPackage] = field(default_factory=dict)
    versions: dict[str, Version] = field(default_factory=dict)
    holdings: dict[str, Holdings] = field(default_factory=dict)
    plans: dict[str, Plan] = field(default_factory=dict)
    applied: dict[str, Applied] = field(default_factory=dict)
    infos: dict[str, NodeInfo] = field(default_factory=dict)

    def take(self, kind: topics.Topic, fields: Mapping[str, str], value: Any) -> None:
        """Take a message, or that there is none any more (None)."""
        tables: dict[topics.Topic, dict[str, Any]] = {
            topics.PACKAGE: self.packages,
            topics.VERSION: self.versions,
            topics.HOLDINGS: self.holdings,
            topics.PLAN: self.plans,
            topics.APPLIED: self.applied,
            topics.INFO: self.infos,
        }
        table = tables[kind]
        (key,) = fields.values()
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value

    def holders_of(self, digest: str) -> dict[str, frozenset[int]]:
        """Pieces of a package by who holds them."""
        found = {name: pieces_in(held.packages.get(digest, ())) for name, held in self.holdings.items()}
        return {name: pieces for name, pieces in found.items() if pieces}

    def active(self, stream: str, device: str) -> int:
        """The epoch that the stream's device stamps on new frames; 0 before there is any."""
        held = self.applied[device].streams.get(StreamId(stream)) if device in self.applied else None
        return held.active or 0 if held is not None else 0


_KINDS: Final = (topics.PACKAGE, topics.VERSION, topics.HOLDINGS, topics.PLAN, topics.APPLIED, topics.INFO)


class _Look:
    """A session that hears all that `Known` has; `known` is up to date as far as `take` was called."""

    def __init__(self, config: Config, session: Session) -> None:
        self.known = Known()
        self._names, self._border = Namespace(config.pipeline), Border(Namespace(config.pipeline))
        self._arrived: queue.SimpleQueue[Message] = queue.SimpleQueue()
        session.subscribe([self._names.filter(kind) for kind in _KINDS], self._arrived.put)

    def take(self, quiet_s: float = QUIET_S) -> Known:
        """Take what has come, until nothing does for a while."""
        with suppress(queue.Empty):
            while True:
                message = self._arrived.get(timeout=quiet_s)
                parsed, value = self._names.parse(message.topic), self._border.read(message)
                if parsed is not None and (value is not None or not message.payload):
                    self.known.take(*parsed, value)
        return self.known


def push(
    config: Config,
    path: Path,
    *,
    name: str | None = None,
    labels: Sequence[str] | None = None,
    mode: PreprocessMode | None = None,
    size: tuple[int, int] | None = None,
    waits: bool = True,
    progress: Callable[[Mapping[str, float]], None] = lambda shares: None,
) -> PackageManifest:
    """Publish a package, and serve its pieces until each is held by a node as well; returns its manifest.

    `progress` is given the share that each node holds. With `waits` False only what is said of it is published.
    Raises ModelError, ConfigError for who is no operator.
    """
    package = Package(path)
    member = config.broker.credentials
    with guest_session(config, "push") as session:
        session.start(CONNECT_WAIT_S)
        manifest = manifest_of(
            package,
            name=(name or package.graph.name).lower(),
            piece_bytes=_piece_bytes(session),
            labels=labels,
            mode=mode,
            size=size,
        )
        digest, names = manifest.digest, Namespace(config.pipeline)
        me = member.name if member is not None else session.name
        exchange = Exchange(config, session, me, folders.packages(), Border(names))
        exchange.start()
        exchange.offer(WholeFile(path, manifest))
        published = PublishedPackage(manifest, digest)
        published = PublishedPackage(manifest, digest, _seal(member, published.text(config.pipeline)))
        session.publish(names.topic(topics.PACKAGE, digest=digest), to_bytes(published.to_json()), retain=True)
        try:
            if waits:
                _until_held(config, session, me, manifest, progress)
        finally:
            exchange.stop()
            session.stop({names.topic(topics.HOLDINGS, node=me): b""})
    return manifest


def _until_held(
    config: Config,
    session: Session,
    me: str,
    manifest: PackageManifest,
    progress: Callable[[Mapping[str, float]], None],
) -> None:
    """Return once each piece is on some node."""
    look, digest = _Look(config, session), manifest.digest
    while True:
        holders = {name: held for name, held in look.take(LOOK_S).holders_of(digest).items() if name in config.nodes}
        progress({name: len(held) / len(manifest.pieces) for name, held in sorted(holders.items())})
        if frozenset().union(*holders.values()) >= manifest.whole:
            return


def _piece_bytes(session: Session) -> int:
    most = session.max_packet_bytes
    if most is None or most >= PIECE_BYTES + HEADER_BYTES:
        return PIECE_BYTES
    if most < LEAST_PIECE_BYTES + HEADER_BYTES:
        raise ConfigError(
            f"the broker accepts {most:,} bytes in a packet; a package's piece and its header need "
            f"{LEAST_PIECE_BYTES + HEADER_BYTES:,}: raise max_packet_size there"
        )
    return 1 << ((most - HEADER_BYTES).bit_length() - 1)


def _seal(member: Credentials | None, text: str) -> Seal | None:
    """An operator's seal under a text; None where there is no authority. Raises ConfigError for who is no operator."""
    if member is None:
        return None
    from nodes.enrolment.seal import OPERATOR, roles_in, sign

    if OPERATOR not in roles_in(member.certificate):
        raise ConfigError(
            f"{member.name} is enrolled as {', '.join(member.roles)}, and its certificate does not say {OPERATOR}: "
            f"use an operator's enrolment; one of an earlier trisect is renewed with `trisect renew {member.name}`"
        )
    return Seal(member.certificate, sign(text, member.key))


@dataclass(frozen=True, slots=True)
class Row:
    """A published package: whose version it is (by model, the number), and the share of it that each member holds."""

    package: str
    name: str
    model: str
    nbytes: int
    version_of: Mapping[str, int]
    held: Mapping[str, float]


def rows(config: Config) -> list[Row]:
    """What is published at the broker, by name."""
    with guest_session(config, "models") as session:
        session.start(CONNECT_WAIT_S)
        there = _Look(config, session).take()
    found = []
    for digest, package in there.packages.items():
        manifest = package.manifest
        held = {name: round(len(p) / len(manifest.pieces), 4) for name, p in sorted(there.holders_of(digest).items())}
        used = {model: one.number for model, one in there.versions.items() if one.package == digest}
        found.append(Row(digest, manifest.name, manifest.model, manifest.size, used, held))
    return sorted(found, key=lambda row: (row.name, row.package))


def roll_out(config: Config, model: str, package: str | None = None, *, timeout_s: float = 120.0) -> Version:
    """Have streams of this model go over to a package: the one of this digest's beginning, else the only new one.

    Returns once all of them run it. Raises ConfigError for a package that is not there or not the only one, and
    TrisectError when a device goes back, or not all have changed in time.
    """
    section = config.models.get(model)
    if section is None or not section.is_pushed:
        pushed = [name for name, one in config.models.items() if one.is_pushed]
        raise ConfigError(
            f"model {model!r} is none whose source is pushed in the configuration; such are: "
            f"{', '.join(pushed) or 'none'}"
        )
    member, names = config.broker.credentials, Namespace(config.pipeline)
    with guest_session(config, "rollout") as session:
        session.start(CONNECT_WAIT_S)
        look = _Look(config, session)
        there = look.take()
        digest, before = _chosen(there, model, package), there.versions.get(model)
        version = Version(
            model,
            digest,
            before.number + 1 if before is not None else 1,
            time.time(),
            member.name if member is not None else "",
        )
        sealed = _seal(member, version.text(config.pipeline))
        version = Version(version.model, version.package, version.number, version.ts, version.by, sealed)
        session.publish(names.topic(topics.VERSION, model=model), to_bytes(version), retain=True)
        _until_run(config, look, version, timeout_s)
    return version


def _chosen(there: Known, model: str, package: str | None) -> str:
    current = there.versions.get(model)
    found = [
        digest
        for digest, one in there.packages.items()
        if (digest.startswith(package) if package else one.manifest.name == model)
        and not (package is None and current is not None and current.package == digest)
    ]
    if len(found) == 1:
        return found[0]
    known_ones = ", ".join(f"{digest} ({one.manifest.name})" for digest, one in there.packages.items())
    which = f"package {package}" if package else f"a package of {model} that is not in use yet"
    raise ConfigError(
        f"{'several match' if found else 'there is not'} {which}; published: {known_ones or 'none'}; give its digest"
    )


def _until_run(config: Config, look: _Look, version: Version, timeout_s: float) -> None:
    streams = {name: stream.device for name, stream in config.streams.items() if stream.model == version.model}
    give_up = time.monotonic() + timeout_s
    first: dict[str, int] = {}  # epoch under this version, by stream
    while True:
        there = look.take(LOOK_S)
        for device in set(streams.values()):
            info = there.infos.get(device)
            if info is not None and version.name in info.refused_versions:
                raise TrisectError(
                    f"{device} went back to the version before: {info.refused_versions[version.name]}", node=device
                )
        for name, plan in there.plans.items():
            if plan.model == version.name:
                first.setdefault(name, plan.epoch)
        waiting = [name for name, device in streams.items() if there.active(name, device) < first.get(name, math.inf)]
        if not waiting:
            return
        if time.monotonic() > give_up:
            raise TrisectError(
                f"version {version.number} of {version.model} is published, and after {timeout_s:.0f} s streams "
                f"{', '.join(waiting)} do not run it; the version before runs on; see `trisect watch`"
            )


def remove(config: Config, package: str) -> str:
    """Publish a package no more, and have nodes delete it; returns its digest.

    Raises ConfigError while it is in use.
    """
    with guest_session(config, "remove") as session:
        session.start(CONNECT_WAIT_S)
        there = _Look(config, session).take()
        found = [digest for digest in there.packages if digest.startswith(package)]
        if len(found) != 1:
            raise ConfigError(
                f"{'several packages begin' if found else 'no package begins'} with {package!r}; published: "
                f"{', '.join(there.packages) or 'none'}"
            )
        (digest,) = found
        if used := [model for model, version in there.versions.items() if version.package == digest]:
            raise ConfigError(
                f"package {digest} is the version of {', '.join(used)}; roll another one out first, in its place"
            )
        if running := [name for name, plan in there.plans.items() if plan.model.endswith(versioned("", digest))]:
            raise ConfigError(f"package {digest} is still run by stream {', '.join(running)}")
        session.publish(Namespace(config.pipeline).topic(topics.PACKAGE, digest=digest), b"", retain=True)
    return digest
