"""Fields of a binary message's header, each held against its range where it is read."""

from __future__ import annotations

import re
from typing import Any

from pipeline.ranges import ID

_ID = re.compile(ID)


def read_number(name: str, value: Any, most: float) -> float:
    """A number from 0 to `most`. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ValueError(f"{name}: a number from 0 to {most:g} expected, not {value!r:.40}")
    return float(value)


def read_id(name: str, value: Any) -> str:
    """An id of a node or stream. Raises ValueError."""
    if not isinstance(value, str) or _ID.fullmatch(value) is None:
        raise ValueError(f"{name}: {ID} expected, not {value!r:.40}")
    return value


def read_text(name: str, value: Any, most: int = 64) -> str:
    """A text of at most `most` characters. Raises TypeError."""
    if not isinstance(value, str) or len(value) > most:
        raise TypeError(f"{name}: a text of at most {most} characters expected, not {type(value).__name__}")
    return value


def read_count(name: str, value: Any, most: int) -> int:
    """A whole number from 0 to `most`. Raises TypeError."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise TypeError(f"{name}: a number from 0 to {most} expected, not {value!r:.40}")
    return value
