"""A prepared model as TensorFlow Lite operations, and segments cut out of them without converting again.

The model is converted once, whole, with an operation that the converter does not know at each block's border: it
cannot fuse across, so a block becomes the same operations whatever stands around it. The borders are then taken out.
Knows the converter and the flatbuffer format; nothing of interpreters and threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from pipeline.engines.dense import perform
from pipeline.errors import ModelError
from pipeline.prepare.model import PreparedModel
from pipeline.tensorflow_runtime import quiet_stderr, tf

_BORDER = "T{};"
_BORDER_ID = re.compile(rb"T(\d+);")
_ALIGNMENT = 64
_DISK_FOLDER = "/var/tmp" if os.access("/var/tmp", os.W_OK) else None
"""Where files of weights are: /tmp may be in memory."""
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
        gc.collect()  # the converter's graphs refer to themselves
        give_back()
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

    @contextlib.contextmanager
    def written(self, inputs: Sequence[int], outputs: Sequence[int]) -> Iterator[tuple[str, Wiring]]:
        """A file of what `write` says, by its name; whoever maps it keeps it when it loses its name."""
        with tempfile.NamedTemporaryFile(prefix="trisect-litert-", dir=_DISK_FOLDER) as file:
            wiring = self.write(file, inputs, outputs)
            self._held.madvise(mmap.MADV_DONTNEED)
            yield file.name, wiring

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
        bodies = {index: at for at, index in enumerate(self._bodies(operators), start=1)}
        subgraph = schema.SubGraphT()
        subgraph.tensors = [_copy(self._whole.tensors[place]) for place in number]
        subgraph.operators = [self._renumbered(operator, number, bodies) for operator in operators]
        subgraph.inputs, subgraph.outputs = [number[i] for i in inputs], [number[i] for i in outputs]
        whole = schema.ModelT()
        whole.version, whole.operatorCodes = self._model.version, self._model.operatorCodes
        whole.subgraphs = [subgraph, *(self._body(index, bodies) for index in bodies)]
        whole.buffers, data = [schema.BufferT()], []
        for tensor in (tensor for part in whole.subgraphs for tensor in part.tensors):
            held = self._model.buffers[tensor.buffer].data
            tensor.buffer = 0
            if held is not None and len(held):
                tensor.buffer = len(whole.buffers)
                whole.buffers.append(schema.BufferT())
                data.append(held)
        _store(file, whole, data)
        return number

    def _bodies(self, operators: Sequence[Any]) -> list[int]:
        """The subgraphs that loops and conditions run, and those that these run."""
        found: list[int] = []
        open_ = list(operators)
        while open_:
            for index in _subgraphs_of(open_.pop()).values():
                if index not in found:
                    found.append(index)
                    open_.extend(self._model.subgraphs[index].operators)
        return found

    def _body(self, index: int, bodies: Mapping[int, int]) -> Any:
        made = _copy(self._model.subgraphs[index])
        made.tensors = [_copy(tensor) for tensor in made.tensors]
        made.operators = [_calling(_copy(operator), bodies) for operator in made.operators]
        return made

    def _renumbered(self, operator: Any, number: Mapping[int, int], bodies: Mapping[int, int]) -> Any:
        made = _calling(_copy(operator), bodies)
        made.inputs = [number[self._origin(int(i))] if i >= 0 else -1 for i in operator.inputs]
        made.outputs = [number[int(i)] for i in operator.outputs]
        return made


def _subgraphs_of(operator: Any) -> dict[str, int]:
    """Which subgraphs the operation runs, by the option that says so."""
    options = vars(operator.builtinOptions) if operator.builtinOptions is not None else {}
    return {name: index for name, index in options.items() if name.endswith("SubgraphIndex")}


def _calling(operator: Any, bodies: Mapping[int, int]) -> Any:
    """The same operation, where its subgraphs are now; `operator` is changed, its options are not."""
    if found := _subgraphs_of(operator):
        operator.builtinOptions = _copy(operator.builtinOptions)
        vars(operator.builtinOptions).update({name: bodies[index] for name, index in found.items()})
    return operator


def _convert(model: PreparedModel) -> bytes:
    graph = model.graph

    def whole(*arrays: Any) -> list[Any]:
        tensors = dict(zip(graph.inputs, arrays, strict=True))
        for block, calls in zip(graph.blocks, model.calls, strict=True):
            for call in calls:
                tensors.update(zip(call.outputs, perform(call, tensors, constant=True), strict=True))
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
    with tempfile.TemporaryFile(prefix="trisect-litert-", dir=_DISK_FOLDER) as file:
        file.write(converted)
        file.flush()
        return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)


def give_back() -> None:
    """Memory that is free to the system: glibc keeps much of it, of the converter's for ResNet-50 1.2 GB.

    Where the C library knows no such call, it stays so.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


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
