"""What cannot be cut, and why: every reason for which a Keras model is refused.

Knows Keras's classes; decides nothing but yes or NotFunctional.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import NotFunctional
from pipeline.tensorflow_runtime import keras, tf

_RANDOM = ("Random", "StatelessRandom", "Multinomial", "StatelessMultinomial", "ParameterizedTruncatedNormal")
_CHANGES_STATE = ("Assign", "ResourceScatter", "ResourceApply", "StridedSliceAssign")
_CHANGES_IN_TRAINING = (keras.layers.BatchNormalization, keras.layers.Dropout, keras.Model)


def check_model(model: Any, name: str) -> Any:
    """The functional graph of a model. Raises NotFunctional for one that has none."""
    if isinstance(model, keras.Sequential) and type(model).call is keras.Sequential.call:
        if model._functional is None:
            raise NotFunctional(
                name, model.name, "a Sequential of unknown input shape; begin it with keras.Input(shape)"
            )
        return model._functional
    function = graph_of(model)
    if function is None:
        raise NotFunctional(name, getattr(model, "name", repr(model)), "a subclass of keras.Model with its own call()")
    return function


def graph_of(operation: Any) -> Any | None:
    """The graph of a (nested) functional or sequential model; None for a layer, or a model with its own `call`."""
    if isinstance(operation, keras.Sequential):
        return operation._functional if type(operation).call is keras.Sequential.call else None
    functional = keras.src.models.functional.Functional
    if isinstance(operation, functional) and type(operation).call is functional.call:
        return operation
    return None


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


def check_mask(model: str, layer: str, node: Any) -> None:
    """Raise NotFunctional when a layer reads a mask that hangs on its input: a tensor that is sent loses it."""
    masked = any(keras.src.backend.get_keras_mask(tensor) is not None for tensor in node.input_tensors)
    if masked and getattr(node.operation, "_call_has_mask_arg", False):
        raise NotFunctional(
            model, layer, "it reads a mask (mask_zero, Masking), which a cut would lose; build it without"
        )


def check_custom(model: str, layer: str, operation: Any, perform: Any, specs: list[tuple[Any, str]]) -> None:
    """Trace a layer that is not Keras's own; raise NotFunctional when it draws random numbers or changes a variable.

    `perform` takes one tensor for each (shape, dtype) of `specs`.
    """
    if type(operation).__module__.startswith("keras.") and not isinstance(operation, keras.layers.Lambda):
        return
    traced = tf.function(perform, autograph=False).get_concrete_function(*[tf.TensorSpec(s, d) for s, d in specs])
    kinds = sorted(_kinds(traced.graph))
    for prefixes, reason in ((_RANDOM, "draws random numbers"), (_CHANGES_STATE, "changes a variable")):
        for kind in kinds:
            if kind.startswith(prefixes):
                raise NotFunctional(model, layer, f"it {reason} at inference ({kind})")


def _kinds(graph: Any) -> set[str]:
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    return {node.op for node in nodes}
