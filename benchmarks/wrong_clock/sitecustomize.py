"""Python imports this at its start when this folder is on PYTHONPATH: the wall clock then goes wrong as a file says.

`WRONG_CLOCK` names a file that holds seconds to add; it is read again at most ten times a second. Monotonic clocks
stay.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_right, _path = time.time, Path(os.environ["WRONG_CLOCK"])
_offset_s, _read_at = 0.0, float("-inf")


def _wrong() -> float:
    global _offset_s, _read_at  # one clock for the process
    if time.monotonic() - _read_at > 0.1:
        _offset_s, _read_at = float(_path.read_text()), time.monotonic()
    return _right() + _offset_s


time.time = _wrong
time.time_ns = lambda: int(1e9 * _wrong())
