"""Unsupported models: every reason for which a Keras model is refused.

Knows Keras's classes; decides nothing but yes or NotFunctional.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import ModelError, NotFunctional
from pipeline.tensorflow_runtime import keras, tf

_RANDOM = ("Random", "StatelessRandom", "Multinomial", "StatelessMultinomial", "ParameterizedTruncatedNormal")
_CHANGES_STATE = ("Assign", "ResourceScatter", "ResourceApply", "StridedSliceAssign")
_OWN = ("keras.", "pipeline.prepare.")
REBUILD = "rebuild it with keras.Model(inputs, outputs) from keras layers"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PLACES = re.compile(r"\{\{function_node [^}]*\}\} ?|\s*\[\[\{\{node .*|\s*\[Op:\w+\]")
_DUMPS = ("Full object config:", "Arguments received by", "Call arguments received by")
_ERROR_CHARACTERS = 600
_CHANGES_IN_TRAINING = (keras.layers.BatchNormalization, keras.layers.Dropout, keras.Model)


def check_model(model: Any, name: str) -> Any:
    """The functional graph of a model. Raises NotFunctional for one that has none."""
    if isinstance(model, keras.Sequential) and type(model).call is keras.Sequential.call:
        if model._functional is None:
            reason = (
                "a Sequential of unknown input shape; begin it with keras.Input(shape), or build() it before saving"
            )
            raise NotFunctional(name, model.name, reason)
        return model._functional
    function = graph_of(model)
    if function is None:
        reason = f"a subclass of keras.Model with its own call(); {REBUILD}"
        raise NotFunctional(name, getattr(model, "name", repr(model)), reason)
    return function


def graph_of(operation: Any) -> Any | None:
    """The graph of a (nested) functional or sequential model; None for a layer, or a model with its own `call`."""
    if isinstance(operation, keras.Sequential):
        return operation._functional if type(operation).call is keras.Sequential.call else None
    functional = keras.src.models.functional.Functional
    if isinstance(operation, functional) and type(operation).call is functional.call:
        return operation
    return None


def sizes_of(model: str, symbol: Any, sizes: Sequence[int]) -> tuple[int, ...]:
    """The shape of an input at batch 1, with `sizes` where it says None. Raises NotFunctional.

    The batch that it declares is not looked at, as Keras does: `fit` leaves that of training in a Sequential.
    """
    shape, name = tuple(symbol.shape), f"input {symbol.name!r}"
    if symbol.dtype == "string":
        reason = "it takes strings, which no engine here computes; look them up before, and send their numbers"
        raise NotFunctional(model, name, reason)
    if not shape:
        raise NotFunctional(model, name, "it is a single number without a batch")
    unknown = sum(size is None for size in shape[1:])
    if unknown and unknown != len(sizes):
        given = f", not the {len(sizes)} given" if sizes else ""
        example = "x".join(["256"] * unknown)
        configured = f"input_size: [{', '.join(['256'] * unknown)}]"
        reason = (
            f"its shape {shape} has {_sizes(unknown)}{given}; give a number for each: --input-size {example}, "
            f"in a configuration {configured}"
        )
        raise NotFunctional(model, name, reason)
    following = iter(sizes)
    return (1, *(next(following) if size is None else size for size in shape[1:]))


def _sizes(count: int) -> str:
    return "1 unknown size" if count == 1 else f"{count} unknown sizes"


def check_call(model: str, layer: str, operation: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The call's keyword arguments without `training`. Raises NotFunctional when a frame's result could depend on more.

    That is: on the frame before it (stateful layers), on chance, or on what training would do.
    """
    if getattr(operation, "stateful", False):
        raise NotFunctional(model, layer, "it carries state from frame to frame (stateful=True)")
    kwargs = dict(kwargs)
    if kwargs.pop("training", None) and (isinstance(operation, _CHANGES_IN_TRAINING) or _draws(operation)):
        raise NotFunctional(model, layer, "it was called with training=True, so inference would be random or drift")
    if kwargs.get("mask") is not None:
        return kwargs
    return {key: value for key, value in kwargs.items() if key != "mask"}


def _draws(operation: Any) -> bool:
    return getattr(operation, "seed_generator", None) is not None or not type(operation).__module__.startswith("keras.")


def check_custom(model: str, layer: str, operation: Any, perform: Any, specs: list[tuple[Any, str]]) -> None:
    """Trace a layer that is not Keras's own; raise NotFunctional when it draws random numbers or changes a variable.

    `perform` takes one tensor for each (shape, dtype) of `specs`.
    """
    if type(operation).__module__.startswith(_OWN) and not isinstance(operation, keras.layers.Lambda):
        return
    traced = tf.function(perform, autograph=False).get_concrete_function(*[tf.TensorSpec(s, d) for s, d in specs])
    kinds = sorted(_kinds(traced.graph))
    for prefixes, reason in ((_RANDOM, "draws random numbers"), (_CHANGES_STATE, "changes a variable")):
        for kind in kinds:
            if kind.startswith(prefixes):
                raise NotFunctional(model, layer, f"it {reason} at inference ({kind})")


def check_channels(model: str, layer: str, operation: Any, perform: Any, specs: list[tuple[Any, str]]) -> None:
    """Run a channels-first layer once; raise NotFunctional where TensorFlow has no kernel for it on a processor."""
    if getattr(operation, "data_format", "channels_last") != "channels_first":
        return
    try:
        tf.function(perform, autograph=False)(*[tf.zeros(shape, dtype) for shape, dtype in specs])
    except Exception as error:
        reason = (
            f"its data_format is channels_first, which TensorFlow does not compute without a GPU: {error_text(error)}"
        )
        raise NotFunctional(model, layer, f"{reason}; build it with channels_last") from error


def cannot_run(model: str, layer: str, given: Sequence[Any], error: Exception) -> ModelError:
    """The error for a layer that Keras itself cannot call on what it is given."""
    shapes = ", ".join(f"{keras.backend.standardize_dtype(t.dtype)}{tuple(t.shape)}" for t in given)
    on = f" on {shapes}" if shapes else ""
    return ModelError(f"model {model!r}: {layer}: Keras cannot run it{on}: {error_text(error)}")


def error_text(error: BaseException) -> str:
    """The words of Keras or TensorFlow, without colours, dumps of configurations and places in code; bounded."""
    text = _COLOUR.sub("", str(error))
    for end in _DUMPS:
        text = text.partition(end)[0]
    text = _PLACES.sub("", " ".join(text.split()))
    return f"{type(error).__name__}: {text[:_ERROR_CHARACTERS]}{'...' if len(text) > _ERROR_CHARACTERS else ''}"


def _kinds(graph: Any) -> set[str]:
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    return {node.op for node in nodes}
