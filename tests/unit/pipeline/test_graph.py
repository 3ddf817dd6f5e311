"""A manifest survives JSON; parts that do not fit together are refused with a reason."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ModelError
from pipeline.graph import Block, ModelGraph, Tensor
from tests.graphs import chain, graphs

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(graphs())
def test_a_graph_comes_back_from_its_manifest(graph: ModelGraph) -> None:
    assert ModelGraph.from_json(json.loads(json.dumps(graph.to_json()))) == graph


@given(graphs(), st.data())
def test_a_mutated_manifest_is_a_graph_or_a_model_error(graph: ModelGraph, data: st.DataObject) -> None:
    manifest = json.loads(json.dumps(graph.to_json()))
    target = data.draw(st.sampled_from([manifest, *manifest["blocks"], *manifest["tensors"]]))
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(values)
    try:
        assert isinstance(ModelGraph.from_json(manifest), ModelGraph)
    except ModelError:
        pass


@given(values)
def test_any_json_is_a_graph_or_a_model_error(value: object) -> None:
    with pytest.raises(ModelError):
        ModelGraph.from_json(value)  # type: ignore[arg-type]  # what a peer may send


@given(graphs())
def test_producers_consumers_and_edges_tell_the_same_story(graph: ModelGraph) -> None:
    pairs = {(graph.producer[t.id], reader) for t in graph.tensors for reader in graph.consumers[t.id]}
    assert pairs == set(graph.edges)
    assert all(before < after for before, after in graph.edges)
    assert all(t in graph.blocks[graph.producer[t]].outputs for t in range(len(graph.tensors)))


def test_a_tensor_knows_its_bytes() -> None:
    assert Tensor(0, "t", (1, 7, 7, 3), "float32").nbytes == 588
    assert Tensor(0, "t", (1, 7), "uint8").nbytes == 7


def test_a_block_is_found_by_name_by_layer_and_by_index() -> None:
    graph = chain(4, 4, 4)
    assert graph.block_named("b1") == graph.block_named("layer1") == graph.block_named("1") == graph.blocks[1]
    with pytest.raises(ModelError, match=r"no block 'bb2'; nearest: b2.*index from 0 to 2"):
        graph.block_named("bb2")


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("tensors", "shape", [float("inf")]),
        ("tensors", "shape", [-5]),
        ("tensors", "dtype", "i4,("),
        ("tensors", "dtype", "O"),
        ("tensors", "dtype", None),
        ("blocks", "macs", float("inf")),
    ],
)
def test_a_manifest_with_an_impossible_value_is_refused(part: str, key: str, value: object) -> None:
    manifest = chain(4, 4).to_json()
    manifest[part] = [dict(manifest[part][0]) | {key: value}, *manifest[part][1:]]
    with pytest.raises(ModelError):
        ModelGraph.from_json(manifest)


def broken(**changes: object) -> ModelGraph:
    return dataclasses.replace(chain(4, 4, 4), **changes)  # type: ignore[arg-type]  # any field, at random


def test_parts_that_do_not_fit_are_refused() -> None:
    good = chain(4, 4, 4)
    first, second, third = good.blocks
    with pytest.raises(ModelError, match="tensor ids must count from 0"):
        broken(tensors=good.tensors[1:])
    with pytest.raises(ModelError, match="block indices must count from 0"):
        broken(blocks=(first, third))
    with pytest.raises(ModelError, match="block indices must count from 0"):
        broken(blocks=())
    with pytest.raises(ModelError, match="block 0 must be the input block"):
        broken(inputs=(1,))
    with pytest.raises(ModelError, match=r"'b1' reads tensors \[2\] before they are made"):
        broken(blocks=(first, dataclasses.replace(second, inputs=(2,)), third))
    with pytest.raises(ModelError, match="'b2' must make tensors that no other block makes"):
        broken(blocks=(first, second, dataclasses.replace(third, outputs=(1,))))
    with pytest.raises(ModelError, match="there must be outputs"):
        broken(outputs=())
    with pytest.raises(ModelError, match="every tensor needs a block"):
        broken(outputs=(9,))


def test_a_manifest_of_another_version_says_which_one_it_is() -> None:
    manifest = chain(4).to_json() | {"version": 3}
    with pytest.raises(ModelError, match="manifest version 3, this trisect reads 2"):
        ModelGraph.from_json(manifest)


def test_a_block_that_reads_a_tensor_twice_is_one_consumer() -> None:
    tensors = (Tensor(0, "x", (1, 2), "float32"), Tensor(1, "y", (1, 2), "float32"))
    blocks = (Block(0, "in", "input", (), (), (0,)), Block(1, "double", "Add", (), (0, 0), (1,)))
    graph = ModelGraph("twice", "0", tensors, blocks, (0,), (1,))
    assert graph.consumers == ((1,), ())
    assert graph.edges == ((0, 1),)
