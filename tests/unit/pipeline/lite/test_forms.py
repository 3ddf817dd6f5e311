"""Forms of operations: right to float64 in their middle and at the ends, and ARM's forms with the bits of x86's."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.errors import ModelError
from pipeline.lite.flatfile import FlatFile, Ref
from pipeline.lite.forms import Forms
from pipeline.lite.windows import Geometry, Pads

Array = npt.NDArray[Any]

ENDS = np.array([-np.inf, -1e4, -104, -88, -0.0, 0.0, 88, 104, 1e4, np.inf], np.float32)
MIDDLE = np.concatenate([np.linspace(-30, 30, 6001), np.linspace(-1e-3, 1e-3, 201)]).astype(np.float32)
ANYHOW = Geometry()
AROUND: Pads = ((1, 1), (1, 1))


def run(
    build: Callable[..., Ref], *inputs: Array, weights: Sequence[Array] = (), everywhere: bool = True, arm: bool = False
) -> Array:
    """What LiteRT makes of the operations that `build(forms, *inputs)` adds; `arm` writes what an ARM node would."""
    from ai_edge_litert.interpreter import Interpreter

    file = FlatFile()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("platform.machine", lambda: "aarch64" if arm else "x86_64")
        forms = Forms(file, lambda index: weights[index], everywhere=everywhere)
    given = [file.input(array.shape, array.dtype.name) for array in inputs]
    made, content = build(forms, *given), io.BytesIO()
    file.write(content, given, [made])
    interpreter = Interpreter(model_content=content.getvalue(), num_threads=1)
    interpreter.allocate_tensors()
    for details, array in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(details["index"], array)
    interpreter.invoke()
    found: Array = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert found.shape == made.shape
    return found


def unary(kind: str, x: Array, *, everywhere: bool = True) -> Array:
    return run(lambda forms, given: forms.unary(kind, given), x.reshape(1, -1), everywhere=everywhere).reshape(-1)


def drawn(*shape: int, seed: int = 0) -> Array:
    return (np.random.default_rng(seed).random(shape) * 2 - 1).astype(np.float32)


def silu(x: Array) -> Array:
    made: Array = x / (1 + np.exp(-x))
    return made


REFERENCES: dict[str, Callable[[Array], Array]] = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": silu,
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "tanh": np.tanh,
    "exp": np.exp,
    "hard_silu": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "hard_sigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "gelu": lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2,
}
ABSOLUTE = {"sigmoid": 2e-7, "silu": 2.5e-6, "elu": 1.5e-7, "softplus": 1e-6, "tanh": 3e-7, "gelu": 2e-6}


@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize("kind", REFERENCES)
def test_a_function_is_right_in_its_middle(kind: str, everywhere: bool) -> None:
    expected = REFERENCES[kind](MIDDLE.astype(np.float64))
    allowed = ABSOLUTE.get(kind, 1e-6) + 3e-6 * (np.abs(expected) if kind == "exp" else np.zeros(1))
    assert (np.abs(unary(kind, MIDDLE, everywhere=everywhere) - expected) <= allowed).all()


@pytest.mark.parametrize("kind", ["sigmoid", "elu", "softplus", "tanh", "exp", "hard_sigmoid"])
def test_a_function_has_its_limits_and_no_nan_at_the_ends(kind: str) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        expected = REFERENCES[kind](ENDS.astype(np.float64)).astype(np.float32)
    made = unary(kind, ENDS)
    assert not np.isnan(made).any()
    assert np.allclose(made, expected, rtol=2e-6, atol=2e-7)


def test_silu_has_its_limits_where_it_is_a_number() -> None:
    made = unary("silu", ENDS)
    assert np.isnan(made[0])  # 0 times infinity, as x times sigmoid has it
    assert np.isnan(unary("silu", ENDS, everywhere=False)[0])
    assert made[1:].tolist() == [0, 0, 0, 0, 0, 88, 104, 1e4, np.inf]


@pytest.mark.parametrize(("kind", "power"), [("sqrt", 0.5), ("rsqrt", -0.5)])
def test_roots_are_right_from_the_smallest_normal_number_to_the_largest(kind: str, power: float) -> None:
    x = np.geomspace(1.2e-38, 2.3e38, 5001).astype(np.float32)
    assert np.abs(unary(kind, x) / x.astype(np.float64) ** power - 1).max() <= 3e-7


def test_roots_of_zero_one_infinity_and_what_is_no_number() -> None:
    x = np.array([0, 1, np.inf, np.nan], np.float32)
    assert unary("sqrt", x)[:3].tolist() == [0, 1, np.inf]
    assert unary("rsqrt", x)[:3].tolist() == [np.inf, 1, 0]
    assert np.isnan([unary("sqrt", x)[3], unary("rsqrt", x)[3]]).all()


@pytest.mark.parametrize("kind", ["silu", "sigmoid"])
def test_half_of_the_input_gives_the_same_bits_as_halving_it_first(kind: str) -> None:
    half = run(lambda forms, x: getattr(forms, f"{kind}_of_half")(x), (MIDDLE * np.float32(0.5)).reshape(1, -1))
    assert np.array_equal(half.reshape(-1), unary(kind, MIDDLE))


@pytest.mark.parametrize("shape", [(1, 1000), (5, 1001), (1, 4, 49, 49), (1, 1)])
@pytest.mark.parametrize("arm", [False, True])
def test_softmax_is_right_and_sums_to_one(shape: tuple[int, ...], arm: bool) -> None:
    x = drawn(*shape) * np.float32(20)
    exact = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
    made = run(lambda forms, given: forms.softmax(given), x, arm=arm)
    assert np.abs(made - exact / exact.sum(-1, keepdims=True)).max() <= 5e-7
    assert np.abs(made.sum(-1, dtype=np.float64) - 1).max() <= 3e-6


@pytest.mark.parametrize("largest", [88.0, 104.0, 1e4, 3e38])
def test_softmax_of_large_numbers_overflows_nowhere(largest: float) -> None:
    x = np.array([[largest, 0, -0.0, -largest, -np.inf, largest]], np.float32)
    assert run(lambda forms, given: forms.softmax(given), x).tolist() == [[0.5, 0, 0, 0, 0, 0.5]]


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("spread", [1e-4, 1.0, 1e4])
def test_layer_norm_is_right(rows: int, spread: float) -> None:
    x = drawn(rows, 96) * np.float32(spread)
    scale, shift = drawn(96, seed=1), drawn(96, seed=2)
    exact = x.astype(np.float64)
    centred = exact - exact.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * scale + shift
    made = run(lambda f, given: f.layer_norm(given, 1e-6, f.array(0), f.array(1)), x, weights=(scale, shift))
    assert np.abs(made - expected).max() <= 3e-6


def test_layer_norm_of_equal_numbers_is_zero() -> None:
    made = run(lambda f, given: f.layer_norm(given, 1e-6, None, None), np.full((2, 64), 3, np.float32))
    assert np.abs(made).max() <= 1e-3  # of a mean that is not quite 3


def conv(geometry: Geometry = ANYHOW, activation: str = "none", scale: float = 1.0) -> Callable[..., Ref]:
    return lambda forms, x: forms.conv(x, (0, 1), geometry, activation, scale=scale)


def depthwise(geometry: Geometry = ANYHOW, activation: str = "none", scale: float = 1.0) -> Callable[..., Ref]:
    return lambda forms, x: forms.depthwise(x, (0, 1), geometry, activation, scale=scale)


def dense(forms: Forms, x: Ref) -> Ref:
    return forms.dense(x, (0, 1), "none")


CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], Geometry]] = {
    "three outputs": ((1, 9, 9, 8), (3, 3, 3, 8), Geometry(pads=AROUND)),
    "1x1 to 100": ((1, 5, 5, 16), (100, 1, 1, 16), Geometry()),
    "two groups of three": ((1, 6, 6, 8), (6, 3, 3, 4), Geometry(pads=AROUND)),
    "four groups of two": ((1, 6, 6, 8), (8, 3, 3, 2), Geometry(pads=AROUND)),
    "eight groups, two outputs each": ((1, 6, 6, 16), (16, 3, 3, 2), Geometry(pads=AROUND)),
    "one place, 1x1": ((1, 1, 1, 24), (16, 1, 1, 24), Geometry()),
    "one place, 1x1, 6 outputs": ((1, 1, 1, 24), (6, 1, 1, 24), Geometry()),
    "one place, 7x7": ((1, 7, 7, 12), (16, 7, 7, 12), Geometry()),
    "one place with a border": ((1, 2, 2, 12), (16, 3, 3, 12), Geometry((2, 2), pads=((0, 1), (0, 1)))),
    "one place, dilated": ((1, 5, 5, 12), (16, 3, 3, 12), Geometry(dilation=(2, 2))),
    "one place of a larger map": ((1, 6, 5, 12), (16, 3, 3, 12), Geometry((4, 4))),
    "one row of places": ((1, 3, 9, 12), (16, 3, 3, 12), Geometry()),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_what_arm_needs_of_a_convolution_changes_no_bit_here(case: str, scale: float) -> None:
    shape, kernel, geometry = CONVOLUTIONS[case]
    x, weights = drawn(*shape), (drawn(*kernel, seed=1), drawn(kernel[0], seed=2))
    plain = run(conv(geometry, "relu"), x, weights=weights, everywhere=False)
    assert np.array_equal(run(conv(geometry, "relu", scale), x, weights=weights), plain * np.float32(scale))
    assert np.array_equal(run(conv(geometry, "relu", scale), x, weights=weights, arm=True), plain * np.float32(scale))


@pytest.mark.parametrize("rows", [1, 2, 49])
@pytest.mark.parametrize("units", [1, 3, 8, 100, 1000])
def test_what_arm_needs_of_a_dense_layer_changes_no_bit_here(rows: int, units: int) -> None:
    x, weights = drawn(rows, 96), (drawn(units, 96, seed=1), drawn(units, seed=2))
    made = run(dense, x, weights=weights, arm=True)
    assert np.array_equal(made, run(dense, x, weights=weights))
    assert np.abs(made - (x.astype(np.float64) @ weights[0].T + weights[1])).max() <= 1e-5


def test_a_dense_layer_in_slices_is_the_sum_of_its_parts() -> None:
    x, parts, bias = drawn(1, 96), (drawn(7, 64, seed=1), drawn(7, 32, seed=2)), drawn(7, seed=3)
    exact = x.astype(np.float64) @ np.concatenate(parts, axis=1).T + bias
    for arm in (False, True):
        made = run(lambda f, given: f.dense(given, (0, 1, 2), "none"), x, weights=(*parts, bias), arm=arm)
        assert np.abs(made - exact).max() <= 1e-5


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("turned", [False, True])
def test_what_arm_needs_of_a_product_of_matrices_changes_no_bit_here(rows: int, turned: bool) -> None:
    x, y = drawn(2, 16, rows) if turned else drawn(2, rows, 16), drawn(2, 16, 5, seed=1)

    def build(forms: Forms, a: Ref, b: Ref) -> Ref:
        return forms.matmul(a, b, transpose_x=turned)

    made = run(build, x, y, arm=True)
    assert np.array_equal(made, run(build, x, y))
    assert np.abs(made - np.swapaxes(x, 1, 2) @ y if turned else made - x @ y).max() <= 1e-5


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(3, 3), (5, 5), (3, 5), (5, 3), (4, 4), (7, 7), (1, 9), (9, 9)])
def test_a_depthwise_convolution_in_pieces_is_right(size: tuple[int, int], stride: int) -> None:
    around = ((size[0] - 1) // 2, size[0] // 2), ((size[1] - 1) // 2, size[1] // 2)
    x, weights = drawn(1, 12, 11, 8), (drawn(1, *size, 8, seed=1), drawn(8, seed=2))
    made = run(depthwise(Geometry((stride, stride), pads=around)), x, weights=weights)
    padded = np.pad(x[0].astype(np.float64), (*around, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, size, (0, 1))[::stride, ::stride]
    assert np.abs(made[0] - (np.einsum("yxcij,ijc->yxc", windows, weights[0][0]) + weights[1])).max() <= 1e-5


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5, 7])
def test_a_tile_of_a_depthwise_convolution_has_the_bits_of_the_whole(size: int, stride: int) -> None:
    reach = size // 2
    x, weights = drawn(1, 16, 16, 8), (drawn(1, size, size, 8, seed=1), drawn(8, seed=2))
    around: Pads = ((reach, reach), (reach, reach))
    whole = run(depthwise(Geometry((stride, stride), pads=around), "relu6"), x, weights=weights)
    below: Pads = ((0, reach), (reach, reach))
    tile = run(depthwise(Geometry((stride, stride), pads=below), "relu6"), x[:, 8 - reach :], weights=weights)
    assert np.array_equal(tile, whole[:, 8 // stride :])


def test_means_and_sums_over_channels_are_right() -> None:
    x = drawn(1, 3, 3, 40)
    for axes in ((3,), (1, 2), (1, 2, 3)):
        for keep in (True, False):
            for kind, exact in (("mean", np.mean), ("sum", np.sum)):
                made = run(lambda f, given: f.reduce(kind, given, axes, keep), x)  # noqa: B023 called at once
                expected = exact(x.astype(np.float64), axis=axes, keepdims=keep)
                assert made.shape == expected.shape
                assert np.abs(made - expected).max() <= 2e-5


@pytest.mark.parametrize(
    ("build", "shape", "weights", "reason"),
    [
        (conv(), (1, 4, 4, 5), [(8, 3, 3, 4), (8,)], "does not fit a map of"),
        (conv(), (1, 4, 4, 4), [(8, 3, 3, 4), (7,)], "does not fit a map of"),
        (conv(), (1, 2, 2, 4), [(8, 3, 3, 4), (8,)], "does not fit into a map of"),
        (conv(), (4, 4), [(8, 3, 3, 4), (8,)], r"maps was given \(4, 4\)"),
        (depthwise(), (1, 4, 4, 5), [(1, 3, 3, 4), (4,)], r"does not fit \(1, 4, 4, 5\)"),
        (dense, (1, 9), [(4, 8), (4,)], r"does not fit \(1, 9\)"),
        (lambda f, x: f.reshape(x, (3, 3)), (1, 8), [], r"\(1, 8\) cannot become \(3, 3\)"),
        (lambda f, x: f.slice(x, (0, 4), (1, 5)), (1, 8), [], r"does not lie in \(1, 8\)"),
        (lambda f, x: f.binary("add", x, f.array(0)), (1, 8), [(7,)], "do not go together"),
        (lambda f, x: f.matmul(x, f.array(0)), (2, 1, 8), [(3, 8, 1)], "a product of"),
    ],
)
def test_shapes_that_do_not_go_together_are_named(
    build: Callable[..., Ref], shape: tuple[int, ...], weights: Sequence[tuple[int, ...]], reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        run(build, drawn(*shape), weights=[drawn(*one) for one in weights])
