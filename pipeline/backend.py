"""TensorFlow and Keras, imported without their noise and set up so that a cut cannot change a bit.

The only module that imports them; everything else takes `keras` and `tf` from here. Knows nothing of models.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError

_NOISE = re.compile(
    rb"absl::InitializeLog|oneDNN custom operations|cpu_feature_guard|rebuild TensorFlow with the appropriate"
    rb"|computation_placer|Unable to register cu|cuda|gpu_device|TF-TRT|port\.cc|util\.cc|XNNPACK delegate for CPU"
)


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back what C++ writes to file descriptor 2 meanwhile, and pass on all but TensorFlow's start-up noise.

    TF_CPP_MIN_LOG_LEVEL is not enough: absl's own first lines ignore it.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        saved = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            held.seek(0)
            for line in held:
                if not _NOISE.search(line):
                    os.write(2, line)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"
with quiet_stderr():
    import keras
    import tensorflow as tf

    tf.config.list_physical_devices()  # looks for a GPU, and says so when there is none

__all__ = ["ALIGNMENT", "as_array", "keras", "own_as_tensor", "quiet_stderr", "set_up", "tf"]

ALIGNMENT = 64
"""Bytes. TensorFlow aborts the process on a tensor that starts elsewhere."""

# These rewrite arithmetic through a block's border where there is none in the whole network: (x * a) * b becomes
# x * (a * b). Remapping stays: what it fuses (bias, activation) lies within a block or rounds alike (tested).
_OPTIMISERS = {"constant_folding": False, "arithmetic_optimization": False}


def set_up(threads: int) -> None:
    """Fix the number of threads of this process, once and before the first tensor.

    Raises ConfigError when TensorFlow already runs with another number.
    """
    if threads < 1:
        raise ConfigError(f"threads must be at least 1, not {threads}")
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
    config.optimizer.set_experimental_options(_OPTIMISERS)
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


def as_array(tensor: Any) -> npt.NDArray[Any]:
    """The tensor's (or variable's) own memory as a read-only array; `numpy()` copies."""
    try:
        return np.asarray(memoryview(tf.convert_to_tensor(tensor)))
    except (TypeError, ValueError, BufferError):  # bfloat16 has no buffer format
        return np.asarray(tensor)
