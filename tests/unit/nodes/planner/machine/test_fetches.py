"""Fetches before a plan can run: the missing pieces' bytes, at the rate of the narrowest link on their way."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from nodes.planner.machine import fetches as module
from nodes.planner.machine.fetches import MEGABYTE, Fetch, Fetches
from nodes.protocol.messages import LinkReport
from nodes.protocol.packages import MOST_PACKAGES, SHORT, Holdings, PublishedPackage, versioned
from pipeline.frames.input_blocks import DECODE, FRAME, NORMALISE, with_input
from pipeline.models.graphs import shipped_graph
from pipeline.pieces.manifest import LEAST_PIECE_BYTES, PackageManifest, spans_of
from pipeline.placement import Tier
from pipeline.plan import NodeId
from pipeline.tiles.tiling import Tiling

GRAPH = shipped_graph("alexnet")
BLOCKS = len(GRAPH)
PIECE = LEAST_PIECE_BYTES
LAST = 100
"""Bytes of the last piece."""
DEVICE, EDGE, CLOUD = NodeId("device-1"), NodeId("edge-1"), NodeId("cloud-1")
NODES = {Tier.DEVICE: DEVICE, Tier.EDGE: EDGE, Tier.CLOUD: CLOUD}
WHOLE = range(BLOCKS + 1)


def published(name: str = "net") -> PublishedPackage:
    """Piece 0 is the header, and each block has the piece after its number for itself."""
    manifest = PackageManifest(
        name=name,
        model=GRAPH.digest,
        size=BLOCKS * PIECE + LAST,
        piece_bytes=PIECE,
        pieces=tuple(f"{piece:064x}" for piece in WHOLE),
        header=((0, 1),),
        blocks=tuple(((block + 1, block + 2),) for block in range(BLOCKS)),
    )
    return PublishedPackage(manifest, manifest.digest)


PACKAGE = published()
MODEL = versioned("net", PACKAGE.digest)


class Lab:
    """Fetches that know the package, and links that are given as MB/s up and down."""

    def __init__(self, **links: tuple[float, float]) -> None:
        self.links = {
            name.replace("_", "-"): LinkReport(NodeId(name), "s", up * MEGABYTE, down * MEGABYTE, 0.01)
            for name, (up, down) in links.items()
        }
        self.fetches = Fetches(self.links.get)
        self.fetches.learn_package(PACKAGE)

    def hold(self, node: str, pieces: Iterable[int], package: PublishedPackage = PACKAGE) -> bool:
        held = spans_of(pieces)
        return self.fetches.learn_holdings(Holdings(NodeId(node), {package.digest: held} if held else {}))

    def nbytes(self, node: NodeId, blocks: Iterable[int], model: str = MODEL) -> int:
        fetch = self.fetches.of_blocks(node, model, GRAPH, list(blocks))
        return fetch.nbytes if fetch is not None else 0

    def rate(self, node: NodeId = EDGE) -> float:
        """Megabytes per second at which the node is thought to fetch."""
        fetch = self.fetches.of_blocks(node, MODEL, GRAPH, [1])
        assert fetch is not None
        return fetch.nbytes / fetch.seconds / MEGABYTE


def test_a_node_that_holds_nothing_fetches_the_header_and_its_blocks_pieces() -> None:
    lab = Lab()
    assert lab.nbytes(EDGE, [1, 3]) == 3 * PIECE
    assert lab.nbytes(EDGE, []) == PIECE
    assert lab.nbytes(EDGE, range(BLOCKS)) == PACKAGE.manifest.size


def test_the_last_piece_weighs_what_is_left_of_the_file() -> None:
    assert Lab().nbytes(EDGE, [BLOCKS - 1]) == PIECE + LAST


def test_pieces_that_the_node_holds_are_not_fetched_and_others_holdings_do_not_count() -> None:
    lab = Lab()
    lab.hold(EDGE, [0, 2, 9])
    lab.hold(CLOUD, WHOLE)
    assert lab.nbytes(EDGE, [1, 3]) == PIECE
    assert lab.fetches.of_blocks(EDGE, MODEL, GRAPH, [1]) is None
    assert lab.fetches.of_blocks(CLOUD, MODEL, GRAPH, range(BLOCKS)) is None


def test_pieces_of_another_package_do_not_count() -> None:
    lab = Lab()
    lab.hold(EDGE, WHOLE, published("another"))
    assert lab.nbytes(EDGE, [1]) == 2 * PIECE


@pytest.mark.parametrize("model", ["net", "", f"net.{'0' * SHORT}", PACKAGE.digest, f"{MODEL}0"])
def test_a_model_that_was_not_pushed_needs_no_fetch(model: str) -> None:
    assert Lab().nbytes(EDGE, [1], model) == 0


def test_blocks_are_the_networks_own_where_the_input_has_some_before_them() -> None:
    lab, graph = Lab(), with_input(GRAPH)
    assert len(graph) > BLOCKS
    for block in range(1, BLOCKS):
        plain = lab.fetches.of_blocks(EDGE, MODEL, GRAPH, [block])
        assert lab.fetches.of_blocks(EDGE, MODEL, graph, [block + len(graph) - BLOCKS]) == plain
    frame = lab.fetches.of_blocks(EDGE, MODEL, graph, [FRAME, DECODE])
    normalised = lab.fetches.of_blocks(EDGE, MODEL, graph, [FRAME, DECODE, NORMALISE])
    assert frame is not None
    assert normalised is not None
    assert (frame.nbytes, normalised.nbytes) == (PIECE, 2 * PIECE)


def test_a_graph_that_has_fewer_blocks_than_the_package_is_not_its_network() -> None:
    other = shipped_graph("mobilenet_v2")
    assert len(other) > BLOCKS
    longer = PackageManifest(
        "net", "m", PIECE, PIECE, ("0" * 64,), header=((0, 1),), blocks=tuple(() for _ in range(len(other)))
    )
    fetches = Fetches(lambda node: None)
    fetches.learn_package(PublishedPackage(longer, longer.digest))
    model = versioned("net", longer.digest)
    assert fetches.of_blocks(EDGE, model, GRAPH, [1]) is None
    assert fetches.of_blocks(EDGE, model, other, [1]) is not None


def test_holdings_are_news_only_when_pieces_have_come() -> None:
    lab = Lab()
    assert not lab.hold(EDGE, [])
    assert lab.hold(EDGE, [0, 1])
    assert not lab.hold(EDGE, [0, 1])
    assert lab.hold(EDGE, [1, 2])
    assert not lab.hold(EDGE, [2])
    assert not lab.hold(EDGE, [2], published("another"))  # which nobody has published
    assert not lab.hold(EDGE, [len(PACKAGE.manifest.pieces) + 5])
    lab.hold(EDGE, [2])
    assert lab.hold(CLOUD, [2])


def test_the_newest_holdings_replace_those_before() -> None:
    lab = Lab()
    lab.hold(EDGE, [0, 2])
    lab.hold(EDGE, [0])
    assert lab.nbytes(EDGE, [1]) == PIECE
    lab.hold(EDGE, [])
    assert lab.nbytes(EDGE, [1]) == 2 * PIECE


def test_more_holders_than_the_bound_are_ignored_and_those_known_stay_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_HOLDERS", 1)
    lab = Lab()
    assert lab.hold(EDGE, [0])
    assert not lab.hold(CLOUD, WHOLE)
    assert lab.nbytes(CLOUD, [1]) == 2 * PIECE
    assert lab.hold(EDGE, [0, 2])
    assert lab.nbytes(EDGE, [1]) == 0


def test_of_more_packages_than_the_bound_the_oldest_goes() -> None:
    lab = Lab()
    others = [published(f"net-{n}") for n in range(MOST_PACKAGES)]
    for package in others[:-1]:
        lab.fetches.learn_package(package)
    assert lab.nbytes(EDGE, [1]) == 2 * PIECE
    lab.fetches.learn_package(others[-1])
    assert lab.nbytes(EDGE, [1]) == 0
    assert all(lab.nbytes(EDGE, [1], versioned("net", one.digest)) == 2 * PIECE for one in others)


def test_a_package_that_is_published_again_displaces_no_other() -> None:
    lab = Lab()
    others = [published(f"net-{n}") for n in range(MOST_PACKAGES - 1)]
    for package in (*others, *others[::-1]):
        lab.fetches.learn_package(package)
    for package in (PACKAGE, *others):
        assert lab.nbytes(EDGE, [1], versioned("net", package.digest)) == 2 * PIECE


def test_the_rate_is_that_of_the_best_holders_link_up_or_of_the_nodes_link_down() -> None:
    lab = Lab(edge_1=(100.0, 5.0), cloud_1=(2.0, 100.0), device_1=(4.0, 100.0), worker_1=(50.0, 100.0))
    lab.hold(CLOUD, WHOLE)
    assert lab.rate() == pytest.approx(2.0)
    lab.hold(DEVICE, WHOLE)
    assert lab.rate() == pytest.approx(4.0)
    lab.hold("worker-1", WHOLE)
    assert lab.rate() == pytest.approx(5.0)


def test_a_holder_of_other_packages_and_the_node_itself_are_no_senders() -> None:
    lab = Lab(edge_1=(1.5, 80.0), cloud_1=(2.0, 100.0), device_1=(0.5, 100.0))
    lab.hold(EDGE, [0])
    lab.hold(CLOUD, WHOLE, published("another"))
    assert lab.rate() == pytest.approx(80.0)
    lab.hold(DEVICE, [0])
    assert lab.rate() == pytest.approx(0.5)


def test_links_that_were_not_measured_bound_nothing_and_without_any_it_is_a_megabyte_per_second() -> None:
    lab = Lab(cloud_1=(3.0, 100.0))
    assert lab.rate() == pytest.approx(1.0)
    lab.hold(DEVICE, WHOLE)
    assert lab.rate() == pytest.approx(1.0)
    lab.hold(CLOUD, WHOLE)
    assert lab.rate() == pytest.approx(3.0)


def test_a_link_is_taken_as_it_is_now() -> None:
    lab = Lab(edge_1=(1.0, 8.0))
    assert lab.rate() == pytest.approx(8.0)
    lab.links[EDGE] = LinkReport(EDGE, "s", 1.0, 2.0 * MEGABYTE, 0.01)
    assert lab.rate() == pytest.approx(2.0)


def test_a_plans_nodes_fetch_their_own_stages_and_the_longest_fetch_is_first() -> None:
    lab = Lab(device_1=(9.0, 9.0), edge_1=(9.0, 9.0), cloud_1=(9.0, 0.1))
    placement = (Tier.DEVICE,) * 2 + (Tier.EDGE,) * (BLOCKS - 3) + (Tier.CLOUD,)
    found = lab.fetches.of_plan(MODEL, GRAPH, placement, NODES, None)
    assert [(one.node, one.nbytes) for one in found] == [
        (CLOUD, PIECE + LAST),
        (EDGE, (BLOCKS - 2) * PIECE),
        (DEVICE, 3 * PIECE),
    ]
    assert [one.seconds for one in found] == sorted((one.seconds for one in found), reverse=True)


def test_a_plan_of_nodes_that_have_what_they_need_fetches_nothing() -> None:
    lab = Lab()
    placement = (Tier.DEVICE,) * 2 + (Tier.EDGE,) * (BLOCKS - 2)
    lab.hold(DEVICE, [0, 1, 2])
    assert [one.node for one in lab.fetches.of_plan(MODEL, GRAPH, placement, NODES, None)] == [EDGE]
    lab.hold(EDGE, [0, *range(3, BLOCKS + 1)])
    assert lab.fetches.of_plan(MODEL, GRAPH, placement, NODES, None) == ()
    assert Lab().fetches.of_plan("net", GRAPH, placement, NODES, None) == ()


def test_each_tile_worker_fetches_the_stack_once_and_the_edge_its_whole_stage() -> None:
    lab, worker = Lab(), NodeId("worker-1")
    first, last = 1, 2
    tiling = Tiling(first, last, (2, 2, 2), (6,), (EDGE, worker, worker))
    placement = (Tier.DEVICE, *(Tier.EDGE,) * (BLOCKS - 1))
    found = lab.fetches.of_plan(MODEL, GRAPH, placement, NODES, tiling)
    stack = tiling.stack(GRAPH).blocks
    assert {one.node: one.nbytes for one in found} == {
        DEVICE: 2 * PIECE,
        EDGE: (BLOCKS - 1) * PIECE + LAST,
        worker: (1 + len(stack)) * PIECE,
    }
    assert len(found) == 3


def test_a_fetch_reads_as_megabytes_and_seconds() -> None:
    assert str(Fetch(EDGE, 1_234_560_000, 12.34)) == "edge-1 fetches 1,234.6 MB first, about 12.3 s"
