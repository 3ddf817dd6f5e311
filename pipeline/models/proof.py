"""Prove on one frame that a prepared model answers as Keras does, before anything is run with it.

What was proved once is remembered in the cache folder, by the model's digest. Knows no engine: both sides are
TensorFlow's own kernels.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline import folders
from pipeline.errors import ModelError
from pipeline.prepare.flatten import FlatModel, Spec
from pipeline.prepare.model import PreparedModel
from pipeline.prepare.unsupported import error_text
from pipeline.tensorflow_runtime import keras, tf

Array = npt.NDArray[Any]

TOLERANCE = {"float16": 2e-2, "float32": 1e-3, "float64": 1e-3}
"""Of a difference to the largest element. Folding a batch norm moves the last bits, and trained weights that cancel
each other make some hundred times as much of it; a mask that is lost, or inputs that change places, make far more."""
_OF_INTEGERS = 1e-3
"""Of elements that may differ: a class is another where two scores are equal but for rounding."""
_SEED = 13


def prove(flat: FlatModel, model: PreparedModel, numbers: Mapping[int, int]) -> None:
    """Compare a prepared model with the Keras model that it was made of; `numbers` are its ids of the flat ones.

    Uses the trace of `flat` up. Raises ModelError when they differ, with the first layer that does.
    """
    trace, flat.trace = flat.trace, None
    if trace is None or (mark := _mark(model)).exists():
        return
    frame = dict(zip(model.graph.inputs, frame_for(flat), strict=True))
    before = {numbers[tensor]: tensor for tensor in numbers}
    try:
        expected = _arrays(trace.run(list(frame.values()), [before[t] for t in model.graph.outputs]))
    except Exception as error:
        raise ModelError(f"model {flat.name!r}: Keras itself cannot run it: {error_text(error)}") from error
    made = _run(model, frame, model.graph.outputs)
    if all(agree(a, b) for a, b in zip(made, expected, strict=True)):
        _remember(mark)
        return
    shared = [t.id for t in model.graph.tensors]
    expected = _arrays(trace.run(list(frame.values()), [before[t] for t in shared]))
    raise ModelError(_difference(model, _run(model, frame, shared), expected))


def prove_whole(original: Any, flat: FlatModel, model: PreparedModel) -> None:
    """Compare the outputs of a prepared model with those of the Keras model that it was made of, called as it is.

    For one without a trace, whose layers were believed what they declare. Raises ModelError when they differ.
    """
    if (mark := _mark(model)).exists():
        return
    frame = dict(zip(model.graph.inputs, frame_for(flat), strict=True))
    given = [tf.constant(array) for array in frame.values()]
    expected = _arrays(tf.nest.flatten(original(given if len(given) > 1 else given[0], training=False)))
    made = _run(model, frame, model.graph.outputs)
    for tensor, a, b in zip(model.graph.outputs, made, expected, strict=True):
        if not agree(a, b):
            told = f"by {relative_difference(a, b):.1e} of the largest value" if a.shape == b.shape else f"{a.shape}"
            raise ModelError(
                f"model {model.graph.name!r} would answer otherwise than Keras does, {told} in "
                f"{model.graph.tensors[tensor].name!r}; it is refused, since an answer would be wrong"
            )
    _remember(mark)


def _difference(model: PreparedModel, made: Sequence[Array], expected: Sequence[Array]) -> str:
    differing = [i for i, (a, b) in enumerate(zip(made, expected, strict=True)) if not agree(a, b)]
    graph = model.graph
    block = min((graph.blocks[graph.producer[i]] for i in differing), key=lambda block: block.index, default=None)
    if block is None:
        return (
            f"model {graph.name!r} answers otherwise than Keras does, and each layer alone does not; please report it"
        )
    first = next(i for i in block.outputs if i in differing)
    a, b = made[first], expected[first]
    told = f"by {relative_difference(a, b):.1e} of the largest value" if a.shape == b.shape else f"{a.shape}, {b.shape}"
    return (
        f"model {graph.name!r} would answer otherwise than Keras does, first in layer {block.name!r} ({block.kind}): "
        f"{told}; it is refused, since an answer would be wrong"
    )


def agree(made: Array, expected: Array) -> bool:
    """True when two outputs are equal except for rounding, by their dtype's TOLERANCE."""
    if made.shape != expected.shape or made.dtype != expected.dtype:
        return False
    if expected.dtype.kind != "f":
        return bool(np.mean(made != expected) <= _OF_INTEGERS) if expected.size else True
    return relative_difference(made, expected) <= TOLERANCE.get(str(expected.dtype), TOLERANCE["float16"])


def relative_difference(made: Array, expected: Array) -> float:
    """The largest difference over the largest finite element; infinite where only one is a number."""
    a, b = made.astype(np.float64), expected.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return 0.0
    apart = np.abs(a - b)[~same]
    largest = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
    difference = float(apart.max()) if np.isfinite(apart).all() else float("inf")
    return difference / largest if largest > 0 else difference


def frame_for(flat: FlatModel) -> list[Array]:
    """Each input at random, in ranges that nearly every model takes; the last third of a series is padding.

    Integers are 0 and 1: the indices that every table has. Padding is what the model's Masking layers look for, else 0.
    """
    rng = np.random.default_rng(_SEED)
    fills = [c.operation.mask_value for c in flat.calls if isinstance(c.operation, keras.layers.Masking)]
    return [_values(rng, flat.specs[tensor], float(np.asarray((fills or [0])[0]))) for tensor in flat.inputs]


def _values(rng: np.random.Generator, spec: Spec, fill: float) -> Array:
    kind = np.dtype(spec.dtype)
    if kind.kind == "f":
        made = rng.random(spec.shape).astype(kind)
    else:
        made = rng.integers(0, 2, spec.shape).astype(kind)
        fill = 0
    if len(spec.shape) > 1 and (length := spec.shape[1]) > 1 and len(spec.shape) + (kind.kind != "f") > 2:  # noqa: PLR2004
        made[:, length - length // 3 :] = fill
    return made


def _run(model: PreparedModel, frame: Mapping[int, Array], outputs: Sequence[int]) -> list[Array]:
    """The prepared model's values of these tensors, call by call as its blocks have them."""

    def run(*arrays: Any) -> list[Any]:
        tensors = dict(zip(frame, arrays, strict=True))
        for calls in model.calls:
            for call in calls:
                tensors.update(zip(call.outputs, call.perform(tensors), strict=True))
        return [tensors[t] for t in outputs]

    return _arrays(tf.function(run, autograph=False)(*map(tf.constant, frame.values())))


def _arrays(tensors: Sequence[Any]) -> list[Array]:
    return [np.asarray(tensor) for tensor in tensors]


def _mark(model: PreparedModel) -> Path:
    """The file that says that this model was proved with this Keras, by this code."""
    code = hashlib.sha256(f"{keras.__version__} {tf.__version__}".encode())
    for file in sorted(Path(__file__).resolve().parents[1].joinpath("prepare").rglob("*.py")):
        code.update(file.read_bytes())
    return folders.cache() / "proved" / f"{model.graph.digest}-{code.hexdigest()[:16]}"


def _remember(mark: Path) -> None:
    with contextlib.suppress(OSError):  # a home that is read-only: it is proved again next time
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch(mode=0o600)
