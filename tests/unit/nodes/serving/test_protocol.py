"""The Open Inference Protocol as bytes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from nodes.serving.protocol import BadRequest, read_request, write_response


def body(**changes: Any) -> bytes:
    given = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2.5], **changes}
    return json.dumps({"id": "7", "inputs": [given]}).encode()


def test_an_input_as_a_list_nested_or_flat() -> None:
    for data in ([1.5, 2.5], [[1.5, 2.5]]):
        request = read_request(body(data=data), None)
        assert request.id == "7"
        assert request.inputs["x"].tolist() == [[1.5, 2.5]]
        assert request.inputs["x"].dtype == np.float32


def test_numbers_of_a_list_are_what_was_written() -> None:
    request = read_request(body(datatype="UINT64", data=[2**63 + 1, 1]), None)
    assert request.inputs["x"].tolist() == [[2**63 + 1, 1]]
    assert read_request(body(datatype="BOOL", data=[True, 0]), None).inputs["x"].tolist() == [[True, False]]
    assert read_request(body(datatype="FP16", data=[2**10, -0.5]), None).inputs["x"].tolist() == [[1024, -0.5]]


def test_inputs_as_bytes_behind_the_json() -> None:
    first, second = np.arange(6, dtype=np.int16), np.array([[True, False]])
    inputs = [
        {"name": "a", "datatype": "INT16", "shape": [2, 3], "parameters": {"binary_data_size": 12}},
        {"name": "b", "datatype": "BOOL", "shape": [1, 2], "parameters": {"binary_data_size": 2}},
    ]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    request = read_request(head + first.tobytes() + second.tobytes(), len(head))
    assert np.array_equal(request.inputs["a"], first.reshape(2, 3))
    assert np.array_equal(request.inputs["b"], second)
    assert request.all_binary


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"", "0 of a body of 0 bytes"),
        (b"[", "not JSON"),
        (b"[]", "a JSON object with a list of inputs"),
        (b'{"inputs": []}', "0 inputs"),
        (body(datatype="BYTES"), "datatype one of BOOL"),
        (body(shape=[-1]), "a shape of at most 8 sizes"),
        (body(shape=[3]), "2 values for a shape of 3"),
        (body(data="abc"), r"data is no FP32\[1, 2\]"),
        (body(data=[[1], [2, 3]]), "data is no FP32"),
        (body(parameters={"binary_data_size": 8}), "8 of 0 bytes left"),
        (body(datatype=["FP32"]), "datatype one of BOOL"),
        (body(parameters=3), "parameters: a JSON object expected"),
        (body(data=[float("nan"), 1]), "NaN is no number of JSON"),
        (body(data=[float("inf"), 1]), "Infinity is no number of JSON"),
        (body(data=[1e39, 1]), "values that it does not have"),
        (body().replace(b"1.5", b"1e400"), "values that it does not have"),
        (body(data=[None, 1]), "values that are no numbers"),
        (body(data=None, shape=[1]), "values that are no numbers"),
        (body(data=["1", "2"]), "values that are no numbers"),
        (body(datatype="INT32"), "values that it does not have"),
        (body(datatype="UINT8", data=[300, 1]), "300 out of bounds"),
        (body(datatype="UINT8", data=[-1, 1]), "-1 out of bounds"),
        (body(datatype="INT64", data=[2**63, 1]), "too large"),
        (body(datatype="BOOL", data=["a", ""]), "values that it does not have"),
        (body(datatype="BOOL", data=[2, 0]), "values that it does not have"),
        (body(shape=[0] + [2**31 - 1] * 7, data=[]), "array is too big"),
        (body() + b"rest", "not JSON"),
    ],
)
def test_what_is_no_request_is_refused_in_words(sent: bytes, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        read_request(sent, None)


def test_a_size_that_is_no_whole_number_is_refused() -> None:
    head = body(parameters={"binary_data_size": 8.0})
    with pytest.raises(BadRequest, match=r"binary_data_size 8\.0"):
        read_request(head + bytes(8), len(head))


def test_an_input_that_is_given_twice_is_refused() -> None:
    (one,) = json.loads(body())["inputs"]
    with pytest.raises(BadRequest, match="input 'x' is given twice"):
        read_request(json.dumps({"inputs": [one, one]}).encode(), None)


@pytest.mark.parametrize("shape", [[0, *[2**31 - 1] * 7], [2**31 - 1] * 8])
def test_sizes_that_no_array_has_are_refused(shape: list[int]) -> None:
    head = body(shape=shape, parameters={"binary_data_size": 0})
    with pytest.raises(BadRequest, match="input 'x'"):
        read_request(head, len(head))


def test_an_output_that_is_no_number_goes_as_bytes_only() -> None:
    outputs = {"y": np.array([np.nan], np.float32)}
    with pytest.raises(BadRequest, match="no numbers in JSON"):
        write_response(read_request(body(), None), "net", outputs, {})
    asked = {**json.loads(body()), "parameters": {"binary_data_output": True}}
    made, length = write_response(read_request(json.dumps(asked).encode(), None), "net", outputs, {})
    assert made[length:] == outputs["y"].tobytes()


def test_bytes_that_nobody_claims_are_refused() -> None:
    head = body()
    with pytest.raises(BadRequest, match="4 bytes behind the inputs"):
        read_request(head + b"rest", len(head))


def test_outputs_come_as_asked_for() -> None:
    outputs: dict[str, Any] = {"scores": np.array([[0.25, 0.75]], np.float32), "map": np.array([[1, 2]], np.uint8)}
    asked = json.loads(body())
    asked["outputs"] = [{"name": "map", "parameters": {"binary_data": True}}]
    made, length = write_response(read_request(json.dumps(asked).encode(), None), "net", outputs, {"top": []})
    assert length is not None
    head = json.loads(made[:length])
    assert head["outputs"] == [
        {"name": "map", "datatype": "UINT8", "shape": [1, 2], "parameters": {"binary_data_size": 2}}
    ]
    assert made[length:] == b"\x01\x02"
    assert json.loads(head["parameters"]["answer"]) == {"top": []}
    plain, length = write_response(read_request(body(), None), "net", outputs, {})
    assert length is None
    assert json.loads(plain)["outputs"][0]["data"] == [0.25, 0.75]
    asked["outputs"] = [{"name": "other"}]
    with pytest.raises(BadRequest, match="no output 'other'; it has scores, map"):
        write_response(read_request(json.dumps(asked).encode(), None), "net", outputs, {})
