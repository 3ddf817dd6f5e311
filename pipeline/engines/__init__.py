"""Engines, which run blocks: the seam between a prepared model and a library of kernels. Imports none of them
itself.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from pipeline.engines.base import Array, BlockTimes, Engine, Loaded, Segment, TileSegment, unsplit
from pipeline.errors import ConfigError

__all__ = [
    "NAMES",
    "Array",
    "BlockTimes",
    "Engine",
    "Loaded",
    "Segment",
    "TileSegment",
    "create",
    "installed",
    "unsplit",
]

NAMES = ("litert", "tensorflow")
_PACKAGES = {"litert": "ai_edge_litert", "tensorflow": "tensorflow"}
"""The package of each engine."""
_INSTALLED_BY = {"litert": "ai-edge-litert", "tensorflow": "'trisect[tensorflow]'"}
"""LiteRT comes with trisect itself, so who lacks it has lost it."""


def create(
    name: str,
    threads: int,
    *,
    everywhere: bool = True,
    batch: int = 1,
    is_room: Callable[[int], bool] = lambda nbytes: True,
) -> Engine:
    """The engine of this name. Create it before the first model is loaded: that fixes the process's threads.

    `everywhere` asks for kernels that give the same bits on x86 and ARM, `batch` for segments that run so many frames
    together where that pays, if there `is_room` for so many bytes; litert has both. Raises ConfigError for an unknown
    name, one that is not installed, or when TensorFlow already runs with another number of threads.
    """
    if name not in NAMES:
        raise ConfigError(f"unknown engine {name!r}: known: {', '.join(NAMES)}")
    if name not in installed():
        raise ConfigError(f"engine {name!r} is not installed; pip install {_INSTALLED_BY[name]}")
    if name == "litert":
        from pipeline.engines.litert import LiteRTEngine

        return LiteRTEngine(threads, everywhere=everywhere, batch=batch, is_room=is_room)
    from pipeline.engines.tensorflow import TensorFlowEngine

    return TensorFlowEngine(threads)


def installed() -> tuple[str, ...]:
    """The engines that this Python can make, the default first."""
    return tuple(name for name in NAMES if find_spec(_PACKAGES[name]) is not None)
