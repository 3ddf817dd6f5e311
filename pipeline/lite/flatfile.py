"""Write TensorFlow Lite files: operations on tensors whose shapes follow from the operations before them.

Knows the flatbuffer format and its options; which operations compute a network is for `pipeline.lite.forms`.
Weights lie behind the tables, each aligned, and are written from where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

Array = npt.NDArray[Any]

_ALIGNMENT = 64
_FILE_IDENTIFIER = b"TFL3"
_VERSION = 3
_TYPES = {
    name: getattr(schema.TensorType, name.upper())
    for name in (
        *("float32", "float16", "float64", "int8", "int16", "int32", "int64"),
        *("uint8", "uint16", "uint32", "uint64", "bool"),
    )
}
_CODES = schema.BuiltinOperator
_LAST_OLD_CODE = 127
_TABLES_BYTES, _OPERATOR_BYTES, _TENSOR_BYTES = 8192, 80, 80
"""What tables take at most, as a rule: packing them takes long, and again where they take more."""
SAME, VALID = schema.Padding.SAME, schema.Padding.VALID
ACTIVATIONS = {
    "none": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}


@dataclass(frozen=True, slots=True)
class Ref:
    """A tensor of the file: its number, shape and dtype."""

    index: int
    shape: tuple[int, ...]
    dtype: str


@dataclass
class FlatFile:
    """A file in the making: `input`, `constant` and `add` return the tensors that later operations read."""

    operators: list[Any] = field(default_factory=list)
    tensors: list[Any] = field(default_factory=list)
    data: list[Array] = field(default_factory=list)
    _codes: dict[tuple[int, int], int] = field(default_factory=dict)
    _constants: dict[object, Ref] = field(default_factory=dict)

    def input(self, shape: Sequence[int], dtype: str) -> Ref:
        """A tensor that is given at each run."""
        return self._tensor(tuple(shape), dtype, 0)

    def constant(self, array: Array, key: object = None) -> Ref:
        """A tensor of these values, which are read when the file is written. Equal keys share one."""
        if key is not None and key in self._constants:
            return self._constants[key]
        self.data.append(array)
        made = self._tensor(array.shape, array.dtype.name, len(self.data))
        if key is not None:
            self._constants[key] = made
        return made

    def known(self, key: object) -> Ref | None:
        """The constant of this key, if there is one."""
        return self._constants.get(key)

    def numbers(self, *values: int) -> Ref:
        """A constant of int32."""
        return self.constant(np.array(values, np.int32), ("numbers", values))

    def add(
        self,
        code: str,
        inputs: Sequence[Ref | None],
        shape: Sequence[int],
        *,
        dtype: str | None = None,
        version: int = 1,
        **options: Any,
    ) -> Ref:
        """The output of one more operation, by the schema's name of it; `options` by the schema's names, too."""
        kept = next(one for one in inputs if one is not None).dtype if dtype is None else dtype
        made = self._tensor(tuple(shape), kept, 0)
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault((getattr(_CODES, code), version), len(self._codes))
        operator.inputs = [-1 if one is None else one.index for one in inputs]
        operator.outputs = [made.index]
        table = options.pop("table", None) or _TABLES.get(code)
        if table is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, table)
            operator.builtinOptions = getattr(schema, table + "T")()
            for name, value in options.items():
                setattr(operator.builtinOptions, name, value)
        self.operators.append(operator)
        return made

    def _tensor(self, shape: tuple[int, ...], dtype: str, buffer: int) -> Ref:
        tensor = schema.TensorT()
        tensor.shape = list(map(int, shape))
        tensor.type = _TYPES[dtype]
        tensor.buffer = buffer
        tensor.hasRank = True
        self.tensors.append(tensor)
        return Ref(len(self.tensors) - 1, tensor_shape(shape), dtype)

    def write(self, file: IO[bytes], inputs: Sequence[Ref], outputs: Sequence[Ref]) -> None:
        """Write the file from its beginning."""
        subgraph = schema.SubGraphT()
        subgraph.tensors, subgraph.operators = self.tensors, self.operators
        subgraph.inputs, subgraph.outputs = [one.index for one in inputs], [one.index for one in outputs]
        model = schema.ModelT()
        model.version, model.subgraphs = _VERSION, [subgraph]
        model.operatorCodes = [_code(*key) for key in self._codes]
        model.buffers = [schema.BufferT() for _ in range(len(self.data) + 1)]
        _store(file, model, self.data)


def tensor_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Plain integers."""
    return tuple(int(size) for size in shape)


def _code(code: int, version: int) -> Any:
    made = schema.OperatorCodeT()
    made.deprecatedBuiltinCode = min(code, _LAST_OLD_CODE)
    made.builtinCode, made.version = code, version
    return made


def _store(file: IO[bytes], model: Any, data: Sequence[Array]) -> None:
    """The tables, then the weights behind them, each aligned: Python's flatbuffers would align them to one byte."""
    (subgraph,) = model.subgraphs
    room = _TABLES_BYTES + _OPERATOR_BYTES * len(subgraph.operators) + _TENSOR_BYTES * len(subgraph.tensors)
    header = _placed(model, data, room)
    if len(header) > room:
        header = _placed(model, data, len(header))
    file.write(header)
    for array, buffer in zip(data, model.buffers[1:], strict=True):
        file.seek(buffer.offset)
        file.write(np.ascontiguousarray(array).data)
    file.write(b"\0" * _ALIGNMENT)
    file.flush()


def _placed(model: Any, data: Sequence[Array], begin: int) -> bytes:
    """The tables, for weights that begin there or a little later."""
    begin += -begin % _ALIGNMENT
    for buffer, array in zip(model.buffers[1:], data, strict=True):
        buffer.offset, buffer.size = begin, array.nbytes
        begin += array.nbytes + -array.nbytes % _ALIGNMENT
    return _packed(model)


def _packed(model: Any) -> bytes:
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=_FILE_IDENTIFIER)
    return bytes(builder.Output())


_TABLES = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "SOFTMAX": "SoftmaxOptions",
    "CONCATENATION": "ConcatenationOptions",
    "ADD": "AddOptions",
    "SUB": "SubOptions",
    "MUL": "MulOptions",
    "DIV": "DivOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "PAD": "PadOptions",
    "PADV2": "PadV2Options",
    "RESHAPE": "ReshapeOptions",
    "TRANSPOSE": "TransposeOptions",
    "MEAN": "ReducerOptions",
    "SUM": "ReducerOptions",
    "REDUCE_MAX": "ReducerOptions",
    "SLICE": "SliceOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SPLIT": "SplitOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "GELU": "GeluOptions",
    "HARD_SWISH": "HardSwishOptions",
    "EXP": "ExpOptions",
    "ABS": "AbsOptions",
    "NEG": "NegOptions",
    "SQUARE": "SquareOptions",
    "CAST": "CastOptions",
    "GATHER": "GatherOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
}
