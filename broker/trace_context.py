"""The trace that a message belongs to, as W3C's Trace Context for MQTT has it: a user property `traceparent`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

PROPERTY: Final = "traceparent"
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def traceparent_of(properties: Sequence[tuple[str, str]]) -> str | None:
    """The trace context among a message's user properties; None without one, or for what is none."""
    for name, value in properties:
        if name == PROPERTY and _TRACEPARENT.fullmatch(value):
            return value
    return None
