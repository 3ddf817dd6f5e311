"""Models from the wild: prepared, they answer as Keras does; those that cannot be are refused in words."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.engines import create, unsplit
from pipeline.errors import ModelError, NotFunctional, TrisectError
from pipeline.models.load import load
from pipeline.models.proof import relative_difference
from pipeline.models.source import ModelSource
from pipeline.prepare.unsupported import check_model
from pipeline.tensorflow_runtime import keras, tf
from pipeline.verify.cuts import splits
from tests import wilder_models
from tests.effort import TIMES, in_longer_runs
from tests.networks import trained
from tests.wild_models import RUN, Doubled

ENGINE = create("tensorflow", 1)
CASES = sorted((Path(__file__).parents[3] / "cases" / "models").glob("*.py"))
REFUSED = {"channels_first": "conv2d.*channels_first.*channels_last", "string_input": "'thal'.*strings"}
L = keras.layers

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore:__array__ implementation:DeprecationWarning")


def _frames(model: Any, sizes: tuple[int, ...], seed: int) -> list[Any]:
    """Series end in padding of another length for each seed, or have holes."""
    rng = np.random.default_rng(seed)
    made = []
    for symbol in model.inputs:
        following = iter(sizes)
        shape = (1, *(next(following) if s is None else s for s in symbol.shape[1:]))
        if "int" in symbol.dtype:
            made.append(rng.integers(0, 4, shape).astype(symbol.dtype))
        else:
            array = rng.standard_normal(shape).astype(symbol.dtype)
            if len(shape) == 3:
                array[:, rng.random(shape[1]) < 0.4] = 0
            made.append(array)
        if len(shape) > 1 and shape[1] > 3:
            made[-1][:, -seed:] = 0
    return made


def _by_keras(model: Any) -> Callable[[list[Any]], list[Any]]:
    """The original, run by Keras alone, in no way that the code under test knows of."""
    structure = check_model(model, "m")._inputs_struct
    run = tf.function(
        lambda *x: model(keras.tree.pack_sequence_as(structure, list(x)), training=False), autograph=False
    )
    return lambda frame: [np.asarray(one) for one in keras.tree.flatten(run(*map(tf.constant, frame)))]


def _agrees(path: Path, sizes: tuple[int, ...] = (), tolerance: float = 1e-5) -> None:
    prepared = load(ModelSource("m", str(path), input_size=sizes))
    original = keras.saving.load_model(path, compile=False)
    whole, by_keras = unsplit(ENGINE, prepared), _by_keras(original)
    for seed in (1, 3):
        frame = _frames(original, sizes, seed)
        given = dict(zip(prepared.graph.inputs, frame, strict=True))
        made = {t: np.array(a) for t, a in whole.run(given).items()}
        for tensor, expected in zip(prepared.graph.outputs, by_keras(frame), strict=True):
            assert made[tensor].shape == expected.shape
            assert made[tensor].dtype == expected.dtype
            assert relative_difference(made[tensor], expected) <= tolerance
    if TIMES > 1:  # of random networks and the zoo's, cuts are tried in every run: tests/properties/test_segments.py
        assert all(split.equal for split in splits(ENGINE, prepared, given, made, placements=1, seed=seed))


def _loads(path: Path) -> bool:
    try:
        load(ModelSource("m", str(path)))
    except NotFunctional:
        return False
    return True


ALL = {**RUN, **wilder_models.RUN}


@pytest.mark.parametrize(
    "kind", [*RUN, *(pytest.param(kind, marks=in_longer_runs) for kind in wilder_models.RUN if kind not in RUN)]
)
def test_a_model_from_the_wild_answers_as_keras_does(kind: str, tmp_path: Path) -> None:
    build, sizes = ALL[kind]
    keras.utils.set_random_seed(3)
    trained(build()).save(tmp_path / "m.keras")
    _agrees(tmp_path / "m.keras", sizes, 2e-3 if kind.startswith("mixed precision") else 1e-5)


@pytest.mark.parametrize("script", CASES, ids=lambda path: path.stem)
def test_every_script_of_the_cases_runs_or_is_refused_in_words(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"{script.stem}.keras"
    monkeypatch.setattr(sys, "argv", [str(script), str(path)])
    runpy.run_path(str(script))
    # TensorFlow has kernels for channels_first on some processors
    if script.stem in REFUSED and not (script.stem == "channels_first" and _loads(path)):
        with pytest.raises(NotFunctional, match=REFUSED[script.stem]):
            load(ModelSource("m", str(path)))
        return
    sizes = (16, 24) if script.stem == "dynamic_image" else ()
    _agrees(path, sizes)


def _saved(model: Any, path: Path) -> ModelSource:
    model.save(path)
    return ModelSource("m", str(path))


def _wrongly_declared() -> Any:
    return keras.Sequential([keras.Input((6,)), Doubled(), L.Dense(3)])


def _mask_that_does_not_fit() -> Any:
    words = keras.Input((12,), dtype="int32")
    return keras.Model(words, L.Softmax(axis=1)(L.Embedding(9, 8, mask_zero=True)(words)))


def _brain_float() -> Any:
    return keras.Sequential([keras.Input((6,)), L.Dense(3, dtype="mixed_bfloat16"), L.Dense(2)])


def _of_any_size() -> Any:
    image = keras.Input((None, None, 3))
    return keras.Model(image, L.Conv2D(2, 3)(image))


def _data_decides() -> Any:
    one = keras.Input((6,))
    return keras.Model(one, L.Lambda(lambda x: tf.boolean_mask(x, x > 0), output_shape=(None,))(one))


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (_wrongly_declared, r"dense.*Keras cannot run it on float32\(1, 12\).*expected axis -1.*value 6"),
        (_mask_that_does_not_fit, r"softmax.*Keras cannot run it.*must be broadcastable"),
        (_brain_float, "bfloat16"),
        (_of_any_size, r"2 unknown sizes.*--input-size 256x256.*input_size: \[256, 256\]"),
        (_data_decides, "no code out of a file"),
    ],
)
def test_what_cannot_run_is_refused_in_the_words_of_keras_and_with_advice_that_helps(
    build: Callable[[], Any], said: str, tmp_path: Path
) -> None:
    source = _saved(build(), tmp_path / "m.keras")
    with pytest.raises(TrisectError, match=said) as found:
        load(source)
    assert "rebuild it" not in str(found.value)
    assert len(str(found.value)) < 1_000
    assert "\x1b" not in str(found.value)


@pytest.mark.parametrize(
    ("sizes", "said"), [((16,), "2 unknown sizes, not the 1 given"), ((8, 8, 8), "not the 3 given")]
)
def test_an_input_size_of_another_rank_is_refused(sizes: tuple[int, ...], said: str, tmp_path: Path) -> None:
    _of_any_size().save(tmp_path / "m.keras")
    with pytest.raises(NotFunctional, match=said):
        load(ModelSource("m", str(tmp_path / "m.keras"), input_size=sizes))
    keras.Sequential([keras.Input((6,)), L.Dense(3)]).save(tmp_path / "known.keras")
    with pytest.raises(ModelError, match="no input of unknown size"):
        load(ModelSource("m", str(tmp_path / "known.keras"), input_size=sizes))


_PACKAGE = """
import keras

