"""Packages handed around over a real broker: each node gets what it wants, sent once, and lies are refused."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from broker import topics
from broker.server import Server
from broker.session import Session
from broker.topics import Namespace
from nodes.cli import demo
from nodes.config.loader import load_config
from nodes.config.sections import Config
from nodes.packages.exchange import Exchange
from nodes.protocol.border import Border
from nodes.protocol.messages import to_bytes
from nodes.protocol.packages import PublishedPackage, Version
from nodes.session.presence import guest_session
from nodes.tier.pushed_models import Pushed, PushedModels
from pipeline.errors import ModelError
from pipeline.pieces.manifest import LEAST_PIECE_BYTES, PackageManifest, manifest_of
from pipeline.pieces.partial import PartialPackage, WholeFile
from pipeline.protocol_version import PROTOCOL_VERSION
from tests.unit.nodes.tier.machine.test_tier import GRAPH, plan
from tests.unit.pipeline.pieces.test_pieces import package_file

PATIENCE_S = 60.0


@dataclass
class Member:
    """One process's exchange, as if it were alone on its machine."""

    config: Config
    name: str
    directory: Path
    border: Border
    done: queue.SimpleQueue[PartialPackage | Exception] = field(default_factory=queue.SimpleQueue)
    versions: queue.SimpleQueue[Version] = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        self.session: Session = guest_session(self.config, "packages", on_up=self._up)
        self.exchange = Exchange(
            self.config,
            self.session,
            self.name,
            self.directory,
            self.border,
            on_version=lambda version, package: self.versions.put(version),
        )
        self.exchange.start()
        self.session.start(PATIENCE_S)

    def _up(self) -> None:
        self.exchange.connected()

    def want(self, package: str, blocks: list[int] | None) -> None:
        self.exchange.want("x", package, blocks, self.done.put, self.done.put)

    def got(self) -> PartialPackage:
        found = self.done.get(timeout=PATIENCE_S)
        assert isinstance(found, PartialPackage), found
        return found

    def stop(self) -> None:
        self.exchange.stop()
        self.session.stop()


@dataclass
class Lab:
    """A broker, a package that an operator publishes, and members that are stopped at the end."""

    config: Config
    source: Path
    manifest: PackageManifest
    folder: Path
    server: Server
    members: list[Member] = field(default_factory=list)

    @property
    def names(self) -> Namespace:
        return Namespace(self.config.pipeline)

    def member(self, name: str) -> Member:
        made = Member(self.config, name, self.folder / name, Border(self.names))
        self.members.append(made)
        return made

    def publish(self, *, serves: bool = True) -> Member:
        """What `trisect model push` does, without its signature."""
        operator = self.member("operator")
        if serves:
            operator.exchange.offer(WholeFile(self.source, self.manifest))
        self._announce(operator, self.manifest)
        return operator

    def another(self, operator: Member, seed: int) -> str:
        """Publish a package of other weights; returns its digest."""
        package = package_file(self.folder / f"{seed}.trisect", seed=seed)
        manifest = manifest_of(package, name="chain", piece_bytes=LEAST_PIECE_BYTES)
        operator.exchange.offer(WholeFile(package.path, manifest))
        self._announce(operator, manifest)
        return manifest.digest

    def _announce(self, operator: Member, manifest: PackageManifest) -> None:
        package = PublishedPackage(manifest, manifest.digest)
        topic = self.names.topic(topics.PACKAGE, digest=package.digest)
        operator.session.publish(topic, to_bytes(package.to_json()), retain=True)


@pytest.fixture
def lab(tmp_path: Path, server: Server) -> Iterator[Lab]:
    path = tmp_path / "chain.trisect"
    package = package_file(path, weights=160_000)
    config = load_config(demo.write_config(tmp_path, "mobilenet_v2", server.port))
    manifest = manifest_of(package, name="chain", piece_bytes=LEAST_PIECE_BYTES)
    made = Lab(config, path, manifest, tmp_path, server)
    yield made
    for member in made.members:
        member.stop()


def wait(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.02)


