"""Keras models as people build them, of kinds that were answered wrongly or refused without need."""

# ruff: noqa: PLW0108  # a layer is made when its model is, not when this module is read

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.tensorflow_runtime import keras

L, ops = keras.layers, keras.ops
register = keras.saving.register_keras_serializable(package="wild")


@register
class Doubled(L.Layer):  # type: ignore[misc, name-defined]
    """Declares another shape than it makes."""

    def call(self, x: Any) -> Any:
        return ops.concatenate([x, x], axis=-1)

    def compute_output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape


@register
class Pooled(L.Layer):  # type: ignore[misc, name-defined]
    """Reads its input's mask by itself, through a layer that it holds."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pool = L.GlobalAveragePooling1D()

    def call(self, x: Any) -> Any:
        return self.pool(x)


@register
class Odd(L.Layer):  # type: ignore[misc, name-defined]
    """Makes a mask of its own from the one that it is given, and from its input."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x: Any) -> Any:
        return x * 1.5

    def compute_mask(self, x: Any, mask: Any = None) -> Any:
        own = ops.any(x > 0.2, axis=-1)
        return own if mask is None else ops.logical_and(own, mask)


@register
class Sliced(L.Layer):  # type: ignore[misc, name-defined]
    """Takes and gives a dict."""

    def call(self, parts: dict[str, Any]) -> dict[str, Any]:
        return {"b": parts["x"] + 1.0, "a": parts["y"] * 2.0}


