"""A Keras model as a flat list of calls: nested models opened, every tensor numbered, with the shape it has at batch 1.

Keras itself runs the model once, on symbols of TensorFlow, and each call that its graph makes is written down: so
masks, nested models, casts and shapes are what Keras makes of them. Knows no block and no weight.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pipeline.errors import ModelError
from pipeline.prepare.calls import Call, FlatModel, Spec, Value
from pipeline.prepare.recording import record, record_declared
from pipeline.prepare.unsupported import check_channels, check_custom, check_model, graph_of, sizes_of
from pipeline.tensorflow_runtime import keras

__all__ = ["Call", "FlatModel", "Spec", "Value", "flatten"]


def flatten(
    model: Any, name: str, renumber: bool, sizes: Sequence[int] = (), *, is_declared: bool = False
) -> FlatModel:
    """Flatten a functional or sequential model; `sizes` stand where its inputs leave theirs open (None).

    `renumber` gives layers that were named by Keras's process-wide counter (`conv2d_17`) numbers of their own, so that
    a model built here has the same names in every process. With `is_declared` the layers are believed what they say of
    their outputs, and Keras runs only a model that nests others. Raises NotFunctional, ModelError.
    """
    function = check_model(model, name)
    flat = FlatModel(name, (), (), _input_names(function, renumber))
    nests = any(graph_of(operation) is not None for operation in function.operations)
    write_down = record_declared if is_declared and not nests else record
    write_down(flat, function, [(tensor, sizes_of(name, tensor, sizes)) for tensor in function.inputs])
    if sizes and not any(None in tuple(tensor.shape)[1:] for tensor in function.inputs):
        raise ModelError(f"model {name!r} has no input of unknown size; leave the input size out")
    _drop_unread(flat)
    for call in flat.calls:
        _check(flat, call)
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


def _check(flat: FlatModel, call: Call) -> None:
    ids = list(dict.fromkeys(call.inputs))
    specs = [(flat.specs[i].shape, flat.specs[i].dtype) for i in ids]
    for check in (check_custom, check_channels):
        check(flat.name, call.layers[0], call.operation, lambda *x: call.perform(dict(zip(ids, x, strict=True))), specs)


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
