"""How the last process of a node ended: one that was killed can no longer say so, its successor can.

A file is there while the process runs. Found at a start, it is of one that did not end in order; the kernel's own count
of processes killed for memory, and the machine's boot, say more.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated

import psutil
from pydantic import Field

from pipeline import ranges
from pipeline.errors import TrisectError
from pipeline.files import read_bounded
from pipeline.ranges import Count, Timestamp, Word

_log = logging.getLogger(__name__)
_MOST_BYTES = 4_096
SAME_PROCESS_S = 2.0
"""Numbers of processes are used again; a process's begin follows the wall clock when that is set."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_VMSTAT = Path("/proc/vmstat")


@dataclass(frozen=True, slots=True)
class Run:
    """A running process: its begin by the wall clock, the machine's boot, and how many the kernel had killed."""

    pid: Annotated[int, Field(ge=1, le=2**31)]
    created_ts: Timestamp
    boot: Word = ""
    oom_kills: Count = 0


class LastRun:
    """A context around a process's work. Enter it when no other process has the node's id."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_mine = True

    def __enter__(self) -> LastRun:
        last = self._read()
        if last is not None and _lives(last):  # under the same id at another broker: the file is of that one
            self._is_mine = False
            return self
        if last is not None:
            _log.warning("%s", how_it_ended(last, this_run()))
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(asdict(this_run())) + "\n", encoding="ascii")
        except OSError as error:
            _log.debug("%s: %s", self._path, error)  # a full or read-only disk is said by what needs it
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_mine:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _read(self) -> Run | None:
        try:
            value = json.loads(read_bounded(self._path, _MOST_BYTES))
            return ranges.read(Run, value, error=TrisectError, what="a record of a run")
        except (OSError, ValueError, RecursionError, TypeError, TrisectError):
            return None


def how_it_ended(last: Run, now: Run) -> str:
    """One sentence on the end of a process that did not end in order."""
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(last.created_ts))
    text = f"the last process (number {last.pid}, begun {began}) did not end in order: "
    if last.boot and now.boot and last.boot != now.boot:
        return f"{text}the machine has been started again since"
    if killed := now.oom_kills - last.oom_kills:
        return f"{text}it was killed, perhaps by the kernel for want of memory, as {killed:,} have been since it began"
    return f"{text}it was killed (SIGKILL), or crashed; the kernel has killed nobody for want of memory since it began"


def this_run() -> Run:
    """This process, as its successor will read of it."""
    return Run(os.getpid(), psutil.Process().create_time(), _text(_BOOT).strip(), _oom_kills())


def this_machine() -> str:
    """A name of the running kernel and of those of its cores that this process may use; it says nothing else of them,
    and is empty where the kernel has no number for each boot.
    """
    boot, cores = _text(_BOOT).strip(), ",".join(map(str, sorted(os.sched_getaffinity(0))))
    return hashlib.blake2b(f"{boot} {cores}".encode(), digest_size=8).hexdigest() if boot else ""


def _lives(run: Run) -> bool:
    try:
        return abs(psutil.Process(run.pid).create_time() - run.created_ts) < SAME_PROCESS_S
    except (psutil.Error, OverflowError):
        return False


def _oom_kills() -> int:
    counts = (line.removeprefix("oom_kill ") for line in _text(_VMSTAT).splitlines() if line.startswith("oom_kill "))
    return next((int(count) for count in counts if count.isdigit()), 0)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""  # no Linux
