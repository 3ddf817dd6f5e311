"""Keeps a loop alive: what one event raises costs that event, is logged with it and counted, and nothing more.

An exception in a core loop is a bug of ours. It is caught here so that no single message ends a process, not in tests:
those drive the machines by themselves, and have their laws checked after each step.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from broker.complaints import Complaints, shortened


class Guard:
    """Thread safe; `total` counts what was caught (`internal_errors_total`)."""

    def __init__(self, log: logging.Logger, name: str) -> None:
        self._name = name
        self._caught = Complaints(log)

    @property
    def total(self) -> int:
        """Exceptions caught so far."""
        return self._caught.total

    @contextmanager
    def over(self, event: object) -> Iterator[None]:
        """Do something with an event, and go on if it raises. The same fault is logged once a minute."""
        try:
            yield
        except Exception as error:
            kind = type(event).__name__
            text = f"{self._name}: a fault of trisect, please report it: {kind} is dropped: {_described(event)}"
            self._caught.add((kind, type(error).__name__), text, error=error)


def _described(event: object) -> str:
    try:
        return shortened(repr(event))
    except Exception as error:  # a value that cannot even be shown is still only one event
        return f"(it cannot be shown: {type(error).__name__})"
