"""What nodes have to fetch of pushed packages before they can run a plan, and how long that takes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from nodes.protocol.messages import LinkReport
from nodes.protocol.packages import MOST_PACKAGES, SHORT, Holdings, PublishedPackage
from pipeline.graph import ModelGraph
from pipeline.pieces.manifest import PackageManifest, Spans, pieces_in
from pipeline.placement import Placement, Tier, stages
from pipeline.plan import NodeId
from pipeline.tiles.tiling import Tiling

MOST_HOLDERS = 2_048
MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Fetch:
    """Bytes that a node fetches first, and about how many seconds that takes."""

    node: NodeId
    nbytes: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.node} fetches {self.nbytes / MEGABYTE:,.1f} MB first, about {self.seconds:.1f} s"


@dataclass(slots=True)
class Fetches:
    """Filled by what is published and held; `link_of` has a node's link as it is now, None before it was measured."""

    link_of: Callable[[NodeId], LinkReport | None]
    _packages: dict[str, tuple[str, PackageManifest]] = field(default_factory=dict)
    _held: dict[str, Mapping[str, Spans]] = field(default_factory=dict)
    """As spans: a short message may claim millions of pieces. They are counted as far as a manifest has them."""

    def learn_package(self, package: PublishedPackage) -> None:
        """Take what is published, perhaps again; of more than `MOST_PACKAGES` the one learnt longest ago goes."""
        self._packages.pop(package.digest[:SHORT], None)
        while len(self._packages) >= MOST_PACKAGES:
            del self._packages[next(iter(self._packages))]
        self._packages[package.digest[:SHORT]] = package.digest, package.manifest

    def forget_package(self, digest: str) -> None:
        """Take that a package is published no more."""
        known = self._packages.get(digest[:SHORT])
        if known is not None and known[0] == digest:
            del self._packages[digest[:SHORT]]

    def learn_holdings(self, holdings: Holdings) -> bool:
        """Take what a process holds, nothing when it has left; returns whether pieces have come to it."""
        if not holdings.packages:
            self._held.pop(holdings.node, None)
            return False
        if holdings.node not in self._held and len(self._held) >= MOST_HOLDERS:
            return False
        published = dict(self._packages.values())
        before = {digest: self._pieces(holdings.node, digest, manifest) for digest, manifest in published.items()}
        self._held[holdings.node] = holdings.packages
        return any(self._pieces(holdings.node, digest, published[digest]) - held for digest, held in before.items())

    def _pieces(self, node: str, digest: str, manifest: PackageManifest) -> frozenset[int]:
        """Pieces of a published package that a process holds."""
        spans = self._held.get(node, {}).get(digest, ())
        most = len(manifest.pieces)
        return pieces_in((start, min(end, most)) for start, end in spans)

    def of_blocks(self, node: NodeId, model: str, graph: ModelGraph, blocks: Collection[int]) -> Fetch | None:
        """What the node lacks to run these blocks of a model; None for nothing, as of a model that was not pushed."""
        known = self._packages.get(model.rpartition(".")[2])
        if known is None or len(graph) < len(known[1].blocks):
            return None
        digest, manifest = known
        missing = manifest.needed(manifest.own_blocks(graph, blocks)) - self._pieces(node, digest, manifest)
        nbytes = sum(map(manifest.nbytes_of, missing))
        return Fetch(node, nbytes, nbytes / self._rate(node, digest)) if nbytes else None

    def of_plan(
        self, model: str, graph: ModelGraph, placement: Placement, nodes: Mapping[Tier, str], tiles: Tiling | None
    ) -> tuple[Fetch, ...]:
        """What each node of a plan fetches before it can run, the longest first."""
        found = [self.of_blocks(node, model, graph, blocks) for node, blocks in _blocks(graph, placement, nodes, tiles)]
        return tuple(sorted((one for one in found if one is not None), key=lambda one: -one.seconds))

    def _rate(self, node: NodeId, digest: str) -> float:
        """Bytes per second from the best of the nodes that hold some of it, as far as links were measured."""
        senders = [self.link_of(NodeId(one)) for one, held in self._held.items() if digest in held and one != node]
        ups = [report.up_bytes_per_s for report in senders if report is not None]
        mine = self.link_of(node)
        rates = [*([max(ups)] if ups else []), *([mine.down_bytes_per_s] if mine is not None else [])]
        return min(rates, default=1.0 * MEGABYTE)


def _blocks(
    graph: ModelGraph, placement: Placement, nodes: Mapping[Tier, str], tiles: Tiling | None
) -> Iterator[tuple[NodeId, Collection[int]]]:
    for stage in stages(graph, placement):
        yield NodeId(nodes[stage.tier]), stage.blocks
    if tiles is not None:
        stack = tiles.stack(graph).blocks
        yield from ((worker, stack) for worker in dict.fromkeys(tiles.workers) if worker != nodes.get(Tier.EDGE))
