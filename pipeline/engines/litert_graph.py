"""A prepared model as TensorFlow Lite operations, and segments cut out of them without converting again.

The model is converted once, whole, with an operation that the converter does not know at each block's border: it
cannot fuse across, so a block becomes the same operations whatever stands around it. The borders are then taken out.
Knows the converter and the flatbuffer format; nothing of interpreters and threads.
"""

from __future__ import annotations

import mmap
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from pipeline.backend import quiet_stderr, tf
from pipeline.errors import ModelError
from pipeline.prepared import PreparedModel

_BORDER = "T{};"
_BORDER_ID = re.compile(rb"T(\d+);")
_ALIGNMENT = 64
_FILE_IDENTIFIER = b"TFL3"
_BUILTIN = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_LACKING = re.compile(r"(?:tf\.\w+ op|error: )[^\n]*")


@dataclass(frozen=True)
class Wiring:
    """Where a segment's tensors are in its file: for each tensor id its index there, and outputs that are inputs."""

    inputs: dict[int, int]
    outputs: dict[int, int]
    passed: dict[int, int]


class LiteGraph:
    """One converted model. `write` makes the file of a segment; weights are read from one mapping, never copied."""

    def __init__(self, model: PreparedModel) -> None:
        self._graph = model.graph
        self._held = _held(_convert(model))
        self._model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(self._held, 0))
        self._whole = self._model.subgraphs[0]
        self._maker: dict[int, Any] = {}
        self._alias: dict[int, int] = {}
        self._place: dict[int, int] = dict(zip(model.graph.inputs, map(int, self._whole.inputs), strict=True))
        for operator in self._whole.operators:
            if (tensor := self._bordered(operator)) is None:
                self._maker.update(dict.fromkeys(map(int, operator.outputs), operator))
            else:
                self._alias[int(operator.outputs[0])] = int(operator.inputs[0])
                self._place[tensor] = int(operator.outputs[0])
        self._place = {tensor: self._origin(place) for tensor, place in self._place.items()}

    def _bordered(self, operator: Any) -> int | None:
        code = self._model.operatorCodes[operator.opcodeIndex]
        if _BUILTIN[max(code.builtinCode, code.deprecatedBuiltinCode)] != "CUSTOM":
            return None
        found = _BORDER_ID.search(bytes(operator.customOptions))
        if code.customCode != b"Copy" or found is None:
            lacking = code.customCode.decode()
            raise ModelError(f"model {self._graph.name!r}: LiteRT has no kernel for {lacking}; use engine tensorflow")
        return int(found[1])

    def _origin(self, place: int) -> int:
        """The tensor before any borders."""
        while place in self._alias:
            place = self._alias[place]
        return place

    def write(self, file: IO[bytes], inputs: Sequence[int], outputs: Sequence[int]) -> Wiring:
        """Write what computes `outputs` from `inputs` (tensor ids); nothing is written where all outputs are inputs.

        What several blocks share after conversion is computed once. An output that conversion showed to be an input
        (a reshape to the same shape) is in `passed`, with the input it equals.
        """
        given: dict[int, int] = {}
        for tensor in inputs:
            if tensor in self._place:  # else its last reader needed only its shape
                given.setdefault(self._place[tensor], tensor)
        passed = {t: given[self._place[t]] for t in outputs if self._place[t] in given}
        wanted = [t for t in outputs if t not in passed]
        if not wanted:
            return Wiring({}, {}, passed)
        operators = self._operators([self._place[t] for t in wanted], set(given))
        used = {self._origin(int(i)) for operator in operators for i in operator.inputs if i >= 0}
        sources = {place: tensor for place, tensor in given.items() if place in used}
        number = self._write(file, operators, list(sources), list(dict.fromkeys(self._place[t] for t in wanted)))
        return Wiring(
            inputs={tensor: number[place] for place, tensor in sources.items()},
            outputs={t: number[self._place[t]] for t in wanted},
            passed=passed,
        )

    def _operators(self, wanted: Sequence[int], given: set[int]) -> list[Any]:
        """What makes the tensors, in the order of the whole model."""
        needed: set[int] = set()
        open_ = list(wanted)
        while open_:
            place = self._origin(open_.pop())
            if place in given or place not in self._maker or id(self._maker[place]) in needed:
                continue
            needed.add(id(self._maker[place]))
            open_.extend(int(i) for i in self._maker[place].inputs if i >= 0)
        return [operator for operator in self._whole.operators if id(operator) in needed]

    def _write(
        self, file: IO[bytes], operators: Sequence[Any], inputs: Sequence[int], outputs: Sequence[int]
    ) -> dict[int, int]:
        number: dict[int, int] = {}
        for place in (*inputs, *(int(i) for o in operators for i in (*o.inputs, *o.outputs) if i >= 0), *outputs):
            number.setdefault(self._origin(place), len(number))
        buffers, data = [schema.BufferT()], []
        tensors = []
        for place in number:
            tensor = _copy(self._whole.tensors[place])
            held = self._model.buffers[tensor.buffer].data
            tensor.buffer = 0
            if held is not None and len(held):
                tensor.buffer = len(buffers)
                buffers.append(schema.BufferT())
                data.append(held)
            tensors.append(tensor)
        subgraph = schema.SubGraphT()
        subgraph.tensors = tensors
        subgraph.operators = [self._renumbered(operator, number) for operator in operators]
        subgraph.inputs, subgraph.outputs = [number[i] for i in inputs], [number[i] for i in outputs]
        whole = schema.ModelT()
        whole.version, whole.operatorCodes = self._model.version, self._model.operatorCodes
        whole.subgraphs, whole.buffers = [subgraph], buffers
        _store(file, whole, data)
        return number

    def _renumbered(self, operator: Any, number: dict[int, int]) -> Any:
        made = _copy(operator)
        made.inputs = [number[self._origin(int(i))] if i >= 0 else -1 for i in operator.inputs]
        made.outputs = [number[int(i)] for i in operator.outputs]
        return made