@register
class InnerModel(keras.Model):  # type: ignore[misc]
    """A subclass with its own call, within a functional model."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense = L.Dense(4)

    def build(self, shape: Any) -> None:
        self.dense.build(shape)

    def call(self, x: Any) -> Any:
        return self.dense(x) + 1.0


@register  # type: ignore[untyped-decorator]  # keras has no annotations
def tripled(x: Any) -> Any:
    """Of a Lambda."""
    return 3.0 * x


def _words(length: int = 12) -> tuple[Any, Any]:
    words = keras.Input((length,), dtype="int32", name="words")
    return words, L.Embedding(9, 8, mask_zero=True)(words)


def _masked(make: Callable[[Any], Any]) -> Callable[[], Any]:
    def build() -> Any:
        words, x = _words()
        return keras.Model(words, make(x))

    return build


def _mean(x: Any) -> Any:
    """Reads the mask as an LSTM does, whose tracing takes a second."""
    return L.GlobalAveragePooling1D()(x)


def _series(make: Callable[[Any], Any]) -> Callable[[], Any]:
    def build() -> Any:
        series = keras.Input((9, 4))
        return keras.Model(series, make(L.Masking(0.0)(series)))

    return build


def _nested(inner_inputs: Any, called: Any, outer: Any, outputs: Callable[..., Any]) -> Any:
    inner = keras.Model(inner_inputs, outputs(inner_inputs), name="inner")
    return keras.Model(outer, inner(called))


def _by_name() -> Any:
    z, a, p, q = (keras.Input((4,), name=name) for name in "zapq")
    return _nested([z, a], {"z": p, "a": q}, [p, q], lambda given: 3.0 * given[0] - given[1])


def _dict_model() -> Any:
    z, a = keras.Input((4,), name="z"), keras.Input((4,), name="a")
    return keras.Model({"z": z, "a": a}, {"second": z * 2.0 - a, "first": L.Dense(2)(a)})


def _dict_model_by_dict() -> Any:
    z, a, p, q = (keras.Input((4,), name=name) for name in "zapq")
    return _nested({"a": a, "z": z}, {"z": p, "a": q}, [p, q], lambda given: 3.0 * given["z"] - given["a"])


def _dict_between() -> Any:
    p, q = keras.Input((4,)), keras.Input((4,))
    made = Sliced()({"x": p, "y": q})
    return keras.Model([p, q], L.Dense(2)(made["a"] - 3.0 * made["b"]))


def _list_in_list() -> Any:
    p, q, r = (keras.Input((4,)) for _ in range(3))
    a, b = keras.Input((4,)), keras.Input((4,))
    inner = keras.Model([a, b], [a - b, a + 2.0 * b])
    first = inner([p, q])
    return keras.Model([p, [q, r]], [inner([first[1], r]), first[0]])


def _shared_nested() -> Any:
    words, others = keras.Input((12,), dtype="int32"), keras.Input((12,), dtype="int32")
    inside = keras.Input((12,), dtype="int32")
    encoder = keras.Model(inside, L.LSTM(6)(L.Embedding(9, 8, mask_zero=True)(inside)), name="encoder")
    return keras.Model([words, others], encoder(words) - 2.0 * encoder(others))


def _mask_into_nested() -> Any:
    words, x = _words()
    inside = keras.Input((12, 8))
    inner = keras.Model(inside, L.GRU(5)(L.Dense(8)(inside)))
    return keras.Model(words, inner(x))


def _mask_out_of_nested() -> Any:
    words = keras.Input((12,), dtype="int32")
    inner = keras.Sequential([keras.Input((12,), dtype="int32"), L.Embedding(9, 8, mask_zero=True)])
    return keras.Model(words, L.LSTM(5)(inner(words)))


def _mask_through_nested_pool() -> Any:
    words, x = _words()
    inside = keras.Input((12, 8))
    inner = keras.Model(inside, L.Reshape((12, 8))(L.Dense(8)(inside)))
    return keras.Model(words, L.LSTM(5)(inner(x)))


def _explicit_nested_mask() -> Any:
    series, other = keras.Input((12, 8)), keras.Input((12,), dtype="int32")
    inside = keras.Input((12, 8))
    inner = keras.Model(inside, L.LSTM(5)(inside))
    return keras.Model([series, other], inner(series, mask=ops.not_equal(other, 0)))


def _explicit_mask() -> Any:
    words = keras.Input((12,), dtype="int32")
    mask = ops.not_equal(words, 0)
    x = L.LSTM(8, return_sequences=True)(L.Embedding(9, 16)(words), mask=mask)
    x = L.BatchNormalization()(x, mask=mask)
    return keras.Model(words, L.Dense(3)(L.GlobalAveragePooling1D()(x, mask=mask)))


def _softmax_mask() -> Any:
    scores = keras.Input((6, 6))
    return keras.Model(scores, L.Softmax()(scores, mask=scores > 0.3))


def _transformer() -> Any:
    words, x = _words()
    y = L.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)
    x = L.LayerNormalization()(L.Add()([x, y]))
    y = L.Dense(8)(L.Dense(16, activation="gelu")(x))
    x = L.LayerNormalization()(x + y)
    return keras.Model(words, L.Dense(3)(L.GlobalAveragePooling1D()(x)))


def _cross_attention() -> Any:
    words, x = _words()
    others = keras.Input((7,), dtype="int32", name="others")
    y = L.Embedding(9, 8, mask_zero=True)(others)
    return keras.Model([words, others], [L.MultiHeadAttention(2, 4)(x, y), L.Attention()([x, y])])


def _attention_then_lstm() -> Any:
    """MultiHeadAttention takes the mask off what it is given: who reads it afterwards sees none."""
    words, x = _words()
    y = L.MultiHeadAttention(2, 4)(x, x)
    return keras.Model(words, [L.LSTM(4)(x), L.LSTM(4)(y), L.LSTM(4)(L.Add()([x, y]))])


def _lazy(batch: int = 4) -> Any:
    import numpy as np

    model = keras.Sequential([L.Conv2D(4, 3), L.BatchNormalization(), L.ReLU(), L.Flatten(), L.Dense(2)])
    model.build((batch, 8, 8, 3))
    assert model.predict(np.zeros((1, 8, 8, 3)), verbose=0).shape == (1, 2)
    return model


def _any_size() -> Any:
    image = keras.Input((None, None, 3))
    x = L.BatchNormalization()(L.Conv2D(8, 3, padding="same")(image))
    x = L.UpSampling2D()(L.MaxPooling2D()(L.ReLU()(x)))
    return keras.Model(image, L.Conv2D(2, 1)(x))


def _half() -> Any:
    image = keras.Input((8, 8, 3))
    x = L.BatchNormalization(dtype="mixed_float16")(L.Conv2D(4, 3, dtype="mixed_float16")(image))
    x = L.Flatten(dtype="mixed_float16")(L.ReLU(dtype="mixed_float16")(x))
    return keras.Model(image, L.Dense(3, activation="softmax", dtype="float32")(x))


def _squeezed(inner_shape: tuple[int, ...], outer_shape: tuple[int, ...]) -> Callable[[], Any]:
    def build() -> Any:
        inside, outside = keras.Input(inner_shape), keras.Input(outer_shape)
        return keras.Model(outside, keras.Model(inside, ops.sum(inside, axis=1) * 2.0)(outside))

    return build


def _of(shape: tuple[int, ...], *layers: Any, dtype: str = "float32") -> Callable[[], Any]:
    return lambda: keras.Sequential([keras.Input(shape, dtype=dtype), *(make() for make in layers)])


RUN: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    **{
        f"masked {name}": (_masked(make), ())
        for name, make in {
            "lstm": lambda x: L.LSTM(5)(x),
            "gru": lambda x: L.GRU(5)(x),
            "simple rnn": lambda x: L.SimpleRNN(5)(x),
            "reversed lstm": lambda x: L.LSTM(5, go_backwards=True)(x),
            "bidirectional": lambda x: L.Bidirectional(L.LSTM(5))(x),
            "rnn of cells": lambda x: L.RNN([L.LSTMCell(4), L.GRUCell(3)])(x),
            "sequences": lambda x: L.LSTM(4)(L.LSTM(5, return_sequences=True)(x)),
            "states": lambda x: L.LSTM(5, return_state=True)(x),
            "time distributed": lambda x: _mean(L.TimeDistributed(L.Dense(3))(x)),
            "mean": lambda x: L.GlobalAveragePooling1D()(x),
            "dropout and dense": lambda x: _mean(L.Dropout(0.5)(L.Dense(4)(x))),
            "concatenate": lambda x: _mean(L.Concatenate()([x, L.Dense(3)(x)])),
            "concatenate with none": lambda x: _mean(L.Concatenate()([x, L.Reshape((12, 8))(x)])),
            "add": lambda x: _mean(L.Add()([x, L.Dense(8)(x)])),
            "attention": lambda x: L.Attention()([x, x]),
            "additive attention": lambda x: L.AdditiveAttention()([x, x]),
            "grouped attention": lambda x: L.GroupQueryAttention(4, 2, 1)(x, x),
            "head attention": lambda x: L.Flatten()(L.MultiHeadAttention(2, 8)(x, x)),
            "convolution": lambda x: L.GlobalMaxPooling1D()(L.Conv1D(4, 3)(x)),
            "custom mask": lambda x: _mean(Odd()(x)),
            "custom pooling": lambda x: Pooled()(x),
            "operation": lambda x: _mean(x * 2.0),
            "permuted": lambda x: L.LSTM(4)(L.Permute((2, 1))(x)),
            "repeated": lambda x: L.LSTM(4)(L.RepeatVector(3)(L.LSTM(4)(x))),
            "activation": lambda x: _mean(L.Activation("tanh")(x)),
            "batch norm": lambda x: _mean(L.BatchNormalization()(x)),
            "layer norm": lambda x: _mean(L.LayerNormalization()(x)),
            "two readers": lambda x: [L.LSTM(4)(x), L.GlobalAveragePooling1D()(x), L.Dense(2)(x)],
        }.items()
    },
    **{
        f"series {name}": (_series(make), ())
        for name, make in {
            "lstm": lambda x: L.LSTM(5)(x),
            "bidirectional": lambda x: L.Bidirectional(L.GRU(3, return_sequences=True))(x),
            "conv lstm": lambda x: L.ConvLSTM1D(2, 2)(L.Reshape((9, 2, 2))(x)),
            "attention": lambda x: L.MultiHeadAttention(2, 3)(x, x, x),
            "odd": lambda x: L.GRU(4)(Odd()(x)),
        }.items()
    },
    "nested by name": (_by_name, ()),
    "dict of inputs and outputs": (_dict_model, ()),
    "dict nested by dict": (_dict_model_by_dict, ()),
    "dict between layers": (_dict_between, ()),
    "lists in lists": (_list_in_list, ()),
    "shared nested": (_shared_nested, ()),
    "mask into a nested model": (_mask_into_nested, ()),
    "mask out of a nested model": (_mask_out_of_nested, ()),
    "mask past a nested reshape": (_mask_through_nested_pool, ()),
    "explicit mask of a nested model": (_explicit_nested_mask, ()),
    "explicit mask": (_explicit_mask, ()),
    "softmax with a mask": (_softmax_mask, ()),
    "transformer": (_transformer, ()),
    "cross attention": (_cross_attention, ()),
    "attention, then who reads its input": (_attention_then_lstm, ()),
    "lazy sequential": (_lazy, ()),
    "any size": (_any_size, (12, 16)),
    "any length": (lambda: keras.Sequential([keras.Input((None, 3)), L.Conv1D(4, 3), L.LSTM(3)]), (11,)),
    "mixed precision": (_half, ()),
    "rank taken off": (_squeezed((4,), (4, 1)), ()),
    "rank put on": (_squeezed((4, 1), (4,)), ()),
    "declares another shape": (_of((6,), Doubled, L.ReLU), ()),
    "subclassed model within": (_of((6,), InnerModel, lambda: L.Dense(3)), ()),
    "registered lambda": (_of((6,), lambda: L.Lambda(tripled), lambda: L.Dense(3)), ()),
    "integer lookup": (
        _of((1,), lambda: L.IntegerLookup(vocabulary=[3, 5], output_mode="one_hot"), lambda: L.Dense(2), dtype="int64"),
        (),
    ),
    "hashing": (_of((3,), lambda: L.Hashing(7), lambda: L.Embedding(7, 3), dtype="int32"), ()),
    "category encoding": (
        _of((3,), lambda: L.CategoryEncoding(4, output_mode="multi_hot"), lambda: L.Dense(2), dtype="int32"),
        (),
    ),
    "sparse encoding": (
        _of((3,), lambda: L.CategoryEncoding(4, "multi_hot", sparse=True), lambda: L.Dense(2), dtype="int32"),
        (),
    ),
    "discretization": (_of((3,), lambda: L.Discretization([0.2, 0.5]), lambda: L.Embedding(3, 2)), ()),
    "random crop": (_of((20, 20, 3), lambda: L.RandomCrop(16, 16), lambda: L.Conv2D(4, 3)), ()),
    "augmentation": (
        _of((20, 20, 3), lambda: L.RandomFlip(), lambda: L.RandomRotation(0.2), lambda: L.RandomZoom(0.1),
            lambda: L.RandomContrast(0.2), lambda: L.Conv2D(4, 3)),
        (),
    ),
    "resizing and cropping": (
        _of((20, 20, 3), lambda: L.Resizing(16, 16), lambda: L.CenterCrop(8, 8), lambda: L.Conv2D(2, 3)), ()
    ),
    "normalization": (_of((4,), lambda: L.Normalization(mean=[0.1] * 4, variance=[0.5] * 4), lambda: L.Dense(2)), ()),
    "channels first where there is a kernel": (
        _of((3, 8, 8), lambda: L.ZeroPadding2D(1, data_format="channels_first"),
            lambda: L.GlobalAveragePooling2D(data_format="channels_first")),
        (),
    ),
}  # fmt: skip
"""Models that Keras runs, each with the input size that it leaves open."""
