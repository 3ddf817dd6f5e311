"""Values of a wire header, each held against its range. They raise ValueError or TypeError naming the field."""

from __future__ import annotations

import re
from typing import Any

from pipeline.ranges import ID

_ID = re.compile(ID)


def number(name: str, value: Any, most: float) -> float:
    """A number from 0 to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ValueError(f"{name}: a number from 0 to {most:g} expected, not {value!r:.40}")
    return float(value)


def identifier(name: str, value: Any) -> str:
    """An id of a-z, 0-9 and -."""
    if not isinstance(value, str) or _ID.fullmatch(value) is None:
        raise ValueError(f"{name}: {ID} expected, not {value!r:.40}")
    return value


def text(name: str, value: Any, most: int = 64) -> str:
    """A text of at most `most` characters."""
    if not isinstance(value, str) or len(value) > most:
        raise TypeError(f"{name}: a text of at most {most} characters expected, not {type(value).__name__}")
    return value


def flag(name: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: true or false expected, not {value!r:.40}")
    return value


def count(name: str, value: Any, most: int) -> int:
    """A whole number from 0 to `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise TypeError(f"{name}: a number from 0 to {most} expected, not {value!r:.40}")
    return value
