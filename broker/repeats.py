"""One message that comes as two: a bridge, or a broker that was restarted, may send it again under another packet id.

Its number (`broker.numbering`) and its contents tell. Without a number nothing does: two equal photos are two frames.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from typing import Final, TypeAlias

REMEMBERED: Final = 4_096

Finish: TypeAlias = Callable[[], None]


class Repeats:
    """Thread safe. A repeat is finished (acknowledged) with the message that it repeats, and no sooner."""

    def __init__(self) -> None:
        self._open: OrderedDict[Hashable, list[Finish] | None] = OrderedDict()
        self._lock = threading.Lock()

    def first(self, key: Hashable, finish: Finish) -> Finish | None:
        """What finishes this message and its repeats; None when it is a repeat itself."""
        with self._lock:
            if key not in self._open:
                self._open[key] = [finish]
                while len(self._open) > REMEMBERED:
                    self._open.popitem(last=False)
                return partial(self._finished, key, finish)
            waiting = self._open[key]
            if waiting is not None:
                waiting.append(finish)
                return None
        finish()
        return None

    def _finished(self, key: Hashable, finish: Finish) -> None:
        with self._lock:
            waiting = self._open.get(key, [finish])
            if key in self._open:
                self._open[key] = None
        for each in waiting or ():
            each()
