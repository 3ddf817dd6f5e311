"""Hold back what C++ libraries write to standard error when they start."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

_NOISE = re.compile(
    rb"absl::InitializeLog|oneDNN custom operations|cpu_feature_guard|rebuild TensorFlow with the appropriate"
    rb"|computation_placer|Unable to register cu|cuda|gpu_device|TF-TRT|port\.cc|util\.cc|XNNPACK delegate for CPU"
)


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back what C++ writes to file descriptor 2 meanwhile, and pass on all but start-up noise.

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
