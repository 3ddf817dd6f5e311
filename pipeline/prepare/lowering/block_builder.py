"""The operations of one block in the making, and the constants of a whole program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.graph import Block
from pipeline.lite.program import Op
from pipeline.prepare.flatten import Call, Spec
from pipeline.tensorflow_runtime import as_array

if TYPE_CHECKING:
    from pipeline.prepare.model import PreparedModel

Array = npt.NDArray[Any]

_FUSED = frozenset({"relu", "relu6"})
_FUSING = frozenset({"conv", "depthwise", "dense", "add", "subtract", "multiply", "divide"})
_ACTIVATIONS = {
    **{name: name for name in ("relu", "relu6", "elu", "sigmoid", "silu", "hard_silu", "hard_sigmoid", "tanh")},
    **{name: name for name in ("gelu", "softplus", "softmax")},
    **{"exponential": "exp", "linear": ""},
}


class NoOperation(ModelError):
    """No operation here does what the call does."""


class ArrayPool:
    """The constants so far: each variable, or what is made of it, once."""

    def __init__(self) -> None:
        self.makers: list[Callable[[], Array]] = []
        self._known: dict[object, int] = {}
        self._held: list[Any] = []

    def add(self, make: Callable[[], Array], key: object = None, held: Any = None) -> int:
        """The id of an array; equal keys share one. `held` is what the key is the identity of."""
        if key is not None and key in self._known:
            return self._known[key]
        self.makers.append(make)
        self._held.append(held)
        if key is not None:
            self._known[key] = len(self.makers) - 1
        return len(self.makers) - 1


class BlockBuilder:
    """The operations of one block in the making."""

    def __init__(self, model: PreparedModel, block: Block, arrays: ArrayPool) -> None:
        self.ops: list[Op] = []
        self.arrays = arrays
        self._specs: dict[int, Spec] = dict(model.specs)
        self._next = max(self._specs) + 1
        self._outputs = frozenset(block.outputs)
        self._windows = 0

    def spec(self, tensor: int) -> Spec:
        return self._specs[tensor]

    def floats(self, *tensors: int) -> None:
        """Raise NoOperation unless all of these are float32."""
        if any(self._specs[t].dtype != "float32" for t in tensors):
            raise NoOperation("not float32")

    def value(self, shape: Sequence[int], dtype: str = "float32") -> int:
        """A new tensor within the block."""
        self._specs[self._next] = Spec(tuple(shape), dtype)
        self._next += 1
        return self._next - 1

    def window(self) -> int:
        """The next window's place in the block."""
        self._windows += 1
        return self._windows - 1

    def add(
        self,
        kind: str,
        inputs: Sequence[int],
        output: int,
        *,
        arrays: Sequence[int] = (),
        window: int | None = None,
        **options: Any,
    ) -> None:
        self.ops.append(Op(kind, tuple(inputs), (output,), tuple(arrays), options, window))

    def variable(self, variable: Any, how: str = "", make: Callable[[Array], Array] = lambda array: array) -> int:
        """An array of a variable's values, or of what is made of them."""
        return self.arrays.add(lambda: make(as_array(variable.value)), (id(variable), how), variable)

    def zeros(self, size: int) -> int:
        return self.arrays.add(lambda: np.zeros(size, np.float32), ("zeros", size))

    def constant(self, value: Any) -> int:
        array = np.asarray(value, np.float32)
        return self.arrays.add(lambda: array, (array.tobytes(), array.shape))

    def activate(self, name: str, given: int, output: int) -> None:
        """An activation by its name here; fused where a product can."""
        last = self.ops[-1] if self.ops else None
        fusible = (
            name in _FUSED
            and last is not None
            and last.kind in _FUSING
            and last.outputs == (given,)
            and given not in self._outputs
            and last.options.get("activation", "none") == "none"
        )
        if fusible and last is not None:
            self.ops[-1] = replace(last, outputs=(output,), options={**last.options, "activation": name})
        else:
            self.add(name, (given,), output)

    def finish(self, layer: Any, kind: str, inputs: Sequence[int], output: int, **options: Any) -> None:
        """A product and the activation that its layer has."""
        name = activation_of(getattr(layer, "activation", None))
        if not name:
            self.add(kind, inputs, output, **options)
            return
        between = self.value(self.spec(output).shape)
        self.add(kind, inputs, between, **options)
        self.activate(name, between, output)


Lowerer = Callable[[BlockBuilder, Call], None]
"""Adds the operations of a call to its block. Raises NoOperation."""


def activation_of(function: Any) -> str:
    """The name of a layer's activation here, "" for none."""
    if function is None:
        return ""
    own = str(getattr(function, "__module__", "")).startswith("keras.src.activations")
    name = getattr(function, "__name__", "")
    if not own or name not in _ACTIVATIONS:
        raise NoOperation(name)
    return _ACTIVATIONS[name]


def require_plain(layer: Any) -> None:
    """Raise NoOperation for a layer whose weights are not simply float32."""
    is_float32 = layer.compute_dtype == layer.variable_dtype == "float32"
    if not is_float32 or getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        raise NoOperation("quantised, adapted, or of another dtype")
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise NoOperation("channels first")


def only_tensors(call: Call) -> tuple[int, int]:
    """The only input and output of a call."""
    if len(call.inputs) != 1 or len(call.outputs) != 1:
        raise NoOperation("several tensors")
    return call.inputs[0], call.outputs[0]
