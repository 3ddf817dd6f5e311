"""Which frame a result answers."""

from __future__ import annotations

import pytest
import xxhash

from nodes.client.answers import Answer, ClientClosed
from nodes.client.open_frames import OpenFrames


def digest(payload: bytes) -> str:
    return xxhash.xxh3_64_hexdigest(payload)


def test_a_result_answers_its_frame_once() -> None:
    frames = OpenFrames()
    frame = frames.add("a#0", b"photo")
    result = {"correlation": "a#0", "frame": digest(b"photo")}
    assert frames.take(result) is frame
    assert frames.take(result) is None
    assert len(frames) == 0


def test_a_result_of_other_bytes_under_the_same_correlation_is_another_publishers() -> None:
    frames = OpenFrames()
    frames.add("a#0", b"photo")
    assert frames.take({"correlation": "a#0", "frame": digest(b"other")}) is None
    assert frames.take({"correlation": "b#0", "frame": digest(b"photo")}) is None
    assert len(frames) == 1


def test_a_result_that_lost_its_correlation_over_a_bridge_is_known_by_the_frames_digest() -> None:
    frames = OpenFrames()
    first, second = frames.add("a#0", b"same"), frames.add("a#1", b"same")
    assert frames.take({"frame": digest(b"same")}) is first
    assert frames.take({"frame": digest(b"same")}) is second


def test_an_end_reaches_all_open_frames_but_those_cancelled() -> None:
    frames = OpenFrames()
    first, second = frames.add("a#0", b"1"), frames.add("a#1", b"2")
    second.future.cancel()
    frames.end(ClientClosed("closed"))
    with pytest.raises(ClientClosed, match="closed"):
        first.future.result(0)
    assert not frames.is_quiet(0.0)


def test_a_frame_that_was_not_sent_is_not_counted() -> None:
    frames = OpenFrames()
    frames.forget(frames.add("a#0", b"1"))
    assert (frames.sent, len(frames)) == (0, 0)


def test_an_answered_frame_ends_the_quiet_of_the_others() -> None:
    frames = OpenFrames()
    frames.add("a#0", b"1")
    frames.quiet_since = 0.0
    assert frames.is_quiet(1.0)
    answered = frames.add("a#1", b"2")
    frames.take({"correlation": "a#1"})
    assert not frames.is_quiet(1_000.0)
    answered.future.set_result(Answer("camera", 1, {}))