def known(member: Member, lab: Lab) -> None:
    wait(lambda: lab.manifest.digest in member.exchange.published)


def test_each_node_gets_the_blocks_that_it_wants_and_no_others(lab: Lab) -> None:
    operator, wanted = lab.publish(), {"a": [1], "b": [2, 3], "c": [4, 5]}
    members = {name: lab.member(name) for name in wanted}
    needed = {name: lab.manifest.needed(blocks) for name, blocks in wanted.items()}
    for name, member in members.items():
        known(member, lab)
        member.want(lab.manifest.digest, wanted[name])
    original = package_file(lab.folder / "again.trisect", weights=160_000)
    for name, member in members.items():
        package = member.got()
        assert package.held == needed[name]
        opened = package.open("chain.v")
        for block in wanted[name]:
            (array,) = opened.program.arrays_of(block)
            np.testing.assert_array_equal(opened.array(array), original.array(array))
    least = sum(lab.manifest.nbytes_of(piece) for pieces in needed.values() for piece in pieces)
    assert operator.exchange.sent_bytes_total <= least + 0.05 * lab.manifest.size


def test_who_has_pieces_serves_them_when_who_published_is_gone(lab: Lab) -> None:
    operator = lab.publish()
    first = lab.member("a")
    known(first, lab)
    first.want(lab.manifest.digest, None)
    assert first.got().is_whole
    lab.members.remove(operator)
    operator.exchange.stop()
    operator.session.stop({lab.names.topic(topics.HOLDINGS, node="operator"): b""})
    second = lab.member("b")
    known(second, lab)
    second.want(lab.manifest.digest, None)
    assert second.got().is_whole
    assert first.exchange.sent_bytes_total >= lab.manifest.size


def test_pieces_that_are_not_the_manifests_are_refused_and_counted_and_asked_of_others(lab: Lab) -> None:
    operator = lab.publish(serves=False)
    node, digest = lab.member("a"), lab.manifest.digest
    known(node, lab)
    node.want(digest, None)
    lies = {1: b"", 2: bytes(LEAST_PIECE_BYTES), 3: b"too short", 4: bytes(LEAST_PIECE_BYTES + 1)}
    with guest_session(lab.config, "liar") as liar:
        liar.start(PATIENCE_S)

        def lie() -> bool:
            """Again until the node has subscribed."""
            for index, payload in lies.items():
                liar.publish(lab.names.topic(topics.PIECE, node="liar", digest=digest, index=index), payload)
            return node.exchange.refused_total >= 2 * len(lies)

        wait(lie)
    assert node.border.total == node.exchange.refused_total
    operator.exchange.offer(WholeFile(lab.source, lab.manifest))
    assert node.got().held == lab.manifest.whole
    assert operator.exchange.failures.total == node.exchange.failures.total == 0


def test_a_request_for_pieces_that_there_are_not_is_refused(lab: Lab) -> None:
    operator, names = lab.publish(), lab.names
    wait(lambda: bool(operator.exchange.published))
    with guest_session(lab.config, "asks") as session:
        session.start(PATIENCE_S)
        for pieces in ([[0, 10**4]], [[5_000, 5_001]], [], [[-1, 2]]):
            asked = {"protocol": PROTOCOL_VERSION, "package": lab.manifest.digest, "pieces": pieces}
            session.publish(names.topic(topics.FETCH, node="operator"), to_bytes(asked))
        wait(lambda: operator.border.total >= 4)
    assert operator.exchange.sent_bytes_total == 0


