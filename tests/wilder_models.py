"""More Keras models as people build them: functional subclasses, masks, states, heads, several ranks and types."""

# ruff: noqa: PLW0108  # a layer is made when its model is, not when this module is read

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.tensorflow_runtime import keras
from tests.wild_models import register

L, ops = keras.layers, keras.ops


@register
class Residual(L.Layer):  # type: ignore[misc, name-defined]
    """Holds layers, adds its input, and behaves otherwise in training."""

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.norm, self.dense, self.drop = L.LayerNormalization(), L.Dense(width, "gelu"), L.Dropout(0.5)

    def call(self, x: Any, training: bool = False) -> Any:
        return x + self.drop(self.dense(self.norm(x)), training=training)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}


@register
class Scaled(L.Layer):  # type: ignore[misc, name-defined]
    """Takes a second tensor by keyword, and a plain number."""

    def call(self, x: Any, factor: Any = None, shift: float = 0.0) -> Any:
        return (x if factor is None else x * factor) + shift


@register
class Split(L.Layer):  # type: ignore[misc, name-defined]
    """Gives a tuple."""

    def call(self, x: Any) -> tuple[Any, Any]:
        return x[..., :2], x[..., 2:]


@register
class Gate(L.Layer):  # type: ignore[misc, name-defined]
    """A weight of its own that is not trained, and one that is."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")
        self.offset = self.add_weight(shape=(), initializer="zeros", trainable=False, name="offset")

    def call(self, x: Any) -> Any:
        return ops.sigmoid(x * self.scale + self.offset) * x


@register
class Tokens(L.Layer):  # type: ignore[misc, name-defined]
    """A class token in front, positions added, as vision transformers have it."""

    def build(self, shape: Any) -> None:
        self.token = self.add_weight(shape=(1, 1, shape[-1]), name="token")
        self.position = self.add_weight(shape=(1, shape[1] + 1, shape[-1]), name="position")

    def call(self, x: Any) -> Any:
        first = ops.broadcast_to(self.token, (ops.shape(x)[0], 1, x.shape[-1]))
        return ops.concatenate([first, x], axis=1) + self.position


@register
class Functional(keras.Model):  # type: ignore[misc]
    """A subclass that is functional all the same."""

    def __init__(self, **kwargs: Any) -> None:
        image = keras.Input((8, 8, 3))
        super().__init__(image, L.GlobalMaxPooling2D()(L.Conv2D(4, 3)(image)))

    def get_config(self) -> dict[str, Any]:
        return {}


def _image(*layers: Callable[[], Any], shape: tuple[int, ...] = (12, 12, 3)) -> Callable[[], Any]:
    return lambda: keras.Sequential([keras.Input(shape), *(make() for make in layers)])


def _vit() -> Any:
    image = keras.Input((16, 16, 3))
    x = L.Reshape((16, 8))(L.Conv2D(8, 4, 4)(image))
    x = Tokens()(x)
    for _ in range(2):
        y = L.LayerNormalization()(x)
        x = L.Add()([x, L.MultiHeadAttention(2, 4)(y, y)])
        x = Residual(8)(x)
    return keras.Model(image, L.Dense(3)(x[:, 0]))


def _masked_bidirectional() -> Any:
    series = keras.Input((9, 3))
    x = L.Masking()(series)
    x = L.Bidirectional(L.GRU(4, return_sequences=True), merge_mode="ave")(x)
    return keras.Model(series, L.Bidirectional(L.LSTM(3), backward_layer=L.LSTM(3, go_backwards=True))(x))


def _states() -> Any:
    series, other = keras.Input((9, 3)), keras.Input((7, 3))
    _, h, c = L.LSTM(4, return_state=True)(series)
    x = L.LSTM(4, return_sequences=True)(other, initial_state=[h, c])
    return keras.Model([series, other], L.TimeDistributed(L.Dense(2))(x))


def _seq2seq_masked() -> Any:
    source, target = keras.Input((9,), dtype="int32"), keras.Input((7,), dtype="int32")
    words = L.Embedding(9, 6, mask_zero=True)
    seen, state = L.GRU(6, return_sequences=True, return_state=True)(words(source))
    x = L.GRU(6, return_sequences=True)(words(target), initial_state=state)
    x = L.Concatenate()([x, L.Attention()([x, seen])])
    return keras.Model({"source": source, "target": target}, L.TimeDistributed(L.Dense(4, "softmax"))(x))


def _by_keyword() -> Any:
    one, two = keras.Input((4,)), keras.Input((4,))
    return keras.Model([one, two], Scaled()(one, factor=two, shift=0.5))


def _keyword_of_nested() -> Any:
    inside = keras.Input((4,)), keras.Input((4,))
    inner = keras.Model(list(inside), L.Add()(list(inside)))
    one = keras.Input((4,))
    return keras.Model(one, inner([L.Dense(4)(one), one], training=False))


def _siamese() -> Any:
    tower = keras.Sequential([keras.Input((8, 8, 1)), L.Conv2D(4, 3, activation="relu"), L.Flatten(), L.Dense(5)])
    left, right = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    return keras.Model([left, right], [L.Dot(1, normalize=True)([tower(left), tower(right)]), tower(left)])


def _dict_outputs() -> Any:
    one = keras.Input((6,))
    x = L.Dense(4)(one)
    return keras.Model({"z": one}, {"b": L.Softmax()(x), "a": L.ReLU()(x), "c": x})


def _same_output_twice() -> Any:
    one = keras.Input((6,))
    x = L.Dense(4)(one)
    return keras.Model(one, [x, L.ReLU()(x), x])


def _input_is_output() -> Any:
    one, two = keras.Input((6,)), keras.Input((6,))
    return keras.Model([one, two], [L.Add()([one, two]), L.Identity()(one)])


def _int_and_float() -> Any:
    which, how = keras.Input((1,), dtype="int64"), keras.Input((3,))
    kind = L.Flatten()(L.Embedding(5, 4)(which))
    return keras.Model([which, how], L.Dense(2)(L.Concatenate()([kind, L.Normalization(mean=0.3, variance=0.2)(how)])))


def _ops_between() -> Any:
    image = keras.Input((8, 8, 4))
    a, b = ops.split(image, 2, axis=-1)
    x = ops.where(a > b, a, ops.square(b)) + ops.mean(image, axis=(1, 2), keepdims=True)[..., :2]
    x = ops.transpose(x, (0, 2, 1, 3))
    return keras.Model(image, ops.max(ops.reshape(x, (-1, 64, 2)), axis=1))


def _einsum() -> Any:
    one, two = keras.Input((5, 4)), keras.Input((4, 3))
    return keras.Model(
        [one, two], L.EinsumDense("abc,cd->abd", output_shape=(5, 6))(ops.einsum("bij,bjk->bik", one, two))
    )


def _unet() -> Any:
    image = keras.Input((16, 16, 1))
    down = L.Conv2D(4, 3, padding="same", activation="relu")(image)
    x = L.Conv2D(8, 3, padding="same", activation="relu")(L.MaxPooling2D()(down))
    x = L.Conv2DTranspose(4, 2, 2, padding="same")(x)
    x = L.Concatenate()([down, x, L.UpSampling2D(interpolation="bilinear")(L.AveragePooling2D(2)(down))])
    return keras.Model(image, L.Conv2D(1, 1, activation="sigmoid", dtype="float32")(x))


def _squeeze_excite() -> Any:
    image = keras.Input((12, 12, 8))
    x = L.DepthwiseConv2D(3, padding="same")(image)
    s = L.Dense(8, "hard_sigmoid")(L.Dense(2, "silu")(L.GlobalAveragePooling2D(keepdims=True)(x)))
    return keras.Model(image, L.Multiply()([x, s]))


def _tuple_layer() -> Any:
    one = keras.Input((6,))
    a, b = Split()(one)
    return keras.Model(one, L.Concatenate()([L.Dense(3)(b), a]))


def _recurrent_images() -> Any:
    film = keras.Input((5, 8, 8, 2))
    x = L.TimeDistributed(L.Conv2D(3, 3))(film)
    return keras.Model(film, L.ConvLSTM2D(2, 3)(x))


def _stacked_cells() -> Any:
    series = keras.Input((6, 3))
    return keras.Model(series, L.RNN(L.StackedRNNCells([L.LSTMCell(4), L.GRUCell(3)]))(series))


def _mask_by_hand() -> Any:
    series, mask = keras.Input((6, 3)), keras.Input((6,), dtype="bool")
    return keras.Model(
        [series, mask], L.GlobalAveragePooling1D()(L.LSTM(4, return_sequences=True)(series, mask=mask), mask=mask)
    )


def _causal() -> Any:
    words = keras.Input((8,), dtype="int32")
    x = L.Embedding(9, 6, mask_zero=True)(words)
    x = L.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True)
    return keras.Model(words, L.GlobalMaxPooling1D()(x))


def _deep_shared_norm() -> Any:
    image, norm, conv = keras.Input((8, 8, 4)), L.BatchNormalization(), L.Conv2D(4, 3, padding="same")
    return keras.Model(image, [norm(conv(image)), conv(norm(image))])


def _half_lstm() -> Any:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        series = keras.Input((6, 3))
        return keras.Model(series, L.Dense(2, dtype="float32")(L.Conv1D(4, 3, padding="causal")(series)))
    finally:
        keras.config.set_dtype_policy("float32")


RUN: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "vision transformer with a class token": (_vit, ()),
    "masked bidirectional, averaged, own backward layer": (_masked_bidirectional, ()),
    "states handed on": (_states, ()),
    "sequence to sequence, masked": (_seq2seq_masked, ()),
    "a tensor by keyword": (_by_keyword, ()),
    "a nested model called with training": (_keyword_of_nested, ()),
    "siamese, tower output twice": (_siamese, ()),
    "dict in, dict out, out of order": (_dict_outputs, ()),
    "one output twice": (_same_output_twice, ()),
    "an input handed out": (_input_is_output, ()),
    "int64 and float": (_int_and_float, ()),
    "operations between": (_ops_between, ()),
    "einsum of two inputs": (_einsum, ()),
    "u-net, bilinear": (_unet, ()),
    "squeeze and excite": (_squeeze_excite, ()),
    "a layer that gives a tuple": (_tuple_layer, ()),
    "film through ConvLSTM": (_recurrent_images, ()),
    "stacked cells": (_stacked_cells, ()),
    "a mask as an input": (_mask_by_hand, ()),
    "causal attention of masked words": (_causal, ()),
    "shared convolution and norm, both orders": (_deep_shared_norm, ()),
    "mixed precision, causal": (_half_lstm, ()),
    "subclass that is functional": (lambda: keras.Sequential([keras.Input((8, 8, 3)), Functional(), L.Dense(2)]), ()),
    "own weights, trained and not": (_image(Gate, lambda: L.Flatten(), lambda: L.Dense(2)), ()),
    "group, unit and spectral norms": (
        _image(lambda: L.SpectralNormalization(L.Conv2D(8, 3)), lambda: L.GroupNormalization(4),
               lambda: L.UnitNormalization(), lambda: L.GlobalAveragePooling2D()),
        (),
    ),
    "separable, dilated, grouped": (
        _image(lambda: L.SeparableConv2D(8, 3, dilation_rate=2), lambda: L.Conv2D(8, 3, groups=4),
               lambda: L.PReLU(shared_axes=[1, 2]), lambda: L.LeakyReLU(0.1), lambda: L.ELU(), lambda: L.Flatten()),
        (),
    ),
    "three dimensions": (
        _image(lambda: L.Conv3D(4, 2), lambda: L.MaxPooling3D(), lambda: L.GlobalAveragePooling3D(),
               shape=(6, 8, 8, 2)),
        (),
    ),
    "one dimension, permuted and repeated": (
        _image(lambda: L.Permute((2, 1)), lambda: L.Conv1DTranspose(4, 3, 2), lambda: L.Cropping1D(1),
               lambda: L.GlobalMaxPooling1D(), lambda: L.RepeatVector(3), lambda: L.SimpleRNN(3), shape=(6, 5)),
        (),
    ),
    "noise and dropout of all kinds": (
        _image(lambda: L.GaussianNoise(0.5), lambda: L.SpatialDropout2D(0.5), lambda: L.AlphaDropout(0.3),
               lambda: L.ActivityRegularization(0.1), lambda: L.Conv2D(2, 3, activation="softmax")),
        (),
    ),
    "any size, resized inside": (
        lambda: keras.Sequential([keras.Input((None, None, 3)), L.Resizing(8, 8), L.Rescaling(1 / 127.5, -1.0),
                                  L.Conv2D(4, 3), L.GlobalMaxPooling2D()]),
        (14, 10),
    ),
}  # fmt: skip
"""Models that Keras runs, each with the input size that it leaves open."""
