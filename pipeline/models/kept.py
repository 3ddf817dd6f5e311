"""Bound what kept packages take on the disk: the least recently used go, but none that a running process has open.

Who uses a package holds a shared lock on its file, which the system drops with the process; who removes one takes the
lock alone first, and one process at a time removes. Where a lock cannot be had (a file system without), the file stays.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import ConfigError, ModelError
from pipeline.lite.package import SUFFIX, Package

_log = logging.getLogger(__name__)

LIMIT_VARIABLE = "TRISECT_PACKAGES_GB"
LIMIT_GB = 10.0
GIGABYTE = 1e9
_LEFT_OVER_S = 86_400.0
"""After which a temporary file or a lock is nobody's any more: packing takes minutes at most."""


def limit_bytes() -> float:
    """What packages may take: `TRISECT_PACKAGES_GB`, by default 10; no limit for `inf`. Raises ConfigError."""
    text = os.environ.get(LIMIT_VARIABLE, "") or str(LIMIT_GB)
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = math.nan
    if not gigabytes >= 0:
        raise ConfigError(f"{LIMIT_VARIABLE} is {text[:40]!r}; gigabytes of at least 0 for kept packages, or inf")
    return gigabytes * GIGABYTE


def too_small(what: str, needed: float, limit: float) -> ModelError:
    """The error of something that has more bytes than packages may take."""
    return ModelError(
        f"{what} take {needed / GIGABYTE:.2f} GB of the disk, and {LIMIT_VARIABLE} allows {limit / GIGABYTE:.2f}; "
        "raise it, or give the node's memory_mb, so that plans keep within it",
        size=int(needed),
        limit=int(limit),
    )


def taken_bytes(directory: Path) -> int:
    """What the packages in the folder take of the disk."""
    taken = 0
    for path in directory.glob(f"*{SUFFIX}"):
        with contextlib.suppress(OSError):
            taken += _taken_bytes(path.stat())
    return taken


def opened(path: Path, name: str | None) -> Package | None:
    """The package, which stays on the disk as long as this object lives; None if it is not there. Raises ModelError."""
    try:
        held = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError:  # Package says what is wrong with it
        return Package(path, name=name)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_SH)
        if not is_at(path, held):  # removed, or replaced, before it was locked
            os.close(held)
            return opened(path, name)
        package = Package(path, name=name)
    except BaseException:
        os.close(held)
        raise
    with contextlib.suppress(OSError):  # somebody else's: its owner's use counts
        os.utime(path)
    weakref.finalize(package, os.close, held)
    return package


def prune(directory: Path, most_bytes: float) -> list[Path]:
    """Remove the packages that were used longest ago until the others take at most `most_bytes`; returns those removed.

    What is in use counts, and stays. Left-overs of processes that died while they packed go after a day.
    """
    with _only_one(directory):
        removed = _pruned(directory, most_bytes)
    if removed:
        names = ", ".join(path.name for path in removed)
        _log.info("removed packages that were used longest ago, for %s: %s", LIMIT_VARIABLE, names[:500])
    return removed


@contextlib.contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    """Two at once would take each other's locks for use, and remove younger packages in the place of those."""
    held = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _pruned(directory: Path, most_bytes: float) -> list[Path]:
    packages, removed = [], []
    for path in directory.iterdir():
        with contextlib.suppress(OSError):
            found = path.stat()
            if path.suffix == SUFFIX and not path.name.startswith("."):
                packages.append((found.st_mtime, _taken_bytes(found), path))
            elif time.time() - found.st_mtime > _LEFT_OVER_S:
                path.unlink()
    too_much = sum(size for _, size, _ in packages) - most_bytes
    for _, size, path in sorted(packages):
        if too_much <= 0:
            break
        if _remove(path):
            too_much -= size
            removed.append(path)
    return removed


def _taken_bytes(found: os.stat_result) -> int:
    """What a file takes of the disk: one that comes in pieces has holes."""
    return min(found.st_size, found.st_blocks * 512)


def _remove(path: Path) -> bool:
    """Whether the package is gone."""
    try:
        held = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_at(path, held):
            path.unlink()
    except OSError:  # in use, or not ours to remove
        return False
    finally:
        os.close(held)
    return True


def is_at(path: Path, held: int) -> bool:
    """Whether the open file is still the one at this path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(held))
    except FileNotFoundError:
        return False
