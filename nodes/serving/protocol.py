"""Requests and responses of the Open Inference Protocol v2 (KServe's predict protocol) as bytes. No sockets.

Tensors are JSON lists, or bytes behind the JSON (the binary data extension): `Inference-Header-Content-Length` says
where the JSON ends, `binary_data_size` how many bytes each tensor has, little endian.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.errors import TrisectError

Array: TypeAlias = npt.NDArray[Any]

DATATYPES = {
    "BOOL": "bool",
    **{
        f"{name}{bits}": f"{kind}{bits}"
        for name, kind in (("INT", "int"), ("UINT", "uint"))
        for bits in (8, 16, 32, 64)
    },
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
NAMES = {dtype: name for name, dtype in DATATYPES.items()}
HEADER_LENGTH = "Inference-Header-Content-Length"
MOST_JSON = 32 << 20
"""Bytes of a request's JSON, of which Python makes up to 30 times as many; larger tensors go as bytes behind it."""
_MOST_INPUTS = 64
_MOST_RANK = 8


class BadRequest(TrisectError):
    """A client: its request is none of the protocol, or does not fit the model."""


@dataclass(frozen=True, slots=True)
class Request:
    """An inference request: inputs by name, the outputs asked for (all where none is), which of them as bytes."""

    id: str
    inputs: Mapping[str, Array]
    outputs: Mapping[str, bool] = field(default_factory=dict)
    all_binary: bool = False


def read_request(body: bytes, header_length: int | None) -> Request:
    """Read a request whose JSON has `header_length` bytes, all of them for None. Raises BadRequest."""
    length = len(body) if header_length is None else header_length
    if not 0 < length <= len(body):
        raise BadRequest(f"{HEADER_LENGTH}: {length} of a body of {len(body)} bytes")
    if length > MOST_JSON:
        raise BadRequest(
            f"JSON of {length} bytes, at most {MOST_JSON}",
            hint="send large tensors as bytes behind it, with binary_data_size",
        )
    try:
        value = json.loads(body[:length], parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"not JSON: {error!s:.200}") from error
    if not isinstance(value, dict) or not isinstance(value.get("inputs"), list):
        raise BadRequest("a JSON object with a list of inputs expected")
    if not 0 < len(value["inputs"]) <= _MOST_INPUTS:
        raise BadRequest(f"{len(value['inputs'])} inputs: 1 to {_MOST_INPUTS} expected")
    inputs, rest = {}, memoryview(body)[length:]
    for given in value["inputs"]:
        name, array, taken = _tensor(given, rest)
        if name in inputs:
            raise BadRequest(f"input {name[:80]!r} is given twice")
        inputs[name], rest = array, rest[taken:]
    if len(rest):
        raise BadRequest(f"{len(rest)} bytes behind the inputs")
    parameters = _map("parameters", value.get("parameters", {}))
    return Request(
        id=str(value.get("id", ""))[:256],
        inputs=inputs,
        outputs=dict(_output(one) for one in _list("outputs", value.get("outputs", []))),
        all_binary=parameters.get("binary_data_output") is True,
    )


def _tensor(given: Any, rest: memoryview) -> tuple[str, Array, int]:
    """Name, array, and how many of the bytes behind the JSON it took."""
    name, datatype, shape = (_map("an input", given).get(key) for key in ("name", "datatype", "shape"))
    if not isinstance(name, str) or not isinstance(datatype, str) or datatype not in DATATYPES:
        raise BadRequest(
            f"input {str(name)[:80]!r}: datatype one of {', '.join(DATATYPES)}, not {str(datatype)[:40]!r}"
        )
    sizes = _list("shape", shape)
    if len(sizes) > _MOST_RANK or not all(type(size) is int and 0 <= size < 1 << 31 for size in sizes):
        raise BadRequest(f"input {name[:80]!r}: a shape of at most {_MOST_RANK} sizes of at least 0 expected")
    dtype, count = np.dtype(DATATYPES[datatype]), math.prod(sizes)
    nbytes = _map("parameters", given.get("parameters", {})).get("binary_data_size")
    if nbytes is not None and (type(nbytes) is not int or nbytes != count * dtype.itemsize or nbytes > len(rest)):
        raise BadRequest(
            f"input {name[:80]!r}: binary_data_size {str(nbytes)[:20]} of {len(rest)} bytes left; "
            f"{datatype}{sizes} has {count * dtype.itemsize}"
        )
    try:
        if nbytes is None:
            return name, _from_json(given.get("data"), dtype, count).reshape(sizes), 0
        return name, np.frombuffer(rest[:nbytes], dtype.newbyteorder("<")).astype(dtype).reshape(sizes), nbytes
    except (ValueError, TypeError, OverflowError) as error:
        raise BadRequest(f"input {name[:80]!r}: data is no {datatype}{sizes}: {error!s:.200}") from error


def _from_json(data: Any, dtype: np.dtype[Any], count: int) -> Array:
    """Numbers of JSON as `count` values that are what was written. Raises ValueError."""
    if dtype.kind == "f":
        found = np.array(data)
        if found.size and found.dtype.kind not in "iuf":
            raise ValueError("values that are no numbers")
        with np.errstate(over="ignore"):
            made = found.astype(dtype)
        is_as_written = np.isfinite(made).all()
    else:
        made = np.array(data, dtype)
        is_as_written = np.array_equal(made, np.array(data, object))
    if made.size != count:
        raise ValueError(f"{made.size} values for a shape of {count}")
    if not is_as_written:
        raise ValueError("values that it does not have")
    return made


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON; send it as bytes, with binary_data_size")


def _output(given: Any) -> tuple[str, bool]:
    output = _map("an output", given)
    if not isinstance(name := output.get("name"), str):
        raise BadRequest("an output needs a name")
    return name, _map("parameters", output.get("parameters", {})).get("binary_data") is True


def _map(what: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadRequest(f"{what}: a JSON object expected, not {str(value)[:40]!r}")
    return value


def _list(what: str, value: Any) -> Sequence[Any]:
    if not isinstance(value, list):
        raise BadRequest(f"{what}: a list expected, not {str(value)[:40]!r}")
    return value


def write_response(
    request: Request, model: str, outputs: Mapping[str, Array], answer: Mapping[str, Any]
) -> tuple[bytes, int | None]:
    """The response's body, and where its JSON ends where bytes follow it.

    `answer` goes into `parameters`: a result's fields by its task, which the protocol has no place for. Raises
    BadRequest for an output that the model does not have, or that JSON has no numbers for.
    """
    if unknown := [name for name in request.outputs if name not in outputs]:
        raise BadRequest(f"model {model!r} has no output {unknown[0]!r:.80}; it has {', '.join(outputs)}")
    described, parts = [], []
    for name in request.outputs or outputs:
        array = outputs[name]
        one: dict[str, Any] = {"name": name, "datatype": NAMES[array.dtype.name], "shape": list(array.shape)}
        if request.outputs.get(name, request.all_binary):
            parts.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
            one["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            one["data"] = array.reshape(-1).tolist()
        described.append(one)
    response = {"model_name": model, "id": request.id, "outputs": described}
    try:
        head = json.dumps({**response, "parameters": {"answer": json.dumps(answer)}}, allow_nan=False).encode()
    except ValueError as error:
        raise BadRequest(
            "an output has values that are no numbers in JSON (NaN, infinity)", hint="ask for it with binary_data: true"
        ) from error
    return b"".join((head, *parts)), len(head) if parts else None
