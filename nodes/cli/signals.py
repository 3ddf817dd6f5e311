"""Ctrl-C and SIGTERM as the end of a command that writes down what it has first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stopped_by_signals(stop: Callable[[], None] = lambda: None) -> Iterator[threading.Event]:
    """Call `stop` and set the event at the first signal; the second one interrupts."""
    stopped = threading.Event()
    names = (signal.SIGTERM, signal.SIGINT)
    before = {name: signal.getsignal(name) for name in names}

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()
        stop()

    for name in names:
        signal.signal(name, on_signal)
    try:
        yield stopped
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
