"""`trisect publish`: files become frames of a stream, and each gives its result, or it is said where they were lost."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from broker.errors import BrokerError
from nodes.client.answers import Answer
from nodes.client.client import Client
from nodes.client.requests import RequestRefused
from nodes.config.sections import Config
from pipeline.errors import TrisectError
from pipeline.plan import StreamId


def publish(
    config: Config, stream: StreamId, files: Sequence[Path], *, rate_hz: float | None, timeout_s: float
) -> Iterator[dict[str, Any]]:
    """Publish files as frames, and yield the result of each as it comes.

    Raises ConfigError for a file that cannot be read and FrameError for one that is too large, both after the results
    of those before it; RequestRefused when results stay away for `timeout_s`, or as soon as it is known that the broker
    has dropped frames or their results.
    """
    done: queue.SimpleQueue[Future[Answer]] = queue.SimpleQueue()
    with Client(config, stream, timeout_s=timeout_s) as client:
        open_frames, next_at = 0, time.monotonic()
        broken: TrisectError | None = None
        for file in files:
            for result in _results_until(next_at, done):
                open_frames -= 1
                yield result
            next_at = time.monotonic() + (1.0 / rate_hz if rate_hz else 0.0)
            try:
                client.submit(file, name=file.name).add_done_callback(done.put)
            except TrisectError as error:
                broken = RequestRefused(f"{file}: {error}") if isinstance(error, BrokerError) else error
                break  # after the results of what is sent already
            open_frames += 1
        for _ in range(open_frames):
            yield dict(done.get().result().result)
        if broken is not None:
            raise broken


def _results_until(at: float, done: queue.SimpleQueue[Future[Answer]]) -> Iterator[dict[str, Any]]:
    """Results that come up to this time of the monotonic clock; those that have come already at once."""
    with contextlib.suppress(queue.Empty):
        while True:
            yield dict(done.get(timeout=max(0.0, at - time.monotonic())).result().result)
