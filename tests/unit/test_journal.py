"""The journal: what a crash leaves of it, and how large it gets."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nodes.journal import TIDY_BYTES, Journal


def wait(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 5.0
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def journal(folder: Path, *, delivered: bool = True, limit_bytes: int = 1 << 24) -> Journal:
    return Journal(folder / "cam.journal", lambda: delivered, limit_bytes=limit_bytes)


def test_frames_without_an_answer_come_back_in_order_with_sequence_and_position(tmp_path: Path) -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    with journal(tmp_path) as first:
        first.entered(7, "a.jpg", 1, b"seven")
        first.entered(8, "b.jpg", 2, b"eight")
        first.entered(9, "camera#2", 3, image)
        first.answered(8)
    again = journal(tmp_path)
    assert [(frame.sequence, frame.source) for frame in again.unfinished] == [(7, "a.jpg"), (9, "camera#2")]
    assert again.unfinished[0].payload == b"seven"
    assert np.array_equal(again.unfinished[1].payload, image)
    assert again.position == 3


def test_an_answer_that_the_broker_does_not_have_closes_nothing(tmp_path: Path) -> None:
    with journal(tmp_path, delivered=False) as first:
        first.entered(1, "a", 1, b"one")
        first.answered(1)
    assert [frame.sequence for frame in journal(tmp_path).unfinished] == [1]


@pytest.mark.parametrize("cut", [1, 5, 13, 20])
def test_a_torn_tail_costs_only_the_last_record(tmp_path: Path, cut: int) -> None:
    with journal(tmp_path) as first:
        first.entered(1, "a", 1, b"one")
        first.entered(2, "b", 2, b"two" * 5)
    path = tmp_path / "cam.journal"
    path.write_bytes(path.read_bytes()[:-cut])
    again = journal(tmp_path)
    assert [frame.sequence for frame in again.unfinished] == [1]
    assert again.position == 1


def test_a_flipped_bit_or_nonsense_ends_the_reading_without_an_error(tmp_path: Path) -> None:
    with journal(tmp_path) as first:
        first.entered(1, "a", 1, b"one")
        first.entered(2, "b", 2, b"two")
    path = tmp_path / "cam.journal"
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    assert [frame.sequence for frame in journal(tmp_path).unfinished] == [1]
    path.write_bytes(b"\xff" * 100)
    assert journal(tmp_path).unfinished == []


def test_closed_frames_do_not_fill_the_disk(tmp_path: Path) -> None:
    payload = b"x" * (TIDY_BYTES // 8)
    with journal(tmp_path) as first:
        for sequence in range(64):
            first.entered(sequence, "a", sequence, payload)
            first.answered(sequence)
            wait(lambda: not first._open)
    assert (tmp_path / "cam.journal").stat().st_size <= TIDY_BYTES + len(payload) + 100
    assert journal(tmp_path).position == 63


def test_a_frame_beyond_the_limit_is_not_remembered_and_those_before_it_are(tmp_path: Path) -> None:
    with journal(tmp_path, limit_bytes=3000) as first:
        for sequence in range(5):
            first.entered(sequence, "a", sequence, b"x" * 1000)
    assert (tmp_path / "cam.journal").stat().st_size <= 3000
    assert [frame.sequence for frame in journal(tmp_path).unfinished] == [0, 1]


def test_a_source_that_ended_begins_anew(tmp_path: Path) -> None:
    with journal(tmp_path) as first:
        first.entered(1, "a", 5, b"one")
        first.source_ended()
    assert journal(tmp_path).position == 0
