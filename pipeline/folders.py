"""The folders in which a user's programs keep things, as the XDG specification names them.

Where there is no home (a container's user without an entry) they lie in the temporary folder, by the user's number.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache() -> Path:
    """`$XDG_CACHE_HOME/trisect`, by default below ~/.cache."""
    return _below("XDG_CACHE_HOME", ".cache")


def packages() -> Path:
    """The cache's folder for packages of models."""
    return cache() / "packages"


def profiles() -> Path:
    """The cache's folder for what was measured on this machine."""
    return cache() / "profiles"


def state() -> Path:
    """`$XDG_STATE_HOME/trisect`, by default below ~/.local/state."""
    return _below("XDG_STATE_HOME", ".local/state")


def sync(folder: Path) -> None:
    """Have what was renamed in the folder survive a power cut. Raises OSError."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _below(variable: str, default: str) -> Path:
    base = os.environ.get(variable, "")
    if os.path.isabs(base):
        return Path(base) / "trisect"
    try:
        return Path.home() / default / "trisect"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"trisect-{os.getuid()}" / default
