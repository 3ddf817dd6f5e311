"""A thread's faults cost the piece of work at hand, and its end waits no longer than it is told to."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from broker.wake import Wake
from nodes.session.guard import Guard
from nodes.session.worker_thread import Worker


def test_a_worker_goes_on_after_its_work_and_its_report_of_that_have_failed() -> None:
    done = threading.Event()

    def work(item: int) -> None:
        if item:
            raise ValueError(item)
        done.set()

    def on_error(item: int, error: Exception) -> None:
        raise KeyError(item)

    worker = Worker("w", work, on_error=on_error)
    worker.start()
    worker.put(1)
    worker.put(0)
    assert done.wait(10.0)
    assert worker.failures.total == 2
    worker.stop()


def test_a_worker_that_is_stuck_behind_a_full_queue_is_left_in_time() -> None:
    gate = threading.Event()

    def wait_for(event: threading.Event) -> None:
        event.wait()

    worker: Worker[threading.Event] = Worker("w", wait_for, limit=2)
    worker.start()
    for _ in range(3):
        worker.put(gate)
    began = time.monotonic()
    worker.stop(wait_s=0.2)
    assert time.monotonic() - began < 5.0
    gate.set()


def test_what_a_posted_call_raises_is_not_taken_for_an_empty_queue() -> None:
    wake, ran = Wake(), list[str]()

    def fails() -> None:
        raise IndexError("of the call's own")

    wake.post(fails)
    wake.post(lambda: ran.append("after"))
    with pytest.raises(IndexError):
        wake.run_posted()
    wake.run_posted()
    assert ran == ["after"]
    wake.close()


def test_a_guard_drops_the_event_that_raised_counts_it_and_says_it_in_few_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    guard = Guard(logging.getLogger("t"), "edge-1")
    for _ in range(3):
        with guard.over("x" * 9_000_000):
            raise KeyError("k")
    assert guard.total == 3
    (record,) = caplog.records
    assert "edge-1: a fault of trisect" in record.getMessage()
    assert len(record.getMessage()) < 1_000
