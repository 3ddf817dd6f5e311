"""Puts a stream under load: so many frames out at once, or so many a second; measures until it is stable."""

from __future__ import annotations

import itertools
import queue
import random
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from nodes.client.answers import Answer
from nodes.client.client import Client
from nodes.load.measuring import STABLE_WINDOWS, Sample, Window, breakdown, is_stable, summary, together
from nodes.load.observed import Observed
from pipeline.errors import TrisectError

MOST_WAITING: Final = 1_000
"""Frames out at a given rate: above it the pipeline is overloaded, and more would only fill the broker."""


class NotAnswered(TrisectError):
    """Frames stay without an answer, so that there is nothing to measure."""


@dataclass(frozen=True, slots=True)
class Level:
    """One level of load: `concurrency` frames out at once, or `rate_hz` frames a second, evenly or at random."""

    concurrency: int | None = None
    rate_hz: float | None = None
    is_poisson: bool = False

    @property
    def label(self) -> str:
        """For people."""
        if self.rate_hz is None:
            return f"{self.concurrency} at once"
        return f"{self.rate_hz:g} a second" + (", at random" if self.is_poisson else "")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is measured: seconds of warm-up and of a window, at most so many windows, and what counts as stable."""

    warm_up_s: float = 3.0
    window_s: float = 5.0
    most_windows: int = 10
    stable_share: float = 0.1
    answer_s: float = 60.0


class LoadTest:
    """Load on one stream through a client that is open."""

    def __init__(
        self, client: Client, observed: Observed, frames: Sequence[bytes], patience: Patience, *, seed: int = 0
    ) -> None:
        self._client, self._observed, self._patience = client, observed, patience
        self._frames = itertools.cycle(frames)
        self._random = random.Random(seed)
        self._done: queue.SimpleQueue[tuple[float, float, Future[Answer]]] = queue.SimpleQueue()
        self._out = 0

    def run(self, level: Level, told: Callable[[Window], None] = lambda window: None) -> dict[str, Any]:
        """Measure one level; `told` is called with each window. Raises NotAnswered, and what the client raises."""
        began = time.monotonic()
        feed = self._at_rate(level) if level.rate_hz is not None else self._at_once(level.concurrency or 1)
        next(feed)
        self._collect(feed, began + self._patience.warm_up_s)
        windows: list[Window] = []
        self._observed.mark()
        while len(windows) < self._patience.most_windows and not is_stable(windows, self._patience.stable_share):
            start = time.monotonic()
            samples = self._collect(feed, start + self._patience.window_s)
            windows.append(Window(start, time.monotonic(), tuple(samples)))
            told(windows[-1])
        feed.close()
        kept = windows[-STABLE_WINDOWS:]
        whole = together(kept)
        found = {
            "label": level.label,
            "concurrency": level.concurrency,
            "rate_hz": level.rate_hz,
            "is_stable": is_stable(windows, self._patience.stable_share),
            "windows": [{"frames_per_second": w.frames_per_second, "latency_seconds": w.latency_seconds} for w in kept],
            **summary(whole),
            "device": self._observed.rate(whole.began_at, whole.ended_at),
            "breakdown": breakdown(whole, self._observed.plans),
            "client_latencies": thinned(sorted(s.client_seconds for s in whole.samples if s.ok)),
        }
        self._await_rest()
        return found

    def _at_once(self, concurrency: int) -> Generator[float | None, None, None]:
        """Each step sends what is missing; yields nothing to wait for but answers."""
        while True:
            while self._out < concurrency:
                self._send(time.monotonic())
            yield None

    def _at_rate(self, level: Level) -> Generator[float | None, None, None]:
        """Each step sends what is due; yields when the next frame is. One that cannot leave in time is late, not left
        out: its latency counts from when it was due.
        """
        assert level.rate_hz is not None
        due_at = time.monotonic()
        while True:
            while due_at <= time.monotonic() and self._out < MOST_WAITING:
                self._send(due_at)
                due_at += self._random.expovariate(level.rate_hz) if level.is_poisson else 1.0 / level.rate_hz
            yield due_at

    def _send(self, due_at: float) -> None:
        self._out += 1
        future = self._client.submit(next(self._frames))
        future.add_done_callback(partial(self._answered, due_at))

    def _answered(self, due_at: float, future: Future[Answer]) -> None:
        self._done.put((due_at, time.monotonic(), future))

    def _collect(self, feed: Iterator[float | None], until: float) -> list[Sample]:
        """Send and take answers until then. Raises NotAnswered when none comes for too long."""
        found: list[Sample] = []
        quiet_since = time.monotonic()
        while (now := time.monotonic()) < until:
            due_at = next(feed)
            wait_s = min(until, due_at if due_at is not None else until) - now
            try:
                found.append(self._sample(self._done.get(timeout=max(0.0, wait_s))))
                quiet_since = time.monotonic()
            except queue.Empty:
                if self._out and time.monotonic() - quiet_since > self._patience.answer_s:
                    raise NotAnswered(
                        f"{self._out} frames have no answer after {self._patience.answer_s:.0f} s; "
                        "see `trisect watch` for what is missing"
                    ) from None
        return found

    def _sample(self, done: tuple[float, float, Future[Answer]]) -> Sample:
        due_at, done_at, future = done
        self._out -= 1
        return Sample(due_at, done_at, future.result().result)

    def _await_rest(self) -> None:
        """Take what is still out, so that the next level begins with nothing."""
        give_up = time.monotonic() + self._patience.answer_s
        while self._out and (left_s := give_up - time.monotonic()) > 0:
            try:
                self._sample(self._done.get(timeout=left_s))
            except queue.Empty:
                break
        if self._out:
            raise NotAnswered(f"{self._out} frames have no answer after {self._patience.answer_s:.0f} s")


MOST_LATENCIES: Final = 500


def thinned(ordered: Sequence[float]) -> list[float]:
    """At most MOST_LATENCIES of sorted values, evenly by rank, both ends included: enough for a curve."""
    count = min(len(ordered), MOST_LATENCIES)
    if count < 2:  # noqa: PLR2004  # no way between two ends
        return [round(value, 6) for value in ordered]
    return [round(ordered[round(i * (len(ordered) - 1) / (count - 1))], 6) for i in range(count)]
