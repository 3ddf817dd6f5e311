"""Which versions of trisect work together: those that differ in their last number only, as 0.2.0 and 0.2.7 do.

Before 1.0 the second number changes with the messages, after it the first one does.
"""

from __future__ import annotations

import re


def series(version: str) -> str:
    """What must be equal: `0.2` of 0.2.7, `1` of 1.4.0, and all of what is no version."""
    found = re.match(r"(\d+)\.(\d+)(?![\w])", version)
    if found is None:
        return version
    return f"0.{found[2]}" if found[1] == "0" else found[1]


def refusal(theirs: str, ours: str) -> str | None:
    """Why a node of another version takes no part; None when it may."""
    if series(theirs) == series(ours):
        return None
    return (
        f"version: trisect {theirs} does not work with {ours}: one of series {series(ours)} expected; update the older"
    )
