"""A Keras model as a flat list of calls: nested models opened, every tensor numbered and given its shape at batch 1.

Knows Keras's graph (nodes, arguments, nested models) and refuses what has no static one. Knows no block and no weight.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.errors import NotFunctional
from pipeline.prepare.unsupported import check_call, check_custom, check_mask, check_model, graph_of
from pipeline.tensorflow_runtime import keras


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor's place in a call's arguments."""

    id: int


@dataclass(frozen=True, slots=True)
class Spec:
    """Shape at batch 1, and dtype."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a Keras operation: its arguments with a Value where a tensor goes, and the ids of what it makes.

    `layers` are the names people know: of the operation, then of those folded into it.
    """

    operation: Any
    layers: tuple[str, ...]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[int, ...]

    @property
    def inputs(self) -> tuple[int, ...]:
        """Ids of the tensors it reads, in the order of its arguments."""
        return tuple(leaf.id for leaf in keras.tree.flatten((self.args, dict(self.kwargs))) if isinstance(leaf, Value))

    def arguments(self, tensors: Mapping[int, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments with the tensors in their places."""
        return keras.tree.map_structure(  # type: ignore[no-any-return]
            lambda leaf: tensors[leaf.id] if isinstance(leaf, Value) else leaf, (self.args, dict(self.kwargs))
        )

    def perform(self, tensors: Mapping[int, Any]) -> list[Any]:
        """Call the operation for inference; the results in the order of `outputs`."""
        args, kwargs = self.arguments(tensors)
        if getattr(self.operation, "_call_has_training_arg", False):
            kwargs["training"] = False  # some layers (RandomFlip) default to True
        return list(keras.tree.flatten(self.operation(*args, **kwargs)))


@dataclass
class FlatModel:
    """Calls in topological order; `specs` of every tensor by id; ids of the model's inputs and outputs."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_names: tuple[str, ...]
    calls: list[Call] = field(default_factory=list)
    specs: dict[int, Spec] = field(default_factory=dict)

    def readers(self) -> dict[int, list[int]]:
        """For each tensor id, the positions of the calls that read it."""
        found: dict[int, list[int]] = {tensor: [] for tensor in self.specs}
        for position, call in enumerate(self.calls):
            for tensor in dict.fromkeys(call.inputs):
                found[tensor].append(position)
        return found


def flatten(model: Any, name: str, renumber: bool) -> FlatModel:
    """Flatten a functional or sequential model.

    `renumber` gives layers that were named by Keras's process-wide counter (`conv2d_17`) numbers of their own, so that
    a model built here has the same names in every process. Raises NotFunctional.
    """
    function = check_model(model, name)
    flat = FlatModel(name, (), (), _input_names(function, renumber))
    inputs = [_input(flat, tensor) for tensor in function.inputs]
    flat.inputs = tuple(inputs)
    flat.outputs = tuple(_open(flat, function, inputs, prefix=""))
    _drop_unread(flat)
    _name_uniquely(flat, renumber)
    return flat


def _input_names(function: Any, renumber: bool) -> tuple[str, ...]:
    """Keras's own, but for those that it counts through a process."""
    names = [str(tensor.name) for tensor in function.inputs]
    if renumber:
        counted = re.compile(r"keras_tensor(_\d+)?")
        many = len(names) > 1
        names = [
            (f"input_{i}" if many else "input") if counted.fullmatch(name) else name for i, name in enumerate(names)
        ]
    return tuple(names)


def _input(flat: FlatModel, tensor: Any) -> int:
    shape = tuple(tensor.shape)
    if not shape or shape[0] not in {None, 1}:
        raise NotFunctional(flat.name, f"input {tensor.name!r}", f"its batch is {shape[:1]}, trisect runs batches of 1")
    if None in shape[1:]:
        raise NotFunctional(flat.name, f"input {tensor.name!r}", f"shape {shape} has unknown sizes; give them numbers")
    return _number(flat, (1, *shape[1:]), tensor.dtype)


def _number(flat: FlatModel, shape: Sequence[int], dtype: str) -> int:
    flat.specs[len(flat.specs)] = Spec(tuple(shape), str(dtype))
    return len(flat.specs) - 1


def _open(flat: FlatModel, function: Any, inputs: Sequence[int], prefix: str) -> list[int]:
    """Append the calls of one (nested) model to `flat`; returns the ids of its outputs."""
    ids = {id(symbol): given for symbol, given in zip(function.inputs, inputs, strict=True)}
    for depth in sorted(function._nodes_by_depth, reverse=True):
        for node in function._nodes_by_depth[depth]:
            if node.is_input or not all(id(t) in ids for t in node.input_tensors):
                continue  # as Keras does
            ids.update(zip(map(id, node.outputs), _node(flat, node, ids, prefix), strict=True))
    return [ids[id(symbol)] for symbol in function.outputs]


def _node(flat: FlatModel, node: Any, ids: Mapping[int, int], prefix: str) -> list[int]:
    operation, name = node.operation, prefix + node.operation.name
    args, kwargs = node.arguments.convert(lambda x: Value(ids[id(x)]) if id(x) in ids else x)
    call = Call(operation, (name,), tuple(args), check_call(flat.name, name, operation, kwargs), ())
    check_mask(flat.name, name, node)
    inner = graph_of(operation)
    if inner is None:
        return _append(flat, call)
    return _open(flat, inner, [_fit(flat, v, t, name) for v, t in _paired(flat, call, inner)], f"{name}/")


def _paired(flat: FlatModel, call: Call, inner: Any) -> list[tuple[int, Any]]:
    given = call.inputs
    if len(given) != len(inner.inputs):
        reason = f"this nested model has {len(inner.inputs)} inputs and is given {len(given)} tensors"
        raise NotFunctional(flat.name, call.layers[0], reason)
    return list(zip(given, inner.inputs, strict=True))


def _fit(flat: FlatModel, value: int, symbol: Any, name: str) -> int:
    """What Keras does at a nested model's door: cast to the dtype of its input."""
    spec = flat.specs[value]
    if len(spec.shape) != len(symbol.shape):
        raise NotFunctional(flat.name, name, f"its input is of rank {len(symbol.shape)}, it is given {spec.shape}")
    if spec.dtype == symbol.dtype:
        return value
    return _append(flat, Call(keras.src.ops.core.Cast(symbol.dtype), (f"{name}/cast",), (Value(value),), {}, ()))[0]


def _append(flat: FlatModel, call: Call) -> list[int]:
    specs = _infer(flat, call)
    made = [_number(flat, spec.shape, spec.dtype) for spec in specs]
    flat.calls.append(replace(call, outputs=tuple(made)))
    _check_custom(flat, flat.calls[-1])
    return made


def _check_custom(flat: FlatModel, call: Call) -> None:
    ids = list(dict.fromkeys(call.inputs))
    specs = [(flat.specs[i].shape, flat.specs[i].dtype) for i in ids]
    check_custom(
        flat.name, call.layers[0], call.operation, lambda *x: call.perform(dict(zip(ids, x, strict=True))), specs
    )


def _infer(flat: FlatModel, call: Call) -> list[Spec]:
    symbols = {i: keras.KerasTensor(flat.specs[i].shape, flat.specs[i].dtype) for i in call.inputs}
    args, kwargs = call.arguments(symbols)
    found = [
        Spec(tuple(t.shape), keras.backend.standardize_dtype(t.dtype))
        for t in keras.tree.flatten(call.operation.compute_output_spec(*args, **kwargs))
    ]
    for spec in found:
        if None in spec.shape:
            raise NotFunctional(flat.name, call.layers[0], f"its output {spec.shape} has a size that depends on data")
    return found


def _drop_unread(flat: FlatModel) -> None:
    needed = set(flat.outputs)
    for call in reversed(flat.calls):
        if needed & set(call.outputs):
            needed |= set(call.inputs)
    flat.calls = [call for call in flat.calls if needed & set(call.outputs)]


def _name_uniquely(flat: FlatModel, renumber: bool) -> None:
    seen: Counter[str] = Counter()
    taken = {call.layers[0] for call in flat.calls}
    for position, call in enumerate(flat.calls):
        name = call.layers[0]
        if renumber:
            name = re.sub(rf"((?:^|/){_automatic(call.operation)})_\d+$", r"\1", name)
        seen[name] += 1
        if seen[name] > 1:
            base, number = name, seen[name] - 1
            while (name := f"{base}_{number}") in taken and not renumber:
                number += 1
        taken.add(name)
        flat.calls[position] = replace(call, layers=(name,))


def _automatic(operation: Any) -> str:
    """The name that Keras would give to an operation of this class, without its counter."""
    return re.escape(str(keras.src.utils.naming.to_snake_case(type(operation).__name__)))
