"""A frame becomes all inputs of a model, each in its exact shape and dtype, or a FrameError that says what to send."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import FrameError
from pipeline.frames.decode import Preprocess
from pipeline.frames.inputs import to_inputs
from pipeline.graph import Block, ModelGraph, Tensor
from tests.unit.pipeline.test_graph import values

AS_IT_IS = Preprocess()
LEFT = np.arange(4, dtype=np.float32)
RIGHT = np.array([[7, 8]], dtype=np.int64)


def model(*inputs: Tensor) -> ModelGraph:
    ids = tuple(tensor.id for tensor in inputs)
    output = Tensor(len(inputs), "out", (1, 1), "float32")
    blocks = (Block(0, "input", "input", ("input",), (), ids), Block(1, "d", "Dense", ("d",), ids, (output.id,)))
    return ModelGraph("two", "d" * 8, (*inputs, output), blocks, ids, (output.id,))


ONE = model(Tensor(0, "image", (1, 4), "float32"))
TWO = model(Tensor(0, "left", (1, 4), "float32"), Tensor(1, "right", (1, 2), "int64"))


def packed(array: np.ndarray[Any, Any]) -> dict[str, object]:
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": array.tobytes()}


def test_a_model_with_one_input_takes_an_array_or_its_bytes() -> None:
    for frame in (LEFT, LEFT[None], msgpack.packb(packed(LEFT))):
        inputs = to_inputs(frame, ONE, AS_IT_IS)
        assert inputs.keys() == {0}
        assert inputs[0].dtype == np.float32
        assert np.array_equal(inputs[0], LEFT[None])


def test_a_model_with_two_inputs_takes_a_map_by_name_in_any_order_and_ignores_what_else_is_in_it() -> None:
    frame = msgpack.packb({"right": packed(RIGHT), "note": "hello", "left": packed(LEFT)})
    inputs = to_inputs(frame, TWO, AS_IT_IS)
    assert np.array_equal(inputs[0], LEFT[None])
    assert np.array_equal(inputs[1], RIGHT)
    assert inputs[1].dtype == np.int64


def test_a_single_array_for_two_inputs_is_refused_with_what_to_send() -> None:
    with pytest.raises(FrameError, match=r"has 2 inputs: send a msgpack map with left, right, not a single array"):
        to_inputs(LEFT, TWO, AS_IT_IS)


def test_a_missing_input_is_named() -> None:
    with pytest.raises(FrameError, match="'right' is missing"):
        to_inputs(msgpack.packb({"left": packed(LEFT)}), TWO, AS_IT_IS)


@pytest.mark.parametrize("frame", [b"", b"\xff\xd8\xff", msgpack.packb([1, 2]), msgpack.packb(5), b"\xc1"])
def test_bytes_that_are_no_map_are_refused_with_what_to_send(frame: bytes) -> None:
    with pytest.raises(FrameError, match="send a msgpack map with left, right"):
        to_inputs(frame, TWO, AS_IT_IS)


def test_an_input_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(FrameError):
        to_inputs(msgpack.packb({"left": packed(LEFT[:3]), "right": packed(RIGHT)}), TWO, AS_IT_IS)


def gives_exact_inputs_or_a_frame_error(frame: bytes, graph: ModelGraph) -> None:
    try:
        inputs = to_inputs(frame, graph, AS_IT_IS)
    except FrameError:
        return
    for tensor in graph.inputs:
        expected = graph.tensors[tensor]
        assert (inputs[tensor].shape, inputs[tensor].dtype.name) == (expected.shape, expected.dtype)


@given(st.binary(max_size=64), st.sampled_from([ONE, TWO]))
def test_any_bytes_are_inputs_or_a_frame_error(frame: bytes, graph: ModelGraph) -> None:
    gives_exact_inputs_or_a_frame_error(frame, graph)


within_msgpack = values.filter(lambda value: not _has_large_integers(value))


def _has_large_integers(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_has_large_integers, value.values()))
    if isinstance(value, list):
        return any(map(_has_large_integers, value))
    return isinstance(value, int) and not -(2**63) <= value < 2**64


@given(st.dictionaries(st.sampled_from(["dtype", "shape", "data"]), within_msgpack | st.binary(max_size=8)), st.data())
def test_any_map_in_place_of_an_input_is_inputs_or_a_frame_error(part: dict[str, object], data: st.DataObject) -> None:
    left = packed(LEFT) | part if data.draw(st.booleans()) else part
    gives_exact_inputs_or_a_frame_error(msgpack.packb({"left": left, "right": packed(RIGHT)}), TWO)
    gives_exact_inputs_or_a_frame_error(msgpack.packb(left), ONE)
