"""The journal: what a crash leaves of it, and how large it gets."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from broker.session import Delivery
from nodes.tier.durable_file import write_whole
from nodes.tier.journal import ANSWERED_KEPT, TIDY_BYTES, Earlier, Journal


def journal(folder: Path, *, token: str = "t1", limit_bytes: int = 1 << 24) -> Journal:
    return Journal(folder / "cam.journal", token, limit_bytes=limit_bytes)


def delivery(packet_id: int, fingerprint: int = 0, *, generation: int = 0, again: bool = False) -> Delivery:
    return Delivery(packet_id, generation, fingerprint, again)


def unfinished(found: Journal) -> list[int]:
    return [frame.sequence for frame in found.unfinished()]


def test_frames_without_an_answer_come_back_in_order_with_sequence_and_position(tmp_path: Path) -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    with journal(tmp_path) as first:
        first.entered(7, "a.jpg", 1, b"seven")
        first.entered(8, "b.jpg", 2, b"eight")
        first.entered(9, "camera#2", 3, image)
        first.answered(8)
        first.answered(8)
    again = journal(tmp_path)
    frames = again.unfinished()
    assert [(frame.sequence, frame.source) for frame in frames] == [(7, "a.jpg"), (9, "camera#2")]
    assert frames[0].payload == b"seven"
    assert np.array_equal(frames[1].payload, image)
    assert again.position == 3


def test_what_the_broker_turns_out_to_have_is_not_taken_up_again(tmp_path: Path) -> None:
    with journal(tmp_path) as first:
        first.entered(1, "a", 1, b"one")
        first.entered(2, "b", 2, b"two")
    again = journal(tmp_path)
    again.answered(1)
    assert unfinished(again) == [2]


def test_a_frame_that_is_delivered_again_is_known_by_its_sequence_and_whether_it_was_answered(tmp_path: Path) -> None:
    with journal(tmp_path) as first:
        first.delivered(1, delivery(11, 100))
        first.delivered(2, delivery(12, 200))
        first.answered(1)
    again = journal(tmp_path, token="t2")
    assert again.unfinished() == []
    assert again.earlier(delivery(11, 100, again=True)) == Earlier(1, is_answered=True)
    assert again.earlier(delivery(12, 200, again=True)) == Earlier(2, is_answered=False)
    assert again.earlier(delivery(12, 200, again=True)) is None


def test_other_deliveries_are_new(tmp_path: Path) -> None:
    with journal(tmp_path) as first:
        first.delivered(1, delivery(11, 100))
    again = journal(tmp_path, token="t2")
    for other in (
        delivery(11, 100),
        delivery(11, 101, again=True),
        delivery(13, 100, again=True),
        delivery(11, 100, generation=1, again=True),
    ):
        assert again.earlier(other) is None


def test_packet_ids_of_a_session_that_the_broker_forgot_mean_nothing(tmp_path: Path) -> None:
    with journal(tmp_path) as first:
        first.delivered(1, delivery(11, 100))
        first.delivered(2, delivery(11, 300, generation=1))
    again = journal(tmp_path, token="t2")
    assert again.earlier(delivery(11, 100, again=True)) is None
    assert again.earlier(delivery(11, 300, again=True)) == Earlier(2, is_answered=False)


def test_deliveries_are_known_over_several_processes(tmp_path: Path) -> None:
    with journal(tmp_path) as first:
        first.delivered(1, delivery(11, 100, generation=1))
    with journal(tmp_path, token="t2") as second:
        assert second.earlier(delivery(11, 100, again=True)) == Earlier(1, is_answered=False)
        second.delivered(1, delivery(11, 100, again=True))
        second.delivered(1_000_001, delivery(12, 200))
    third = journal(tmp_path, token="t3")
    assert third.earlier(delivery(11, 100, again=True)) == Earlier(1, is_answered=False)
    assert third.earlier(delivery(12, 200, again=True)) == Earlier(1_000_001, is_answered=False)


@pytest.mark.parametrize("cut", [1, 5, 13, 20])
def test_a_torn_tail_costs_only_the_last_record(tmp_path: Path, cut: int) -> None:
    with journal(tmp_path) as first:
        first.entered(1, "a", 1, b"one")
        first.entered(2, "b", 2, b"two" * 5)
    path = tmp_path / "cam.journal"
    path.write_bytes(path.read_bytes()[:-cut])
    again = journal(tmp_path)
    assert unfinished(again) == [1]
    assert again.position == 1


def test_a_flipped_bit_or_nonsense_ends_the_reading_without_an_error(tmp_path: Path) -> None:
    with journal(tmp_path) as first:
        first.entered(1, "a", 1, b"one")
        first.entered(2, "b", 2, b"two")
    path = tmp_path / "cam.journal"
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    assert unfinished(journal(tmp_path)) == [1]
    path.write_bytes(b"\xff" * 100)
    assert unfinished(journal(tmp_path)) == []


def test_answered_frames_do_not_fill_the_disk(tmp_path: Path) -> None:
    payload = b"x" * (TIDY_BYTES // 8)
    with journal(tmp_path) as first:
        for sequence in range(64):
            first.entered(sequence, "a", sequence, payload)
            first.answered(sequence)
            assert (tmp_path / "cam.journal").stat().st_size <= 2 * (TIDY_BYTES + len(payload))
        give_up = time.monotonic() + 60.0  # it is rewritten by a thread of its own
        while (tmp_path / "cam.journal").stat().st_size > TIDY_BYTES + len(payload) + 100:
            assert time.monotonic() < give_up, "it is not rewritten"
            time.sleep(0.01)
    assert [path.name for path in tmp_path.iterdir()] == ["cam.journal"]
    assert journal(tmp_path).position == 63


def test_what_is_recorded_while_the_journal_is_rewritten_is_in_the_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = b"x" * (TIDY_BYTES // 4)
    begun, may_end = threading.Event(), threading.Event()

    def slow(path: Path, data: bytes) -> int:
        size = write_whole(path, data)
        begun.set()
        assert may_end.wait(30.0)
        return size

    with journal(tmp_path) as first:
        monkeypatch.setattr("nodes.tier.journal.write_whole", slow)
        first.entered(0, "open", 0, b"still open")
        for sequence in range(1, 5):
            first.entered(sequence, "a", sequence, payload)
            first.answered(sequence)
        assert begun.wait(30.0)
        first.entered(6, "b", 6, b"meanwhile")
        first.answered(0)
        first.entered(7, "c", 7, b"answered meanwhile")
        first.answered(7)
        may_end.set()
    assert (tmp_path / "cam.journal").stat().st_size < 1_000
    again = journal(tmp_path)
    assert unfinished(again) == [6]
    assert again.position == 7


def test_a_rewriting_that_fails_loses_nothing_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = threading.Event()

    def full(path: Path, data: bytes) -> int:
        path.write_bytes(data[:10])
        tried.set()
        raise OSError(28, "No space left on device")

    with journal(tmp_path) as first:
        monkeypatch.setattr("nodes.tier.journal.write_whole", full)
        for sequence in range(1, 6):
            first.entered(sequence, "a", sequence, b"x" * (TIDY_BYTES // 4))
            first.answered(sequence)
        assert tried.wait(30.0)
        first.entered(6, "b", 6, b"last")
    assert [path.name for path in tmp_path.iterdir()] == ["cam.journal"]
    monkeypatch.undo()
    assert unfinished(journal(tmp_path)) == [6]


def test_answered_deliveries_are_kept_for_a_while_and_not_for_ever(tmp_path: Path) -> None:
    count = 10 * ANSWERED_KEPT
    with journal(tmp_path) as first:
        for sequence in range(count):
            first.delivered(sequence, delivery(sequence, sequence))
            first.answered(sequence)
    with journal(tmp_path):
        pass
    assert (tmp_path / "cam.journal").stat().st_size < 150 * ANSWERED_KEPT
    again = journal(tmp_path)
    last = count - ANSWERED_KEPT
    assert again.earlier(delivery(last, last, again=True)) == Earlier(last, is_answered=True)
    assert again.earlier(delivery(last - 1, last - 1, again=True)) is None


def test_a_frame_beyond_the_limit_is_not_remembered_and_those_before_it_are(tmp_path: Path) -> None:
    with journal(tmp_path, limit_bytes=3000) as first:
        for sequence in range(5):
            first.entered(sequence, "a", sequence, b"x" * 1000)
    assert (tmp_path / "cam.journal").stat().st_size <= 3000
    assert unfinished(journal(tmp_path)) == [0, 1]


def test_a_source_that_ended_begins_anew(tmp_path: Path) -> None:
    with journal(tmp_path) as first:
        first.entered(1, "a", 5, b"one")
        first.source_ended()
    assert journal(tmp_path).position == 0


def _damaged() -> dict[str, bytes]:
    import msgpack
    import xxhash

    def record(value: object) -> bytes:
        body = value if isinstance(value, bytes) else bytes(msgpack.packb(value))
        return len(body).to_bytes(4, "little") + xxhash.xxh3_64_intdigest(body).to_bytes(8, "little") + body

    values: list[object] = [
        *(5, "x", None, [], ["frame"], ["frame", "x"], ["frame", 1, 2], ["other", 1], [["frame"], 1], {"frame": 1}),
        *(["frame", 1, "a", -1, b"x"], ["frame", 1, "a", 1, ["O", [1], b"12345678"]], ["frame", 1, "a", 1, 7]),
        *(["frame", 1, "a", 1, ["f4," * 9_000, [1], b"1"]], ["frame", 1, "a", 1, ["<f4", [1 << 60, 1 << 60], b"1234"]]),
        *(["delivered", 1, "s", [], 3], ["delivered", [1], "s", 1, 3], ["position", "far"], ["position", -4]),
        *(["position", True], b"\xc1", b"", b"\x91" * 600, ["answered", {}]),
    ]
    return {str(value)[:40]: record(value) for value in values}


@pytest.mark.parametrize("kind", _damaged())
def test_a_journal_with_a_record_that_is_none_stops_no_start_and_keeps_the_others(tmp_path: Path, kind: str) -> None:
    with journal(tmp_path) as first:
        first.entered(7, "a.jpg", 1, b"seven")
    with (tmp_path / "cam.journal").open("ab") as file:
        file.write(_damaged()[kind])
    with journal(tmp_path) as again:
        again.entered(8, "b.jpg", 2, b"eight")
    assert unfinished(journal(tmp_path)) == [7, 8]


def test_a_journal_is_its_users_alone(tmp_path: Path) -> None:
    (tmp_path / "cam.journal").write_bytes(b"")
    (tmp_path / "cam.journal").chmod(0o644)
    with journal(tmp_path) as first:
        first.entered(1, "a", 1, b"photo")
        assert (tmp_path / "cam.journal").stat().st_mode & 0o777 == 0o600


def test_a_write_that_failed_in_the_middle_hides_no_later_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import os

    write = os.write
    room = [40]

    def full(file: int, data: memoryview) -> int:
        if room[0] <= 0:
            raise OSError(28, "No space left on device")
        written = write(file, data[: room[0]])
        room[0] -= written
        return written

    with journal(tmp_path) as first:
        assert first.entered(1, "a", 1, b"one")
        monkeypatch.setattr(os, "write", full)
        assert not first.entered(2, "b", 2, bytes(1_000))
        assert not first.delivered(3, delivery(11, 100))
        monkeypatch.setattr(os, "write", write)
        assert first.entered(4, "d", 4, b"four")
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
    assert "frames are answered all the same" in caplog.text
    assert unfinished(journal(tmp_path)) == [1, 4]


def test_on_a_full_disk_what_is_answered_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    write = os.write
    limit = 10_000

    def full(file: int, data: memoryview) -> int:
        room = limit - os.fstat(file).st_size
        if room <= 0:
            raise OSError(28, "No space left on device")
        return write(file, data[:room])

    def no_second_file(self: Journal) -> None:
        raise OSError(28, "No space left on device")

    with journal(tmp_path) as first:
        monkeypatch.setattr(os, "write", full)
        monkeypatch.setattr(Journal, "_rewrite", no_second_file)
        for sequence in range(1, 50):
            first.entered(sequence, "a", sequence, bytes(1_000))
            first.answered(sequence)
        first.entered(50, "b", 50, b"last")
    again = journal(tmp_path)  # nor is a second file needed to start
    assert unfinished(again) == [50]
    assert again.position == 50


@pytest.mark.parametrize("there", ["a file where the folder should be", "a folder where the file should be"])
def test_where_no_journal_can_be_kept_the_device_starts_and_says_so_once(
    tmp_path: Path, there: str, caplog: pytest.LogCaptureFixture
) -> None:
    if there.startswith("a file"):
        (tmp_path / "state").write_text("")
    else:
        (tmp_path / "state" / "cam.journal" / "x").mkdir(parents=True)
    with journal(tmp_path / "state") as found:
        for sequence in (1, 2):
            found.entered(sequence, "a", sequence, b"x")
            found.answered(sequence)
        found.source_ended()
    assert sum("cannot be written" in record.message for record in caplog.records) == 1
