"""How fast a machine codes tensors: with ratios, what the planner chooses codecs by."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import codecs
from pipeline.codecs import CODECS, Array
from pipeline.coding import CodecSpeed
from pipeline.profiling import profile
from pipeline.timing.contention import uncontended_seconds

if TYPE_CHECKING:
    from pipeline.engines import Engine

_KEPT = "codecs-1"
"""The number grows with each change of a codec or of the arrays that it is measured with."""
_REPEATS = 5
_MAP = (1, 32, 32, 64)
_SIDE = 160


def measured() -> dict[str, CodecSpeed]:
    """Bytes per second of each codec that works here, on arrays such as it is chosen for: a quarter of a megabyte.

    Takes a few tenths of a second.
    """
    found = {}
    for name in CODECS:
        array = _sample(name)
        coded = codecs.encode(name, array)
        if coded.codec != name:
            continue
        data, out = memoryview(b"".join(coded.buffers)), np.empty_like(array)
        codecs.decode(name, data, out)  # once before it counts: libraries are loaded by then
        encode_s, decode_s = [], []
        for _ in range(_REPEATS):
            encode_s.append(uncontended_seconds(lambda: codecs.encode(name, array)))  # noqa: B023 - called at once
            decode_s.append(uncontended_seconds(lambda: codecs.decode(name, data, out)))  # noqa: B023
        found[name] = CodecSpeed(array.nbytes / statistics.median(encode_s), array.nbytes / statistics.median(decode_s))
    return found


def measured_or_kept(engine: Engine) -> dict[str, CodecSpeed]:
    """The speeds measured before on such a machine, else new ones; of the nodes of one machine, one measures."""
    if (known := profile.kept(_KEPT, engine, _read)) is not None:
        return known
    with profile.alone():
        known = profile.kept(_KEPT, engine, _read)
        if known is None:
            known = measured()
            profile.keep_if_possible(_KEPT, engine, {name: speed.to_json() for name, speed in known.items()})
        return known


def _sample(name: str) -> Array:
    rng = np.random.default_rng(0)
    if "webp" not in name:
        array = rng.normal(size=_MAP).astype(np.float32)
        return np.maximum(array, 0, out=array) if "bitmap" in name else array
    slope = np.linspace(0, 200, _SIDE)
    picture = (slope[:, None, None] + slope[None, :, None] / 5 + rng.integers(0, 8, (_SIDE, _SIDE, 3))).astype(np.uint8)
    return picture[None] if name == "webp" else picture[None] / np.float32(127.5) - np.float32(1)


def _read(value: Any) -> dict[str, CodecSpeed]:
    if not isinstance(value, Mapping):
        raise ValueError(f"speeds of codecs expected, not {type(value).__name__}")
    return {name: CodecSpeed.from_json(speed) for name, speed in value.items() if name in CODECS}
