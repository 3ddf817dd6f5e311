"""Cuts as ways through a diagram, and the best pair of them, against all there are."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.graph import Block, ModelGraph, Tensor
from pipeline.partition.cut_diagram import CutDiagram, PricedDiagram
from pipeline.partition.cut_family import Bools, Floats
from pipeline.partition.cut_intervals import intervals_of
from pipeline.partition.cut_pairs import PairSearch, Side
from pipeline.partition.program import PROOF
from tests.effort import examples
from tests.graphs import graphs

laws = settings(max_examples=examples(40))


def all_cuts(graph: ModelGraph, low: Bools, up: Bools) -> Bools:
    """`[cut, block]`, by definition: who is inside has all inside that feed it."""
    rows = np.array(list(product([False, True], repeat=len(graph))))
    feeds = all_feed(graph, rows)
    return np.asarray(rows[feeds & (rows | ~low).all(axis=1) & (up | ~rows).all(axis=1)])


def all_feed(graph: ModelGraph, rows: Bools) -> Bools:
    found = np.ones(len(rows), bool)
    for before, after in graph.edges:
        found &= rows[:, before] | ~rows[:, after]
    return found


def crossing_of(graph: ModelGraph, cut: Bools) -> Bools:
    readers = [list(graph.consumers[t.id]) for t in graph.tensors]
    return np.array([cut[graph.producer[t.id]] and not cut[readers[t.id]].all() for t in graph.tensors])


class Drawn:
    """A graph's cuts between two of them, with four sums: those of the second cut count what lies behind it."""

    def __init__(self, graph: ModelGraph, seed: int) -> None:
        self.graph, self.draw = graph, np.random.default_rng(seed)
        whole = all_cuts(graph, np.arange(len(graph)) == 0, np.ones(len(graph), bool))
        self.bounds = [self._between(whole) for _ in range(2)]
        self.weights = self.draw.dirichlet(np.ones(5), 4)

    def _between(self, whole: Bools) -> tuple[Bools, Bools]:
        one, other = whole[self.draw.integers(0, len(whole), 2)]
        return one & other, one | other

    def side(self, number: int) -> tuple[Side, Bools, Floats]:
        """With all its cuts and their sums."""
        graph, (low, up), draw = self.graph, self.bounds[number], self.draw
        diagram = CutDiagram.between(graph, low, up)
        assert diagram is not None
        inside = draw.integers(0, 20, (len(graph), 4)).astype(float)
        constant = np.zeros(4)
        inside[:, 2] = 0
        if number:
            constant[0], inside[:, 0] = inside[:, 0].sum(), -inside[:, 0]
        else:
            inside[:, 1] *= -1
        crossing = np.zeros((len(graph.tensors), 4))
        crossing[:, 2:] = draw.integers(0, 20, (len(graph.tensors), 2))
        columns = [(0, 2)[number], 1, 3 + number]
        rates = np.vstack([self.weights[:, columns].T, np.ones(len(self.weights))])
        cuts = all_cuts(graph, low, up)
        crosses = np.array([crossing_of(graph, cut) for cut in cuts]).reshape(len(cuts), -1)
        sums = cuts.astype(float) @ inside + crosses.astype(float) @ crossing + constant
        return Side(diagram, inside, crossing, constant, rates), cuts, sums


@laws
@given(graphs(max_blocks=7), st.integers(0, 2**32 - 1))
def test_a_diagram_has_all_cuts_but_those_that_others_beat(graph: ModelGraph, seed: int) -> None:
    drawn = Drawn(graph, seed)
    side, cuts, sums = drawn.side(0)
    marks = np.array([[1 << block] for block in range(len(graph))], np.uint64)
    priced = PricedDiagram(*side, marks, marks_behind=bool(seed % 2))
    weighted = sums @ side.weights
    np.testing.assert_allclose(priced.least, weighted.min(axis=0), atol=1e-9)
    below = np.quantile(weighted, 0.7, axis=0) + 1e-6
    found = priced.cuts(below, 1e-9, most=10**6)
    assert found.is_all
    kept = np.array([found.inside(number) for number in range(len(found))], bool).reshape(-1, len(graph))
    assert_sums_of(kept, found.sums, cuts, sums)
    counted = ~kept if seed % 2 else kept
    for cut, of in zip(cuts[(weighted < below).all(axis=1)], sums[(weighted < below).all(axis=1)], strict=True):
        mine = ~cut if seed % 2 else cut
        assert ((found.sums <= of + 1e-9).all(axis=1) & ~(counted & ~mine).any(axis=1)).any()