@keras.saving.register_keras_serializable(package="yard")
class Squared(keras.layers.Layer):
    def call(self, x):
        return x * x
"""
_BUILD = "import keras, yard_layers as y; i = keras.Input((3,)); keras.Model(i, y.Squared()(i)).save('own.keras')"


def test_layers_of_a_package_are_found_with_import_and_without_it_the_error_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "yard_layers.py").write_text(_PACKAGE)
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, "-c", _BUILD], check=True, capture_output=True)
    with pytest.raises(ModelError, match=r"Could not locate class 'Squared'.*--import PACKAGE"):
        load(ModelSource("m", "./own.keras"))
    with pytest.raises(ModelError, match="'no_such_package' cannot be imported"):
        load(ModelSource("m", "./own.keras", imports=("no_such_package",)))
    prepared = load(ModelSource("m", "./own.keras", imports=("yard_layers",)))
    made = unsplit(ENGINE, prepared).run({prepared.graph.inputs[0]: np.array([[1, 2, 3]], np.float32)})
    assert made[prepared.graph.outputs[0]].tolist() == [[1, 4, 9]]


def _folds() -> Any:
    image = keras.Input((6, 6, 3))
    x = L.BatchNormalization(name="norm")(L.Conv2D(4, 3, name="first")(image))
    return trained(keras.Model(image, L.Conv2D(2, 3, name="last")(x)))


def test_a_model_that_would_answer_otherwise_is_refused_with_its_first_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.prepare import folding

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    right = folding.constants
    monkeypatch.setattr(folding, "constants", lambda norm: (right(norm)[0] * 1.05, right(norm)[1]))
    source = _saved(_folds(), tmp_path / "m.keras")
    with pytest.raises(ModelError, match=r"otherwise than Keras does, first in layer 'first' \(Conv2D\): by \d"):
        load(source)
    monkeypatch.setattr(folding, "constants", right)
    assert load(source).graph.blocks[1].layers == ("first", "norm")


def test_a_model_is_compared_once_on_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.prepare.recording import Trace

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runs: list[int] = []
    real = Trace.run

    def counted(*args: Any) -> list[Any]:
        runs.append(1)
        return real(*args)

    monkeypatch.setattr(Trace, "run", counted)
    source = _saved(_folds(), tmp_path / "m.keras")
    load(source)
    load(source)
    assert len(runs) == 1


def test_a_model_that_is_believed_what_it_declares_is_compared_when_it_is_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.models import proof
    from pipeline.prepare import folding
    from pipeline.prepare.flatten import flatten
    from pipeline.prepare.model import prepared_from

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    original, right = _folds(), folding.constants

    def prove() -> None:
        flat = flatten(original, "m", renumber=True, is_declared=True)
        proof.prove_whole(original, flat, prepared_from(flat))

    monkeypatch.setattr(folding, "constants", lambda norm: (right(norm)[0] * 1.05, right(norm)[1]))
    with pytest.raises(ModelError, match=r"otherwise than Keras does, by \d"):
        prove()
    monkeypatch.setattr(folding, "constants", right)
    prove()
    monkeypatch.setattr(proof, "_run", lambda *_: pytest.fail("it is remembered"))
    prove()
