"""Calls of Keras operations, and a flat list of them: what a model is between Keras and blocks.

A call holds Keras's own operation and can perform it. Knows no block and no weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

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

    `layers` are the names people know: of the operation, then of those folded into it. `masks` has, by the id of an
    argument, the id of the mask that hangs on it, where the outputs depend on that.
    """

    operation: Any
    layers: tuple[str, ...]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[int, ...]
    masks: Mapping[int, int] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[int, ...]:
        """Ids of the tensors it reads, in the order of its arguments; masks come last."""
        leaves = keras.tree.flatten((self.args, dict(self.kwargs)))
        return (*(leaf.id for leaf in leaves if isinstance(leaf, Value)), *self.masks.values())

    def arguments(self, tensors: Mapping[int, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments with the tensors in their places."""
        return keras.tree.map_structure(  # type: ignore[no-any-return]
            lambda leaf: tensors[leaf.id] if isinstance(leaf, Value) else leaf, (self.args, dict(self.kwargs))
        )

    def reading(self, ids: Mapping[int, int]) -> Call:
        """The same call, where each tensor that it reads goes by another id."""
        args, kwargs = self.arguments({tensor: Value(ids[tensor]) for tensor in self.inputs})
        masks = {ids[tensor]: ids[mask] for tensor, mask in self.masks.items()}
        return replace(self, args=args, kwargs=kwargs, masks=masks)

    def perform(self, tensors: Mapping[int, Any]) -> list[Any]:
        """Call the operation for inference; the results in the order of `outputs`."""
        for tensor in self.inputs:
            mask = self.masks.get(tensor)
            keras.src.backend.set_keras_mask(tensors[tensor], None if mask is None else tensors[mask])
        args, kwargs = self.arguments(tensors)
        if getattr(self.operation, "_call_has_training_arg", False):
            kwargs["training"] = False  # some layers (RandomFlip) default to True
        return list(keras.tree.flatten(self.operation(*args, **kwargs)))


@dataclass
class FlatModel:
    """Calls in topological order; `specs` of every tensor by id; ids of the model's inputs and outputs.

    `trace` is how Keras ran it, for whoever compares.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_names: tuple[str, ...]
    calls: list[Call] = field(default_factory=list)
    specs: dict[int, Spec] = field(default_factory=dict)
    trace: Any = None

    def readers(self) -> dict[int, list[int]]:
        """For each tensor id, the positions of the calls that read it."""
        found: dict[int, list[int]] = {tensor: [] for tensor in self.specs}
        for position, call in enumerate(self.calls):
            for tensor in dict.fromkeys(call.inputs):
                found[tensor].append(position)
        return found