def assert_sums_of(kept: Bools, found: Floats, cuts: Bools, sums: Floats) -> None:
    known = {cut.tobytes(): of for cut, of in zip(cuts, sums, strict=True)}
    for cut, of in zip(kept, found, strict=True):
        np.testing.assert_allclose(of, known[cut.tobytes()], atol=1e-9)


@laws
@given(graphs(max_blocks=7), st.integers(0, 2**32 - 1), st.booleans())
def test_the_best_pair_is_that_of_all_pairs(graph: ModelGraph, seed: int, is_nested: bool) -> None:
    drawn = Drawn(graph, seed)
    first, firsts, one = drawn.side(0)
    second, seconds, other = drawn.side(1)
    worth = worth_of(one, other)
    is_within: Bools = np.logical_not((firsts[:, None] & ~seconds[None]).any(axis=2))
    known = float(worth.max()) + 1
    offered = [known]

    def offer(before: Bools, behind: Bools) -> float:
        row, column = (firsts == before).all(axis=1).argmax(), (seconds == behind).all(axis=1).argmax()
        if is_within[row, column]:
            offered.append(float(worth[row, column]))
        return min(offered)

    bound = PairSearch(first, second, known, offer, is_nested=is_nested).run()
    least = np.where(is_within | (not is_nested), worth, np.inf).min()
    assert bound <= least * (1 + 1e-9)
    assert bound >= min(least, known) * (1 - PROOF) - 1e-9
    if is_nested:
        assert min(offered) <= least * (1 + PROOF) + 1e-9


def worth_of(one: Floats, other: Floats) -> npt.NDArray[np.float64]:
    """`[first, second]`: the largest of both tiers, the edge's sum and both links, and the rest."""
    pairs = one[:, None] + other[None]
    stages = np.maximum(np.maximum(one[:, None, [0, 2]], other[None, :, [0, 2]]).max(axis=2), pairs[..., 1])
    return np.asarray(stages + pairs[..., 3])


@laws
@given(graphs(max_blocks=7), st.integers(0, 2**32 - 1))
def test_the_cheapest_cut_of_each_interval_is_that_of_all_in_it(graph: ModelGraph, seed: int) -> None:
    """Where some sums are a millionth of others, too: arcs that no flow fills add up to more than 32 bits."""
    draw, network = np.random.default_rng(seed), intervals_of(graph)
    inside = 10 ** draw.uniform(-9, 0, len(graph)) * draw.choice([-1e-6, 1], len(graph))
    crossing = 10 ** draw.uniform(-9, 0, len(graph.tensors))
    found, lost = network.least(np.arange(len(network.low)), inside, crossing)
    for cut, low, up, less in zip(found, network.low, network.up, lost, strict=True):
        cuts = all_cuts(graph, low, up)
        worth = [float(inside[other].sum() + crossing[crossing_of(graph, other)].sum()) for other in cuts]
        chosen = float(inside[cut].sum() + crossing[crossing_of(graph, cut)].sum())
        assert (cuts == cut).all(axis=1).any()
        assert chosen - less <= min(worth) + 1e-12
        assert less <= 1e-7


@pytest.mark.parametrize("width", [40, 70])
def test_a_graph_too_wide_for_a_diagram_has_none(width: int) -> None:
    shape = (1, 4)
    tensors = tuple(Tensor(t, f"t{t}", shape, "float32") for t in range(width + 2))
    blocks = [Block(0, "input", "input", ("input",), (), (0,))]
    blocks += [Block(b, f"b{b}", "Dense", (f"b{b}",), (0,), (b,)) for b in range(1, width + 1)]
    blocks.append(Block(width + 1, "add", "Add", ("add",), tuple(range(1, width + 1)), (width + 1,)))
    graph = ModelGraph("wide", "0" * 8, tensors, tuple(blocks), (0,), (width + 1,))
    low, up = np.arange(len(graph)) == 0, np.ones(len(graph), bool)
    assert CutDiagram.between(graph, low, up) is None
