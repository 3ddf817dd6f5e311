"""Random model graphs, costs and placements for property tests, and all placements of a small graph."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import strategies as st

from pipeline.cost import Costs, Link
from pipeline.graph import Block, ModelGraph, Tensor
from pipeline.placement import Placement, Tier
from pipeline.shared_cores import SharedCores

# Ties (0.0, equal round numbers) and a span of 1e8 on purpose: both are where a planner can go wrong.
_seconds = st.one_of(st.sampled_from([0.0, 1e-3, 1.0]), st.floats(1e-6, 1e2, allow_nan=False))
_links = st.builds(
    Link,
    bandwidth_bytes_per_s=st.one_of(st.sampled_from([1e3, 1e6, float("inf")]), st.floats(1e2, 1e10)),
    latency_s=st.one_of(st.just(0.0), st.floats(1e-6, 1e1)),
)


@st.composite
def graphs(draw: st.DrawFn, max_blocks: int = 9) -> ModelGraph:
    """DAGs with branches, joins, blocks of several outputs, dead ends, and one or more model outputs."""
    tensors: list[Tensor] = []
    blocks: list[Block] = []
    for index in range(draw(st.integers(1, max_blocks))):
        inputs: list[int] = []
        if index > 0:
            # Near tensors often, so that chains with side branches appear as in real networks.
            near = st.integers(max(0, len(tensors) - 3), len(tensors) - 1)
            inputs = draw(st.lists(st.one_of(near, st.integers(0, len(tensors) - 1)), min_size=1, max_size=3))
        made = range(len(tensors), len(tensors) + draw(st.sampled_from([1, 1, 1, 2, 3])))
        tensors += [Tensor(t, f"t{t}", (1, draw(st.integers(1, 300_000))), "float32") for t in made]
        kind = "Dense" if index else "input"
        blocks.append(Block(index, f"b{index}", kind, (f"layer{index}",), tuple(inputs), tuple(made)))
    outputs = draw(st.lists(st.integers(0, len(tensors) - 1), min_size=1, max_size=3))
    if draw(st.booleans()):
        outputs = [len(tensors) - 1]
    return ModelGraph("random", "0" * 8, tuple(tensors), tuple(blocks), blocks[0].outputs, tuple(outputs))


@st.composite
def costs(draw: st.DrawFn, graph: ModelGraph) -> Costs:
    """Costs with the device and any of the other tiers, two links, send and receive overheads, and a frame overhead."""
    tiers = {Tier.DEVICE, *draw(st.sets(st.sampled_from([Tier.EDGE, Tier.CLOUD])))}
    if draw(st.booleans()):
        tiers = set(Tier)
    times = st.lists(_seconds, min_size=len(graph), max_size=len(graph))
    send_receive_overhead = draw(st.dictionaries(st.sampled_from(Tier), _seconds))
    shares = draw(st.dictionaries(st.sampled_from(sorted(tiers)), st.sampled_from([0.25, 0.5, 1.0])))
    return Costs(
        {tier: draw(times) for tier in sorted(tiers)},
        draw(_links),
        draw(_links),
        send_receive_overhead=send_receive_overhead,
        frame_overhead_s=draw(_seconds),
        cores=(SharedCores("here", 4.0, shares),) if len(shares) > 1 else (),
    )


@st.composite
def placements(draw: st.DrawFn, graph: ModelGraph) -> Placement:
    """A monotone placement with the input on the device."""
    placed: list[Tier] = [Tier.DEVICE]
    for block in graph.blocks[1:]:
        floor = max(placed[graph.producer[t]] for t in block.inputs)
        placed.append(draw(st.sampled_from([tier for tier in Tier if tier >= floor])))
    return tuple(placed)


def all_placements(graph: ModelGraph, tiers: frozenset[Tier] = frozenset(Tier)) -> Iterator[Placement]:
    """Every monotone placement on these tiers, the input on the device."""

    def extend(placed: Placement) -> Iterator[Placement]:
        if len(placed) == len(graph):
            yield placed
            return
        floor = max(placed[graph.producer[t]] for t in graph.blocks[len(placed)].inputs)
        for tier in sorted(tiers):
            if tier >= floor:
                yield from extend((*placed, tier))

    return extend((Tier.DEVICE,))


def chain(*nbytes: int, outputs: tuple[int, ...] = ()) -> ModelGraph:
    """A chain of blocks whose tensors have these bytes; the last tensor is the output unless told otherwise."""
    tensors = tuple(Tensor(i, f"t{i}", (1, n), "uint8") for i, n in enumerate(nbytes))
    blocks = tuple(
        Block(i, f"b{i}", "Dense" if i else "input", (f"layer{i}",), (i - 1,) if i else (), (i,))
        for i in range(len(nbytes))
    )
    return ModelGraph("chain", "c0ffee00", tensors, blocks, (0,), outputs or (len(nbytes) - 1,))
