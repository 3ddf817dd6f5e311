"""The models of a node whose packages come from the broker: their versions, and the pieces of them that plans need."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass
from functools import partial

from broker import topics
from broker.topics import Namespace
from nodes.config.sections import Config
from nodes.packages.exchange import Exchange
from nodes.protocol.border import Border
from nodes.protocol.packages import PublishedPackage, Version
from nodes.session.presence import guest_session
from pipeline import folders
from pipeline.answers.task import Task
from pipeline.errors import ModelError
from pipeline.frames.decode import Preprocess
from pipeline.graph import ModelGraph
from pipeline.lite.package import Package
from pipeline.pieces.manifest import PackageManifest
from pipeline.pieces.partial import PartialPackage
from pipeline.plan import NodeId

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


class PushedModels:
    """A context around a node's life. `on_whole` is called, in another thread, with a version's name when all of its
    package is here.
    """

    def __init__(
        self,
        config: Config,
        node: NodeId,
        models: Collection[str],
        border: Border,
        *,
        on_whole: Callable[[str], None],
    ) -> None:
        self._models, self._node = frozenset(models), node
        self._on_version: Callable[[Pushed], None] | None = None
        self._on_whole = on_whole
        self._known: dict[str, Pushed] = {}
        self._newest: dict[str, Pushed] = {}
        self._first: list[Pushed] = []
        self._files: dict[str, PartialPackage] = {}
        self._arrived = threading.Condition()
        self._exchange: Exchange | None = None
        keeps_all = config.nodes[node].store
        if self._models or keeps_all:
            self._holdings_topic = Namespace(config.pipeline).topic(topics.HOLDINGS, node=node)
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

    def __enter__(self) -> PushedModels:
        if self._exchange is not None:
            self._exchange.start()
            self._session.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._exchange is not None:
            self._exchange.stop()
            self._session.stop({self._holdings_topic: b""})

    def first(self) -> list[Pushed]:
        """The newest version of each model, once all are here; waits for as long as it takes."""
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

    def follow(self, on_version: Callable[[Pushed], None]) -> None:
        """Call it with each version after `first`'s: here with those that have come since, later in another thread."""
        with self._arrived:
            self._on_version = on_version
            for pushed in self._newest.values():
                if pushed not in self._first:
                    on_version(pushed)

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

    # In the exchange's thread.

    def _version_arrived(self, version: Version, package: PublishedPackage) -> None:
        if version.model not in self._models:
            return
        assert self._exchange is not None
        key = "header", version.name
        opened = partial(self._opened, version, package)
        self._exchange.want(key, package.digest, (), opened, partial(self._not_opened, version))

    def _opened(self, version: Version, package: PublishedPackage, file: PartialPackage) -> None:
        try:
            pushed = Pushed(version.model, version.name, package.digest, file.open(version.name), package.manifest)
        except ModelError as error:
            self._not_opened(version, error)
            return
        _log.info("version %d of %s is package %s", version.number, version.model, package.digest)
        with self._arrived:
            self._known[version.name] = self._newest[version.model] = pushed
            self._files[version.name] = file
            self._arrived.notify_all()
            if self._on_version is not None:
                self._on_version(pushed)

    def _not_opened(self, version: Version, error: Exception) -> None:
        _log.warning("version %d of %s cannot be used: %s", version.number, version.model, error)
