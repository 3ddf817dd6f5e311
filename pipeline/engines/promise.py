"""State which processors and engines give the same bits, and in how many tiles: facts measured in docs/exactness.md."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_TELLING = ("fma", "avx2", "avx512f", "avx512_vnni")
"""Flags by which libraries choose kernels that sum in other orders."""
_CPUINFO = Path("/proc/cpuinfo")
EVERYWHERE = "everywhere"
EXACT, BY_PROOF = "exact", "by proof"
_X86 = frozenset({"x86_64", "AMD64"})
_ZEN, _HYGON = 23, 24
_SECOND_ZEN = 48
"""Families in /proc/cpuinfo, and the first model of Zen 2."""


@dataclass(frozen=True, slots=True)
class Promise:
    """`bits` are equal on all nodes whose answers are; `tiles` are `exact`, or `by proof` of each kind of tile."""

    bits: str
    tiles: str

    def __str__(self) -> str:
        """The promise in words, for a node's log."""
        return f"tiles: {self.tiles}; bits equal on all nodes with: {self.bits}"


@cache
def processor() -> str:
    """The machine and the features by which kernels are chosen: `x86_64 avx2 fma`, `aarch64`."""
    return " ".join((platform.machine(), *sorted(_features()), *(["zen1"] if _is_first_zen() else [])))


def is_known() -> bool:
    """Return whether canonical forms were found to give the same bits on this kind of processor."""
    return is_arm() or ({"fma", "avx2"} <= _features() and not _is_first_zen())


def sums_in_order() -> bool:
    """Return whether plain kernels sum a place in the same order whatever the map's size."""
    return _is_x86() and not _is_first_zen()


def is_arm() -> bool:
    """Return whether this is a 64-bit ARM processor."""
    return platform.machine() in {"aarch64", "arm64"}


def _is_first_zen() -> bool:
    """Zen and Zen+ (EPYC 7001, Ryzen 1000 and 2000) and Hygon, for which XNNPACK has kernels that sum otherwise."""
    told = _cpuinfo()
    family, model = (int(told[key]) if told.get(key, "").isdigit() else -1 for key in ("cpu family", "model"))
    return family == _HYGON or (family == _ZEN and 0 <= model < _SECOND_ZEN)


def _features() -> frozenset[str]:
    return frozenset(_TELLING).intersection(_cpuinfo().get("flags", "").split()) if _is_x86() else frozenset()


def _is_x86() -> bool:
    return platform.machine() in _X86


@cache
def _cpuinfo() -> dict[str, str]:
    """The first processor's lines by their keys; nothing where there is no such file."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}
