"""The models of a node whose packages come from the broker: their versions, and the pieces of them that plans need."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from broker import topics
from broker.messages import Message
from broker.topics import Namespace
from nodes.config.sections import Config
from nodes.packages.exchange import Exchange
from nodes.protocol.border import Border
from nodes.protocol.packages import MOST_PACKAGES, PublishedPackage, Version
from nodes.session.presence import guest_session
from pipeline import folders
from pipeline.answers.task import Task
from pipeline.errors import ConfigError, ModelError
from pipeline.frames.decode import Preprocess
from pipeline.graph import ModelGraph
from pipeline.lite.package import Package
from pipeline.pieces.manifest import PackageManifest
from pipeline.pieces.partial import PartialPackage
from pipeline.plan import NodeId, Plan

_log = logging.getLogger(__name__)

WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Pushed:
    """A version of a model that can be planned with: its header is here. `name` is the version's, of `model`."""

    model: str
    name: str
    digest: str
    package: Package
    manifest: PackageManifest

    @property
    def preprocess(self) -> Preprocess:
        """Preprocessing of frames, as it has travelled with the package."""
        height, width = self.manifest.height, self.manifest.width
        return Preprocess(size=(height, width) if height and width else None, mode=self.manifest.mode)

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the classes, likewise."""
        return self.manifest.labels

    @property
    def task(self) -> Task | None:
        """The task, likewise; None where the package has none."""
        return self.manifest.task


class Follower(Protocol):
    """Who is told of versions."""

    def version_arrived(self, pushed: Pushed) -> None:
        """A new version was rolled out; its header is here."""

    def older_arrived(self, pushed: Pushed) -> None:
        """The header is here of a version that a plan has, and that is not the newest."""

    def version_refused(self, name: str, error: Exception) -> None:
        """A version cannot be used."""


class PushedModels:
    """A context around a node's life. `on_whole` is called, in another thread, with a version's name when all of its
    package is here; `check` raises ModelError or ConfigError for a version that does not fit the configuration.

    Besides the newest version of each model there is the one that a stream's plan still has: a node that starts in the
    middle of a roll-out goes on with that until there is a plan of the newest.
    """

    def __init__(
        self,
        config: Config,
        node: NodeId,
        models: Collection[str],
        border: Border,
        *,
        check: Callable[[Pushed], None],
        on_whole: Callable[[str], None],
    ) -> None:
        self._models, self._node = frozenset(models), node
        self._follower: Follower | None = None
        self._check, self._on_whole = check, on_whole
        self._known: dict[str, Pushed] = {}
        self._newest: dict[str, Pushed] = {}
        self._refused: dict[str, Exception] = {}
        self._first: list[Pushed] = []
        self._files: dict[str, PartialPackage] = {}
        self._arrived = threading.Condition()
        self._exchange: Exchange | None = None
        keeps_all = config.nodes[node].store
        if self._models or keeps_all:
            names = Namespace(config.pipeline)
            self._holdings_topic, self._plans_topic = (
                names.topic(topics.HOLDINGS, node=node),
                names.filter(topics.PLAN),
            )
            self._session = guest_session(config, "packages", on_up=self._on_up)
            self._exchange = Exchange(
                config,
                self._session,
                str(node),
                folders.packages(),
                border,
                on_version=self._version_arrived,
                keeps_all=keeps_all,
            )
            self._border = border

    def __enter__(self) -> PushedModels:
        if self._exchange is not None:
            self._exchange.start()
            if self._models:
                self._session.subscribe([self._plans_topic], self._plan_arrived)
            self._session.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._exchange is not None:
            self._exchange.stop()
            self._session.stop({self._holdings_topic: b""})

    def first(self) -> list[Pushed]:
        """The newest version of each model that can be used, once all are here; waits for as long as it takes."""
        waited = 0
        with self._arrived:
            while missing := sorted(self._models - self._newest.keys()):
                if waited == 1:
                    _log.info(
                        "waits for a version of %s: `trisect model push FILE` and `trisect model roll-out %s`",
                        ", ".join(missing),
                        missing[0],
                    )
                waited += 1
                self._arrived.wait(WAIT_S)
            self._first = [self._newest[model] for model in sorted(self._models)]
            return list(self._first)

    def follow(self, follower: Follower) -> None:
        """Tell it of each version after `first`'s: here of those that have come since, later in another thread."""
        with self._arrived:
            self._follower = follower
            for pushed in self._known.values():
                if pushed not in self._first:
                    self._tell(pushed)
            for name, error in self._refused.items():
                follower.version_refused(name, error)

    def is_whole(self, name: str) -> bool:
        """True for a model of which all is here, as of one that was not pushed."""
        file = self._files.get(name)
        return file is None or file.is_whole

    def fetch(
        self,
        key: Hashable,
        graph: ModelGraph,
        name: str,
        blocks: Collection[int],
        done: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Have what these blocks of a version need here, then say so; at once for a model that was not pushed.

        `graph` is the one that the blocks are of, perhaps with the input's own before the network's.
        """
        pushed = self._known.get(name)
        if pushed is None or self._exchange is None:
            done()
            return

        def here(file: PartialPackage) -> None:
            if file.is_whole:
                self._on_whole(name)
            done()

        self._exchange.want(key, pushed.digest, pushed.manifest.own_blocks(graph, blocks), here, failed)

    def drop(self, key: Hashable) -> None:
        """Fetch it no longer; who waits for it is told that it failed."""
        if self._exchange is not None:
            self._exchange.drop(key)

    def report(self) -> dict[str, float]:
        """Telemetry."""
        return self._exchange.report() if self._exchange is not None else {}

    @property
    def internal_errors_total(self) -> int:
        """Faults in the exchange's threads."""
        return self._exchange.internal_errors_total if self._exchange is not None else 0

    def _on_up(self) -> None:
        assert self._exchange is not None
        self._exchange.connected()

    def _plan_arrived(self, message: Message) -> None:
        """In the session's thread: have the version that a plan has, if that is not known as the newest already."""
        plan = self._border.read(message)
        if not isinstance(plan, Plan) or self._exchange is None:
            return
        model, _, short = plan.model.rpartition(".")
        if model in self._models and plan.model not in self._known:
            opened = partial(self._opened, model, plan.model, None)
            self._exchange.want_header(short, opened, partial(self._not_opened, plan.model))

    # In the exchange's thread.

    def _version_arrived(self, version: Version, package: PublishedPackage) -> None:
        if version.model not in self._models:
            return
        assert self._exchange is not None
        opened = partial(self._opened, version.model, version.name, version.number)
        failed = partial(self._not_opened, version.name)
        self._exchange.want(("version", version.name), package.digest, (), opened, failed)

    def _opened(self, model: str, name: str, number: int | None, file: PartialPackage) -> None:
        """A package's header is here: that of a model's newest version, by its number, or that which a plan has."""
        try:
            pushed = Pushed(model, name, file.digest, file.open(name), file.manifest)
            self._check(pushed)
        except (ModelError, ConfigError) as error:
            self._not_opened(name, error)
            return
        with self._arrived:
            if number is not None:
                _log.info("version %d of %s is package %s", number, model, file.digest)
                self._newest[model] = pushed
            elif name in self._known:
                return
            elif any(refused.rpartition(".")[0] == model for refused in self._refused):
                self._newest.setdefault(model, pushed)  # a node that starts would wait for another roll-out
            self._known[name] = pushed
            self._files[name] = file
            self._refused.pop(name, None)
            self._arrived.notify_all()
            self._tell(pushed)

    def _tell(self, pushed: Pushed) -> None:
        if self._follower is not None:
            is_newest = self._newest.get(pushed.model) == pushed
            (self._follower.version_arrived if is_newest else self._follower.older_arrived)(pushed)

    def _not_opened(self, name: str, error: Exception) -> None:
        _log.warning("version %s is refused: %s", name, error)
        with self._arrived:
            while len(self._refused) >= MOST_PACKAGES:
                del self._refused[next(iter(self._refused))]
            self._refused[name] = error
            older = [one for one in self._known.values() if one.model == name.rpartition(".")[0]]
            if older:
                self._newest.setdefault(older[0].model, older[-1])
                self._arrived.notify_all()
            if self._follower is not None:
                self._follower.version_refused(name, error)