def _convert(model: PreparedModel) -> bytes:
    graph = model.graph

    def whole(*arrays: Any) -> list[Any]:
        tensors = dict(zip(graph.inputs, arrays, strict=True))
        for block, calls in zip(graph.blocks, model.calls, strict=True):
            for call in calls:
                tensors.update(zip(call.outputs, call.perform(tensors), strict=True))
            for i in block.outputs if calls else ():
                tensors[i] = tf.raw_ops.Copy(input=tensors[i], tensor_name=_BORDER.format(i))
        return [tensors[i] for i in graph.outputs]

    specs = [tf.TensorSpec(graph.tensors[i].shape, graph.tensors[i].dtype) for i in graph.inputs]
    function = tf.function(whole, autograph=False).get_concrete_function(*specs)
    converter = tf.lite.TFLiteConverter([function])
    converter.experimental_lower_to_saved_model = False  # through a file, weights and all
    converter.allow_custom_ops = True  # the borders; `_bordered` refuses any other
    try:
        with quiet_stderr():
            return bytes(converter.convert())
    except Exception as error:
        found = _LACKING.search(str(error))
        reason = found[0] if found else str(error).strip().split("\n")[0]
        raise ModelError(
            f"model {graph.name!r} cannot be converted for LiteRT: {reason}; use engine tensorflow"
        ) from error


def _held(converted: bytes) -> Any:
    """The bytes in a file without a name, mapped: the system may drop pages that nobody reads any more."""
    with tempfile.TemporaryFile(prefix="trisect-litert-") as file:
        file.write(converted)
        file.flush()
        return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)


def _copy(table: Any) -> Any:
    made = type(table)()
    vars(made).update(vars(table))
    return made


def _store(file: IO[bytes], model: Any, data: Sequence[Any]) -> None:
    """The tables, then the weights behind them, each aligned: Python's flatbuffers would align them to one byte."""
    offsets = [_ALIGNMENT] * len(data)  # not 0 or 1, which mean "inside"
    for _ in range(2):  # the tables are equally long whatever the offsets
        for buffer, held, offset in zip(model.buffers[1:], data, offsets, strict=True):
            buffer.offset, buffer.size = offset, len(held)
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), file_identifier=_FILE_IDENTIFIER)
        header = bytes(builder.Output())
        offsets = list(_offsets(len(header), data))
    file.write(header)
    for held, offset in zip(data, offsets, strict=True):
        file.write(b"\0" * (offset - file.tell()))
        file.write(np.ascontiguousarray(held).data)
    file.write(b"\0" * _ALIGNMENT)
    file.flush()


def _offsets(begin: int, data: Sequence[Any]) -> Iterator[int]:
    for held in data:
        begin += -begin % _ALIGNMENT
        yield begin
        begin += len(held)
