"""TensorFlow and Keras, imported without their noise and set up so that a cut cannot change a bit.

The only module that imports them; everything else takes `keras` and `tf` from here. Knows nothing of models.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError
from pipeline.quiet import quiet_stderr


@contextlib.contextmanager
def _quick_imports() -> Iterator[None]:
    """Spare a third of the seconds that the imports take.

    The garbage collector would walk hundreds of thousands of objects again and again, of which next to none is garbage;
    it leaves them alone afterwards, too, so that it never stops frames for long. Keras imports scikit-learn where it is
    installed, for wrappers that nothing here uses.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    hidden = "sklearn" not in sys.modules
    if hidden:
        sys.modules["sklearn"] = None  # type: ignore[assignment]  # Python's way to say that there is none
    try:
        yield
    finally:
        if hidden:
            del sys.modules["sklearn"]
        gc.collect()  # errors that were caught hold the frames of whoever imports this
        gc.freeze()
        if was_enabled:
            gc.enable()


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"
with quiet_stderr(), _quick_imports():
    import keras
    import tensorflow as tf

    tf.config.list_physical_devices()  # looks for a GPU, and says so when there is none

# That a mask ends at a layer is no news to who built the model, and none to who runs it.
warnings.filterwarnings("ignore", r"Layer '.*' .* was passed an input with a mask attached", UserWarning)

__all__ = [
    "ALIGNMENT",
    "OPTIMISERS",
    "as_array",
    "keras",
    "lent_as_tensor",
    "own_as_tensor",
    "set_up",
    "tf",
]

ALIGNMENT = 64
"""Bytes. TensorFlow aborts the process on a tensor that starts elsewhere."""

_WORTH_LENDING_BYTES = 65_536
"""Below, a copy is as quick."""

# These rewrite arithmetic through a block's border where there is none in the whole network: (x * a) * b becomes
# x * (a * b). Remapping stays: what it fuses (bias, activation) lies within a block or rounds alike (tested).
OPTIMISERS = {"constant_folding": False, "arithmetic_optimization": False}


def set_up(threads: int) -> None:
    """Fix the number of threads of this process, once and before the first tensor.

    Raises ConfigError when TensorFlow already runs with another number.
    """
    if threads < 1:
        raise ConfigError(f"threads must be at least 1, not {threads}")
    # Weights of a prepared model never change, but they are variables: told so, oneDNN brings them into its own order
    # once instead of at each run. Convolutions and dense layers are 1.3 to 1.8 times as fast; each segment has a copy.
    # From here on this process must not train, nor call Keras eagerly: there, layers of one shape share a kernel.
    os.environ.setdefault("TF_ONEDNN_ASSUME_FROZEN_WEIGHTS", "1")
    config = tf.config
    try:
        config.threading.set_intra_op_parallelism_threads(threads)
        config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        intra = config.threading.get_intra_op_parallelism_threads()
        if intra != threads:
            raise ConfigError(
                f"TensorFlow already runs with {intra or 'all'} threads in this process, {threads} were asked for; "
                "create the engine before loading a model, and one number per process"
            ) from None
    config.optimizer.set_experimental_options(OPTIMISERS)
    with quiet_stderr():
        config.list_logical_devices()


def own_as_tensor(array: npt.NDArray[Any], dtype: str | None = None) -> Any:
    """A tensor that takes over the array's memory if it can, else copies it; the caller lets go of the array.

    tf.constant always copies, and a weight of 400 MB shows that.
    """
    own = array.flags.writeable and array.flags.c_contiguous and array.ctypes.data % ALIGNMENT == 0
    if own and array.nbytes and (dtype is None or np.dtype(dtype) == array.dtype):
        return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    return tf.convert_to_tensor(array, dtype=dtype)


class _Writable:
    """The memory of an array, said to be writable: DLPack knows no read-only tensors, and TensorFlow's are all so."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._array = array  # lives as long as a tensor over it
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


def lent_as_tensor(array: npt.NDArray[Any]) -> Any:
    """A tensor over the array's memory if it is aligned, contiguous and large enough to matter, else a copy.

    TensorFlow reads it only; the caller does not write to it while a tensor over it may be in use.
    """
    lendable = array.dtype.kind in "fiu" and array.flags.c_contiguous and array.ctypes.data % ALIGNMENT == 0
    if not lendable or array.nbytes < _WORTH_LENDING_BYTES:
        return tf.constant(array)
    return tf.experimental.dlpack.from_dlpack(np.asarray(_Writable(array)).__dlpack__())


def as_array(tensor: Any) -> npt.NDArray[Any]:
    """The tensor's (or variable's) own memory as a read-only array; `numpy()` copies."""
    try:
        return np.asarray(memoryview(tf.convert_to_tensor(tensor)))
    except (TypeError, ValueError, BufferError):  # bfloat16 has no buffer format
        return np.asarray(tensor)
