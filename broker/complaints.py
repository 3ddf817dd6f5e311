"""Rate-limited logging of recurring faults: each is counted, one of a kind is logged a minute. Knows no message."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

EVERY_S: Final = 60.0
MOST_REMEMBERED: Final = 1024
MOST_TEXT: Final = 500


def shortened(text: str, most: int = MOST_TEXT) -> str:
    """The text, cut to `most` characters with its full length: foreign text must not fill a log or exceed a message."""
    return text if len(text) <= most else f"{text[: most - 40]}... ({len(text)} characters)"


class Complaints:
    """Thread safe. `total` counts all; of one `about` (a sender, a kind of error) one is logged in `EVERY_S`.

    Senders' names are theirs to choose, so only the newest `MOST_REMEMBERED` are remembered.
    """

    def __init__(self, log: logging.Logger, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._clock = log, clock
        self._logged: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()
        self.total = 0

    def add(self, about: Hashable, text: str, *, error: BaseException | None = None) -> None:
        """Count a fault, and log its text unless one about the same was logged within `EVERY_S`. An `error` comes with
        its traceback.
        """
        now = self._clock()
        with self._lock:
            self.total += 1
            logged_at, unlogged = self._logged.get(about, (None, 0))
            is_due = logged_at is None or now - logged_at >= EVERY_S
            self._logged[about] = (now, 0) if is_due or logged_at is None else (logged_at, unlogged + 1)
            while len(self._logged) > MOST_REMEMBERED:
                self._logged.popitem(last=False)
        if is_due:
            more = f" (and {unlogged} more like it)" if unlogged else ""
            level = logging.WARNING if error is None else logging.ERROR
            self._log.log(level, "%s%s", shortened(text), more, exc_info=error)
