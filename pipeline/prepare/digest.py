"""The name of a function: a hash over structure and weights of a prepared model, equal wherever it was built.

Leaves out what does not change a frame's result: names, initialisers, regularisers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.prepare.blocks import variables
from pipeline.prepare.flatten import Call, Spec, Value
from pipeline.tensorflow_runtime import as_array, keras

DIGEST_HEX = 32
_SILENT = ("_initializer", "_regularizer", "_constraint")
_SILENT_KEYS = frozenset(
    {"trainable", "seed", "build_config", "registered_name", "shared_object_id", "kernel_quantizer"}
)


def digest(
    calls: Sequence[Sequence[Call]], inputs: Sequence[int], outputs: Sequence[int], specs: Mapping[int, Spec]
) -> str:
    """SHA-256 over canonical JSON of the structure, then the weights' bytes; the first 32 hex digits."""
    weights: dict[int, Any] = {}
    blocks = [[_call(call, weights) for call in block] for block in calls]
    shapes = [[tensor, list(spec.shape), spec.dtype] for tensor, spec in sorted(specs.items())]
    structure = {"blocks": blocks, "inputs": list(inputs), "outputs": list(outputs), "tensors": shapes}
    found = hashlib.sha256(json.dumps(structure, sort_keys=True, default=_plain).encode())
    for variable in weights.values():
        found.update(np.ascontiguousarray(as_array(variable.value)).reshape(-1).view(np.uint8).data)
    return found.hexdigest()[:DIGEST_HEX]


def _call(call: Call, weights: dict[int, Any]) -> list[Any]:
    held = []
    for variable in variables(call):
        weights.setdefault(id(variable), variable)
        held.append([list(weights).index(id(variable)), list(variable.shape), str(variable.dtype)])
    kind = type(call.operation)
    masks = [sorted(call.masks.items())] if call.masks else []
    return [kind.__module__, kind.__qualname__, _config(call.operation), _plain(call.args), _plain(call.kwargs),
            list(call.outputs), held, *masks]  # fmt: skip


def _config(operation: Any) -> Any:
    try:
        return _significant(operation.get_config(), named=False)
    except Exception:  # an operation may hold what cannot be written; then what it plainly holds must do
        public = {k: v for k, v in vars(operation).items() if not k.startswith("_")}
        return _significant({k: v for k, v in public.items() if isinstance(v, str | int | float | bool | tuple)}, False)


def _significant(value: Any, named: bool) -> Any:
    """Without names (a dtype policy's is no mere name) and what only training uses."""
    if isinstance(value, Mapping):
        policy = "Policy" in str(value.get("class_name"))
        return {
            str(k): _significant(v, policy)
            for k, v in value.items()
            if (k != "name" or named) and k not in _SILENT_KEYS and not str(k).endswith(_SILENT)
        }
    if isinstance(value, list | tuple):
        return [_significant(v, named) for v in value]
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Value):
        return {"tensor": value.id}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, np.generic | np.ndarray) or keras.ops.is_tensor(value):
        array = np.asarray(value)
        return {"array": array.tobytes().hex(), "dtype": str(array.dtype), "shape": list(array.shape)}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, slice):
        return ["slice", _plain(value.start), _plain(value.stop), _plain(value.step)]
    return getattr(value, "__name__", None) or type(value).__name__
