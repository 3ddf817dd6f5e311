"""Write down the calls that Keras makes when it runs a functional model on symbols of TensorFlow.

Keras decides what masks a layer sees, how a nested model's inputs are paired, cast and reshaped, and what shapes come
out; a hook at each node of its graph notes it. Knows no block and no weight's value.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import ModelError, NotFunctional, TrisectError
from pipeline.graph import DTYPES
from pipeline.prepare.calls import Call, FlatModel, Spec, Value
from pipeline.prepare.unsupported import cannot_run, check_call, graph_of
from pipeline.tensorflow_runtime import keras, tf

_get_mask = keras.src.backend.get_keras_mask


class Masks(keras.Operation):  # type: ignore[misc]  # keras has no annotations
    """The masks that a layer's call hangs on its outputs, those numbered `places`."""

    def __init__(self, layer: Any, places: Sequence[int]) -> None:
        super().__init__(name=f"{layer.name}_mask")
        self._layer, self._places = layer, tuple(places)
        self._call_has_training_arg = getattr(layer, "_call_has_training_arg", False)

    def call(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Call the layer; of what it computes only the masks are read, so TensorFlow drops the rest."""
        made = keras.tree.flatten(self._layer(*args, **kwargs))
        return [_get_mask(made[place]) for place in self._places]

    def get_config(self) -> dict[str, Any]:
        """The configuration that the digest covers."""
        kind = type(self._layer)
        return {
            "layer": [kind.__module__, kind.__qualname__, self._layer.get_config()],
            "places": list(self._places),
        }


@dataclass(frozen=True)
class Trace:
    """The graph in which Keras ran the model: `tensors` by the flat model's ids."""

    function: Any
    tensors: Mapping[int, Any]

    def run(self, arrays: Sequence[Any], ids: Sequence[int]) -> list[Any]:
        """Keras's own values of these tensors for one frame."""
        pruned = self.function.prune(self.function.inputs[: len(arrays)], [self.tensors[i] for i in ids])
        return list(pruned(*map(tf.constant, arrays)))


def record(flat: FlatModel, function: Any, inputs: Sequence[tuple[Any, tuple[int, ...]]]) -> None:
    """Append the calls of a functional model to `flat`, and give it inputs, outputs and specs.

    `inputs` are its symbols, each with the shape at batch 1. Raises NotFunctional, ModelError.
    """
    recorder = _Recorder(flat)

    def run(*tensors: Any) -> None:
        flat.inputs = tuple(recorder.number(tensor, f"input {tensor.name!r}") for tensor in tensors)
        with recorder.hooked():
            outputs = function(keras.tree.pack_sequence_as(function._inputs_struct, list(tensors)), training=False)
        flat.outputs = tuple(recorder.known(tensor, "output") for tensor in keras.tree.flatten(outputs))

    specs = [tf.TensorSpec(shape, symbol.dtype) for symbol, shape in inputs]
    try:
        traced = tf.compat.v1.wrap_function(run, specs)
    except TrisectError:
        raise
    except Exception as error:
        raise cannot_run(flat.name, recorder.at or "its graph", [], error) from error
    flat.trace = Trace(traced, recorder.tensors)


def record_declared(flat: FlatModel, function: Any, inputs: Sequence[tuple[Any, tuple[int, ...]]]) -> None:
    """The same by what each layer declares, in half the time: for models of ours, which nest none and mask nothing."""
    recorder = _Recorder(flat)
    symbols = [keras.KerasTensor(shape, symbol.dtype) for symbol, shape in inputs]
    flat.inputs = tuple(recorder.number(symbol, "input") for symbol in symbols)
    outputs = function._run_through_graph(symbols, operation_fn=recorder.declared)
    flat.outputs = tuple(recorder.known(tensor, "output") for tensor in keras.tree.flatten(outputs))


@dataclass
class _Recorder:
    """State while Keras runs: the id of each symbol, by its name in TensorFlow's graph."""

    flat: FlatModel
    tensors: dict[int, Any] = field(default_factory=dict)
    at: str = ""
    _ids: dict[str, int] = field(default_factory=dict)
    _prefix: str = ""
    _within: bool = False

    def number(self, tensor: Any, name: str) -> int:
        """A new id. Raises NotFunctional for a tensor that cannot be sent."""
        if not _is_symbol(tensor):
            raise NotFunctional(self.flat.name, name, f"it makes a {type(tensor).__name__}, no plain tensor")
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        if dtype not in DTYPES:
            raise NotFunctional(self.flat.name, name, f"its output is of dtype {dtype}, which no engine here computes")
        shape = None if tensor.shape == tf.TensorShape(None) else tuple(tensor.shape)
        if shape is None or None in shape:
            raise NotFunctional(self.flat.name, name, f"its output {tensor.shape} has a size that depends on data")
        number = len(self.flat.specs)
        self.flat.specs[number] = Spec(shape, dtype)
        self.tensors[number] = tensor
        self._ids[tensor.name] = number
        return number

    def known(self, tensor: Any, reader: str) -> int:
        """The id of a symbol that a call made."""
        if (found := self._id(tensor)) is None:
            raise ModelError(f"model {self.flat.name!r}: {reader} reads a tensor that no layer of its graph makes")
        return found

    def _id(self, leaf: Any) -> int | None:
        return self._ids.get(leaf.name) if _is_symbol(leaf) else None

    def declared(self, operation: Any) -> Any:
        """In place of a node's operation: its outputs as it declares them, written down as a call."""

        def call(*args: Any, **kwargs: Any) -> Any:
            kwargs = check_call(self.flat.name, operation.name, operation, kwargs)
            made = operation.compute_output_spec(*args, **kwargs)
            noted = self._noted(args, kwargs)
            outputs = tuple(self.number(tensor, operation.name) for tensor in keras.tree.flatten(made))
            self.flat.calls.append(Call(operation, (operation.name,), *noted, outputs))
            return made

        return call

    def _noted(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments with a Value for each symbol."""
        return keras.tree.map_structure(  # type: ignore[no-any-return]
            lambda leaf: leaf if (found := self._id(leaf)) is None else Value(found), (tuple(args), dict(kwargs))
        )

    @contextlib.contextmanager
    def hooked(self) -> Iterator[None]:
        """Have Keras's graphs call through this meanwhile, and its errors come as they are."""
        functional = keras.src.models.functional
        of_graph, kind = functional.operation_fn, functional.Functional
        doors = kind._convert_inputs_to_tensors, kind._adjust_input_rank
        functional.operation_fn = lambda operation, **context: self._node(operation, of_graph(operation, **context))
        kind._convert_inputs_to_tensors = self._door(doors[0])
        kind._adjust_input_rank = self._door(doors[1])
        filtering = keras.config.is_traceback_filtering_enabled()
        keras.config.disable_traceback_filtering()
        try:
            yield
        finally:
            if filtering:
                keras.config.enable_traceback_filtering()
            functional.operation_fn = of_graph
            kind._convert_inputs_to_tensors, kind._adjust_input_rank = doors

    def _door(self, method: Any) -> Any:
        """One of the two steps by which a nested model fits its inputs, with what it changed written down."""

        def fitted(model: Any, given: Sequence[Any]) -> list[Any]:
            made: list[Any] = method(model, given)
            if not self._within:
                for before, after in zip(given, made, strict=True):
                    if self._id(before) is not None and self._id(after) is None:
                        self._note_fit(before, after)
            return made

        return fitted

    def _note_fit(self, before: Any, after: Any) -> None:
        operations, ranks = keras.src.ops, (before.shape.rank, after.shape.rank)
        if before.dtype != after.dtype:
            operation, word = operations.core.Cast(keras.backend.standardize_dtype(after.dtype)), "cast"
        elif ranks[0] > ranks[1]:
            operation, word = operations.numpy.Squeeze(axis=-1), "squeeze"
        elif ranks[0] < ranks[1]:
            operation, word = operations.numpy.ExpandDims(axis=-1), "expand_dims"
        else:
            operation, word = keras.layers.Identity(), "identity"
        name = f"{self._prefix}{word}"
        value = Value(self.known(before, name))
        self.flat.calls.append(Call(operation, (name,), (value,), {}, (self.number(after, name),)))

    def _node(self, operation: Any, perform: Any) -> Any:
        """Wrap the call at a node of Keras's graph: a nested model is opened, a layer is recorded."""
        if self._within:
            return perform
        name = self._prefix + operation.name

        def call(*args: Any, **kwargs: Any) -> Any:
            self.at = name
            kept = check_call(self.flat.name, name, operation, kwargs)
            if graph_of(operation) is not None:
                outer, self._prefix = self._prefix, f"{name}/"
                try:
                    return perform(*args, **kwargs)
                finally:
                    self._prefix = outer
            return self._layer(operation, name, perform, args, (kwargs, kept))

        return call

    def _layer(self, operation: Any, name: str, perform: Any, args: Any, kwargs: tuple[Any, Any]) -> Any:
        noted = self._noted(args, kwargs[1])
        given = [leaf for leaf in keras.tree.flatten((args, kwargs[1])) if self._id(leaf) is not None]
        masks = {self.known(leaf, name): _get_mask(leaf) for leaf in given if _get_mask(leaf) is not None}
        self._within = True
        try:
            outputs = perform(*args, **kwargs[0])
        except TrisectError:
            raise
        except Exception as error:
            raise cannot_run(self.flat.name, f"{name} ({type(operation).__name__})", given, error) from error
        finally:
            self._within = False
        self._note(operation, name, noted, masks, keras.tree.flatten(outputs))
        return outputs

    def _note(self, operation: Any, name: str, noted: Any, masks: Mapping[int, Any], made: Sequence[Any]) -> None:
        numbered = {tensor: self.known(mask, name) for tensor, mask in masks.items()}
        args, kwargs = noted[0], dict(noted[1])
        hung = [_get_mask(tensor) if tf.is_tensor(tensor) else None for tensor in made]
        mask = kwargs.get("mask")
        if isinstance(mask, Value) and mask.id not in self._read_by(made):
            del kwargs["mask"]
        read = {tensor: one for tensor, one in numbered.items() if one in self._read_by(made)}
        new = [i for i, one in enumerate(hung) if one is not None and self._id(one) is None]
        outputs = tuple(self.number(tensor, name) for tensor in made)
        self.flat.calls.append(Call(operation, (name,), args, kwargs, outputs, read))
        if new:
            self._note_masks(operation, name, noted, numbered, {i: hung[i] for i in new})

    def _note_masks(
        self, operation: Any, name: str, noted: Any, masks: Mapping[int, int], new: Mapping[int, Any]
    ) -> None:
        first = {hung.name: place for place, hung in reversed(list(new.items()))}
        places = sorted(first.values())
        reading = Call(Masks(operation, places), (f"{name}/mask",), noted[0], noted[1], (), masks)
        outputs = tuple(self.number(new[place], reading.layers[0]) for place in places)
        self.flat.calls.append(Call(reading.operation, reading.layers, reading.args, reading.kwargs, outputs, masks))

    def _read_by(self, made: Sequence[Any]) -> set[int]:
        """The numbered tensors from which TensorFlow's graph makes these, of several in a row the nearest."""
        found: set[int] = set()
        seen: set[str] = set()
        open_ends = [tensor for tensor in made if tf.is_tensor(tensor)]
        while open_ends:
            tensor = open_ends.pop()
            if (known := self._id(tensor)) is not None:
                found.add(known)
            elif hasattr(tensor, "op") and tensor.op.name not in seen:
                seen.add(tensor.op.name)
                open_ends.extend(tensor.op.inputs)
        return found


def _is_symbol(leaf: Any) -> bool:
    """True for a dense tensor of a graph in the making, or of Keras's."""
    return isinstance(leaf, keras.KerasTensor) or (isinstance(leaf, tf.Tensor) and hasattr(leaf, "op"))
