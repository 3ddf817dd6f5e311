"""Group the calls of a simplified model into blocks: a convolution with its padding and activation, or a single layer.

What TensorFlow would fuse stays in one block, so that a cut never changes which kernel runs. Knows no weights' values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pipeline.graph import Block, Tensor
from pipeline.prepare.flatten import Call, FlatModel
from pipeline.prepare.folding import FOLDS, Affine
from pipeline.prepare.windows import windows_of
from pipeline.tensorflow_runtime import keras

_L = keras.layers
_PADDINGS = (_L.ZeroPadding1D, _L.ZeroPadding2D, _L.ZeroPadding3D)
_ACTIVATIONS = (_L.Activation, _L.ReLU, _L.LeakyReLU, _L.PReLU, _L.ELU)
_OPERATIONS = {
    *("Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "Silu"),
    *("HardSilu", "Sigmoid", "HardSigmoid", "Tanh", "Softplus"),
}
_MATRICES = 2
_HEADS = (*FOLDS, _L.Add, Affine, _L.BatchNormalization)


def group(flat: FlatModel) -> list[list[Call]]:
    """The calls of each block, in topological order, without the input block."""
    readers = flat.readers()
    single = {t: found[0] for t, found in readers.items() if len(found) == 1 and t not in flat.outputs}
    taken: set[int] = set()
    groups = []
    for position in range(len(flat.calls)):
        if position not in taken:
            chain = _chain(flat.calls, single, position)
            taken.update(chain)
            groups.append([flat.calls[i] for i in chain])
    return groups


def _chain(calls: Sequence[Call], single: dict[int, int], position: int) -> list[int]:
    chain = [position]
    if isinstance(calls[position].operation, _PADDINGS):
        following = single.get(calls[position].outputs[0])
        if following is None or type(calls[following].operation) not in FOLDS:
            return chain
        chain.append(following)
    if isinstance(calls[chain[-1]].operation, _HEADS):
        following = single.get(calls[chain[-1]].outputs[0])
        if following is not None and _is_activation(calls[following]):
            chain.append(following)
    return chain


def _is_activation(call: Call) -> bool:
    name = type(call.operation).__name__
    return len(call.inputs) == 1 and (isinstance(call.operation, _ACTIVATIONS) or name in _OPERATIONS)


def describe(flat: FlatModel, groups: Sequence[Sequence[Call]]) -> tuple[list[Tensor], list[Block], dict[int, int]]:
    """Tensors and blocks of the manifest, and for each tensor of the flat model its id there.

    Only tensors that leave their block are in the manifest; the others get ids above.
    """
    inside = [[t for call in calls for t in call.outputs] for calls in groups]
    leaving = set(flat.outputs)
    for calls in groups:
        leaving |= _read(calls)
    order = [*flat.inputs, *(t for made in inside for t in made if t in leaving)]
    number = {tensor: i for i, tensor in enumerate(order)}
    for tensor in (t for made in inside for t in made):
        number.setdefault(tensor, len(number))
    names = [_names(calls) for calls in groups]
    tensors = _tensors(flat, groups, order, number)
    blocks = [Block(0, "input", "input", (), (), tuple(number[t] for t in flat.inputs))]
    for index, (calls, made) in enumerate(zip(groups, inside, strict=True), start=1):
        outputs = tuple(sorted(number[t] for t in made if t in leaving))
        inputs = tuple(number[t] for t in dict.fromkeys(t for call in calls for t in call.inputs) if t in _read(calls))
        main = _main(calls)
        macs = sum(_macs(flat, call) for call in calls)
        name = main.layers[0]
        kernel, strides = _window(main.operation)
        parameters, windows = _parameters(calls), windows_of(flat, calls)
        named = (index, name, _kind(main), names[index - 1])
        blocks.append(Block(*named, inputs, outputs, parameters, macs, kernel, strides, windows))
    return tensors, blocks, number


def _read(calls: Sequence[Call]) -> set[int]:
    """Ids of the tensors that a block reads from others."""
    made = {tensor for call in calls for tensor in call.outputs}
    return {tensor for call in calls for tensor in call.inputs} - made


def _names(calls: Sequence[Call]) -> tuple[str, ...]:
    return tuple(name for call in calls for name in call.layers)


def _main(calls: Sequence[Call]) -> Call:
    return next(call for call in calls if not isinstance(call.operation, _PADDINGS) or call is calls[-1])


def _kind(call: Call) -> str:
    return "BatchNormalization" if isinstance(call.operation, Affine) else type(call.operation).__name__


def _tensors(
    flat: FlatModel, groups: Sequence[Sequence[Call]], order: Sequence[int], number: dict[int, int]
) -> list[Tensor]:
    names = dict(zip(flat.inputs, flat.input_names, strict=True))
    for calls in groups:
        for call in calls:
            for place, tensor in enumerate(call.outputs):
                names[tensor] = call.layers[-1] if len(call.outputs) == 1 else f"{call.layers[-1]}:{place}"
    return [Tensor(number[t], names[t], flat.specs[t].shape, flat.specs[t].dtype) for t in order]


def variables(call: Call) -> list[Any]:
    """The weights of a call, without the state of random generators that inference never uses."""
    return [v for v in getattr(call.operation, "variables", ()) if "seed_generator" not in v.path]


def _parameters(calls: Sequence[Call]) -> int:
    return sum({id(v): math.prod(v.shape) for call in calls for v in variables(call)}.values())


def _macs(flat: FlatModel, call: Call) -> int:
    """Multiply-accumulates of convolutions, dense, attention, recurrent layers, matrix products; 0 for all others."""
    kind, layer = type(call.operation), call.operation
    if kind not in FOLDS:
        return _macs_of_others(layer, [flat.specs[t].shape for t in call.inputs])
    made = math.prod(flat.specs[call.outputs[0]].shape)
    if kind in {_L.SeparableConv1D, _L.SeparableConv2D}:
        depthwise, pointwise = _sizes(layer.depthwise_kernel), _sizes(layer.pointwise_kernel)
        return made // pointwise[-1] * (math.prod(depthwise) + math.prod(pointwise))
    kernel = _sizes(layer.kernel)
    if "Transpose" in kind.__name__:
        return math.prod(flat.specs[call.inputs[0]].shape) * math.prod(kernel[:-1])
    if kind in {_L.DepthwiseConv1D, _L.DepthwiseConv2D}:
        return made * math.prod(kernel[:-2])
    return made * math.prod(kernel[:-1])


def _macs_of_others(layer: Any, shapes: Sequence[tuple[int, ...]]) -> int:
    if isinstance(layer, _L.MultiHeadAttention):
        queries, keys = shapes[0], shapes[min(1, len(shapes) - 1)]
        places = math.prod(queries[:-1])
        over_keys = math.prod(keys[:-1])
        dense = [(layer.query_dense, places), (layer.key_dense, over_keys), (layer.value_dense, over_keys)]
        dense.append((layer.output_dense, places))
        scores: int = layer.num_heads * places * math.prod(keys[1:-1]) * (layer.key_dim + layer.value_dim)
        return scores + sum(rows * math.prod(_sizes(one.kernel)) for one, rows in dense)
    if isinstance(layer, _L.EinsumDense):
        read, _ = layer.equation.replace(" ", "").split("->")
        if "." in read:
            return 0
        sizes = dict(zip(read.replace(",", ""), (*shapes[0], *_sizes(layer.kernel)), strict=True))
        return math.prod(sizes.values())
    if isinstance(layer, _L.Bidirectional):
        return sum(_macs_of_others(one, shapes) for one in (layer.forward_layer, layer.backward_layer))
    if isinstance(layer, (_L.LSTM, _L.GRU, _L.SimpleRNN)):
        return shapes[0][1] * sum(math.prod(_sizes(w)) for w in (layer.cell.kernel, layer.cell.recurrent_kernel))
    if type(layer).__name__ == "Matmul" and len(shapes) == _MATRICES:
        return math.prod(shapes[0]) * shapes[1][-1]
    return 0


def _window(operation: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Kernel and strides of a convolution or pooling, in the input's dimensions; empty for all others."""
    window = getattr(operation, "kernel_size", None) or getattr(operation, "pool_size", None)
    if not isinstance(window, (tuple, list)):
        return (), ()
    strides = getattr(operation, "strides", None) or (1,) * len(window)
    return tuple(map(int, window)), tuple(map(int, strides))


def _sizes(variable: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in variable.shape)
