"""`trisect watch`: listens to what nodes tell, and shows it live, once, or as JSON. No TensorFlow."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console
from rich.live import Live

from broker.errors import BrokerError, BrokerRefused
from broker.session import Message
from broker.topics import Namespace
from nodes.config.sections import Config
from nodes.display.screen import Screen
from nodes.session.presence import guest_session
from nodes.watch.overview import Overview, to_json
from nodes.watch.overview.view import render

REFRESH_S = 0.25
POLL_S = 0.05
QUIET_S = 0.5
REPORT_GRACE_S = 0.5
DROPPED = "$SYS/broker/publish/messages/dropped"
"""Where mosquitto counts what it threw away; another broker may have no such topic."""


def snapshot(config: Config, *, timeout_s: float) -> dict[str, Any]:
    """All that is known of the pipeline after listening for a moment. Raises BrokerRefused, BrokerUnreachable."""
    with _quiet("broker"), _Watcher(config) as watcher:
        watcher.settle(timeout_s)
        return watcher.overview.snapshot(time.monotonic())


def run(config: Config, *, once: bool, as_json: bool, timeout_s: float, console: Console | None = None) -> list[str]:
    """Show the pipeline until Ctrl-C; with `once` or `as_json` print one view and end.

    Returns what that view shows to be wrong: nodes of the configuration that are not there, streams that do not run.
    Raises BrokerRefused, and with `once` BrokerUnreachable when no broker answers within `timeout_s`. Live, it waits.
    """
    console = console or Screen()
    with _quiet("broker"), _Watcher(config) as watcher:
        if once or as_json:
            watcher.settle(timeout_s)
            seen = watcher.overview.snapshot(time.monotonic())
            if as_json:
                console.file.write(to_json(seen) + "\n")
            else:
                console.print(render(seen))
            problems: list[str] = seen["problems"]
            return problems
        with suppress(KeyboardInterrupt):
            watcher.live(console)
    return []


class _Watcher:
    """A session, and an overview that is fed in the caller's thread."""

    def __init__(self, config: Config) -> None:
        self.overview = Overview(config)
        self._interval_s = config.telemetry.interval_s
        self._names = Namespace(config.pipeline)
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._retained_at = 0.0
        self._session = guest_session(config, "watch")
        for kind in self.overview.kinds:
            # what is not retained is not missed: a broker must not queue it for a watcher who is away
            self._session.subscribe([self._names.filter(kind)], self._inbox.put, qos=1 if kind.retain else 0)
        self._session.subscribe([DROPPED], self._inbox.put, qos=0)

    def __enter__(self) -> _Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.stop()

    def settle(self, timeout_s: float) -> None:
        """Listen until retained messages have come and each ready node has reported, or time is over."""
        began = time.monotonic()
        self._session.start(timeout_s)
        self._retained_at = up_at = time.monotonic()
        give_up = max(began + timeout_s, up_at + QUIET_S)
        reported_by = min(give_up, up_at + self._interval_s + REPORT_GRACE_S)
        self.overview.connection(up_at, up=True)
        while (now := time.monotonic()) < give_up:
            self._collect(POLL_S)
            reported = now >= reported_by or self.overview.all_reported()
            if now - self._retained_at >= QUIET_S and reported:
                break
        self.overview.connection(time.monotonic(), up=self._session.is_up)

    def live(self, console: Console) -> None:
        """Draw until interrupted. Raises BrokerRefused, which waiting would not cure."""
        with Live(console=console, auto_refresh=False) as screen:
            while True:
                self._connect()
                screen.update(render(self.overview.snapshot(time.monotonic())), refresh=True)
                self._collect(REFRESH_S)

    def _connect(self) -> None:
        why = ""
        try:
            self._session.start(0.0 if self._session.is_up else REFRESH_S)
        except BrokerRefused as error:
            if error.lasting:
                raise
            why = str(error)
        except BrokerError as error:
            why = str(error)
        self.overview.connection(time.monotonic(), up=not why, why=why)

    def _collect(self, wait_s: float) -> None:
        """Take what comes within `wait_s`."""
        until = time.monotonic() + wait_s
        while (left_s := until - time.monotonic()) > 0:
            try:
                message = self._inbox.get(timeout=left_s)
            except queue.Empty:
                return
            now = time.monotonic()
            if message.retain:
                self._retained_at = now
            parsed = self._names.parse(message.topic)
            if parsed is not None:
                self.overview.learn(*parsed, message.payload, now)
            elif message.topic == DROPPED:
                self.overview.learn_dropped(message.payload)


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep a package's log off the screen: the view says what it would say."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
