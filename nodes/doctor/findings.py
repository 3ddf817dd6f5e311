"""A finding: what was looked at, how it is, and what to do where it is not well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `remedy` says what to do where it is not ok."""

    about: str
    level: Level
    text: str
    remedy: str = ""


def ok(about: str, text: str) -> Finding:
    """All is well."""
    return Finding(about, "ok", text)


def warning(about: str, text: str, remedy: str) -> Finding:
    """It works, and may not for long or not always."""
    return Finding(about, "warning", text, remedy)


def wrong(about: str, text: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(about, "wrong", text, remedy)
