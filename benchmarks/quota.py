"""Processes that may use a share of a core only, by Linux's CPU control groups (version 1 or 2); needs root."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from types import TracebackType

from pipeline.errors import TrisectError

PERIOD_US = 5000
LEAST_QUOTA_US = 1000
"""Of the kernel; a smaller share has longer periods."""
_V1 = Path("/sys/fs/cgroup/cpu")
_V2 = Path("/sys/fs/cgroup")
_EMPTY_WAIT_S = 5.0


class Quotas:
    """One control group per name; a context that removes them when their processes are gone."""

    def __init__(self) -> None:
        self._root = _V1 if (_V1 / "cpu.cfs_quota_us").exists() else _V2
        self._groups: dict[str, Path] = {}

    def limit(self, name: str, share: float, pid: int | None = None) -> None:
        """Give the group this share of a core in periods of 5 ms or more, a process in it. Raises TrisectError."""
        try:
            group = self._groups.get(name) or self._made(name)
            period_us = max(PERIOD_US, round(LEAST_QUOTA_US / share))
            quota_us = round(share * period_us)
            if self._root == _V1:
                (group / "cpu.cfs_period_us").write_text(str(period_us))
                (group / "cpu.cfs_quota_us").write_text(str(quota_us))
            else:
                (group / "cpu.max").write_text(f"{quota_us} {period_us}")
            if pid is not None:
                (group / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            raise TrisectError(
                f"no CPU quota for {name}: {error}; run as root, with the cpu controller there"
            ) from error

    def _made(self, name: str) -> Path:
        if self._root == _V2:
            (self._root / "cgroup.subtree_control").write_text("+cpu")
        group = self._root / f"trisect-{os.getpid()}-{name}"
        group.mkdir()
        weight, most = ("cpu.shares", 262_144) if self._root == _V1 else ("cpu.weight", 10_000)
        (group / weight).write_text(str(most))  # so that neighbours outside take nothing of the quota
        self._groups[name] = group
        return group

    def __enter__(self) -> Quotas:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        give_up = time.monotonic() + _EMPTY_WAIT_S
        for group in self._groups.values():
            while (group / "cgroup.procs").read_text() and time.monotonic() < give_up:
                time.sleep(0.05)
            with contextlib.suppress(OSError):
                group.rmdir()
