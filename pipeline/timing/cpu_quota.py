"""The share of the processor that Linux's control groups (version 1 or 2) leave to this process.

A container with a quota is a slower machine: the time for which it stands still is its own, not its neighbours'.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_NS_PER_S, _US_PER_S = 1e9, 1e6
_MOUNT = Path("/sys/fs/cgroup")
_GROUPS = Path("/proc/self/cgroup")


def cores() -> float | None:
    """Cores that the tightest quota leaves, as a float; None without a quota below the number of cores."""
    limits = [limit for folder in _folders() if (limit := _limit(folder)) is not None]
    return min((limit for limit in limits if limit < (os.cpu_count() or 1)), default=None)


def throttled_seconds() -> float:
    """Seconds for which its quota has stopped this process's own group so far; 0 without one."""
    for folder in _folders():
        lines = (line.partition(" ") for line in _text(folder / "cpu.stat").splitlines())
        stat = {name: value for name, _, value in lines}
        if "throttled_time" in stat:
            return int(stat["throttled_time"]) / _NS_PER_S
        if "throttled_usec" in stat:
            return int(stat["throttled_usec"]) / _US_PER_S
    return 0.0


def _folders() -> Iterator[Path]:
    """The group's own folder, where it can be seen, and the container's root."""
    for line in _text(_GROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(",") or not controllers:
            mount = _MOUNT / "cpu" if controllers else _MOUNT
            yield from (mount / path.lstrip("/"), mount)


def _limit(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
    if not period:
        quota, period = (_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
