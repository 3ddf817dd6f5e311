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

_KEPT = "codecs-2"
"""The number grows with each change of a codec or of the arrays that it is measured with."""
_REPEATS = 5
_MAP = (1, 32, 32, 64)
_SIDE = 160
_CORNER, _PICTURE_CORNER, _CHANNELS = 4, 20, 32
_LEAST_SHARE = 0.1
"""Of what an array takes, that goes with its size at least: the two are measured apart."""


def measured() -> dict[str, CodecSpeed]:
    """Speeds of each codec that works here: on arrays such as it is chosen for, a quarter of a megabyte, and on small
    ones, of which nearly all is what a call takes.

    Takes a few tenths of a second.
    """
    found = {}
    for name in CODECS:
        array = _sample(name)
        if codecs.encode(name, array).codec != name:
            continue
        whole, part = _seconds(name, array), _seconds(name, np.ascontiguousarray(_part(array)))
        call_s = [min(few, many) for few, many in zip(part, whole, strict=True)]
        rates = [
            array.nbytes / max(all_s - one_s, _LEAST_SHARE * all_s) for all_s, one_s in zip(whole, call_s, strict=True)
        ]
        found[name] = CodecSpeed(*rates, *call_s)
    return found


def _seconds(name: str, array: Array) -> tuple[float, float]:
    """Medians to encode and to decode; to try to, where the codec saves nothing of so small an array."""
    coded = codecs.encode(name, array)
    data, out = memoryview(b"".join(coded.buffers)), np.empty_like(array)
    encode_s, decode_s = list[float](), list[float]()
    for _ in range(_REPEATS):
        encode_s.append(uncontended_seconds(lambda: codecs.encode(name, array)))
        if coded.codec == name:
            decode_s.append(uncontended_seconds(lambda: codecs.decode(name, data, out)))
    # libraries are loaded, and buffers made, in the first of them
    return statistics.median(encode_s), statistics.median(decode_s) if decode_s else 0.0


def _part(array: Array) -> Array:
    """A corner of a picture, or of a map: 1 to 4 KiB."""
    corner = _CORNER if array.shape[-1] > _CHANNELS else _PICTURE_CORNER
    return array[:, :corner, :corner, :_CHANNELS]


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