def test_a_fetch_goes_on_where_it_was_broken_off(lab: Lab) -> None:
    operator, node = lab.publish(), lab.member("a")
    known(node, lab)
    node.want(lab.manifest.digest, None)
    wait(lambda: node.exchange.received_bytes_total > lab.manifest.size // 5)
    node.stop()
    lab.members.remove(node)
    sent = operator.exchange.sent_bytes_total
    again = lab.member("a")
    known(again, lab)
    again.want(lab.manifest.digest, None)
    assert again.got().is_whole
    assert sent < lab.manifest.size
    assert operator.exchange.sent_bytes_total <= lab.manifest.size * 1.2 + 16 * LEAST_PIECE_BYTES


def test_an_older_version_does_not_come_back(lab: Lab) -> None:
    lab.publish()
    node = lab.member("a")
    known(node, lab)
    topic = lab.names.topic(topics.VERSION, model="chain")
    with guest_session(lab.config, "rolls") as session:
        session.start(PATIENCE_S)
        for number in (2, 1, 3):
            session.publish(topic, to_bytes(Version("chain", lab.manifest.digest, number)), retain=True)
        assert [node.versions.get(timeout=PATIENCE_S).number for _ in range(2)] == [2, 3]
    assert node.border.total == 1


def test_a_cache_that_is_too_small_says_so_with_the_numbers(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRISECT_PACKAGES_GB", "0.0001")
    lab.publish()
    node = lab.member("a")
    known(node, lab)
    node.want(lab.manifest.digest, None)
    error = node.done.get(timeout=PATIENCE_S)
    assert "TRISECT_PACKAGES_GB allows 0.00" in str(error)


@dataclass
class Told:
    """What a node is told of versions while it serves."""

    newest: queue.SimpleQueue[Pushed] = field(default_factory=queue.SimpleQueue)
    older: queue.SimpleQueue[Pushed] = field(default_factory=queue.SimpleQueue)
    refused: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)

    def version_arrived(self, pushed: Pushed) -> None:
        self.newest.put(pushed)

    def older_arrived(self, pushed: Pushed) -> None:
        self.older.put(pushed)

    def version_refused(self, name: str, error: Exception) -> None:
        self.refused.put(f"{name}: {error}")


def test_versions_that_come_while_a_node_loads_or_are_older_or_do_not_fit(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(lab.folder / "cache"))
    caplog.set_level("INFO", "nodes.tier.pushed_models")
    operator = lab.publish()
    later = [lab.another(operator, seed) for seed in (1, 2, 3)]

    def roll_out(number: int, digest: str, said: str = "version {} of chain is package {}") -> None:
        topic = lab.names.topic(topics.VERSION, model="chain")
        operator.session.publish(topic, to_bytes(Version("chain", digest, number)), retain=True)
        wait(lambda: said.format(number, digest) in caplog.text)

    def check(pushed: Pushed) -> None:
        if pushed.digest == later[2]:
            raise ModelError("it finds no boxes")

    def models() -> PushedModels:
        node, border = demo.NODES[0], Border(lab.names)
        return PushedModels(lab.config, node, ["chain"], border, check=check, on_whole=lambda name: None)

    told, unfit = Told(), f"chain.{later[2][:12]}"
    with models() as node:
        roll_out(1, lab.manifest.digest)
        (first,) = node.first()
        roll_out(2, later[0])  # nobody follows yet
        node.follow(told)
        second = told.newest.get(timeout=PATIENCE_S)
        roll_out(3, later[1])
        third = told.newest.get(timeout=PATIENCE_S)
        assert [first.digest, second.digest, third.digest] == [lab.manifest.digest, *later[:2]]
        roll_out(4, later[2], f"version {unfit} is refused")
        assert told.refused.get(timeout=PATIENCE_S) == f"{unfit}: it finds no boxes"
        assert (told.newest.empty(), told.older.empty(), node.internal_errors_total) == (True, True, 0)
    # it starts again while the newest version is one that does not fit, and a plan still has an older one
    running = replace(plan(1), model=f"chain.{later[1][:12]}")
    payload = to_bytes(running.to_json(GRAPH))
    operator.session.publish(lab.names.topic(topics.PLAN, stream=running.stream), payload, retain=True)
    with models() as node:
        assert [one.name for one in node.first()] == [running.model]
        again = Told()
        node.follow(again)
        assert again.refused.get(timeout=PATIENCE_S).startswith(unfit)
        roll_out(5, later[0])
    # and in the middle of a roll-out, when both fit
    with models() as node:
        assert [one.name for one in node.first()] == [second.name]
        node.follow(again)
        assert again.older.get(timeout=PATIENCE_S).name == running.model
