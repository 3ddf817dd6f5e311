"""Recordings: what was written is read, up to a cut, and nothing else is believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import pytest
import zstandard

from broker.topics import LARGEST_PACKET
from nodes.instruments.record import configuration_of
from nodes.instruments.recording import FORMAT, VERSION, Header, Recorded, Recording, RecordingError, RecordingWriter

HEADER = Header("demo", "pipeline: demo\n", 1e9, "0.1.0")
TOPIC = "trisect/v1/demo/node/edge-1/telemetry"


def written(path: Path, payloads: list[bytes]) -> Path:
    with RecordingWriter(path, HEADER) as writer:
        for payload in payloads:
            writer.add(TOPIC, payload, retain=False)
            writer.flush()
    return path


def packed(path: Path, *values: Any) -> Path:
    path.write_bytes(zstandard.compress(b"".join(msgpack.packb(value) for value in values)))
    return path


def read(path: Path) -> tuple[Recording, list[Recorded]]:
    with Recording(path) as recording:
        return recording, list(recording)


PLAIN = {
    "format": FORMAT,
    "version": VERSION,
    "pipeline": "demo",
    "configuration": "",
    "started_ts": 1.0,
    "trisect": "0",
}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    payloads = [b"{}", bytes(range(256)) * 5000, b""]
    recording, found = read(written(tmp_path / "file", payloads))
    assert recording.header == HEADER
    assert not recording.is_cut
    assert [message.payload for message in found] == payloads
    assert {message.topic for message in found} == {TOPIC}
    assert sorted(message.at for message in found) == [message.at for message in found]


def test_a_file_that_was_cut_off_is_read_up_to_the_cut(tmp_path: Path) -> None:
    payloads = [f"{number}".encode() * 50 for number in range(20)]
    whole = written(tmp_path / "file", payloads).read_bytes()
    lengths: list[int] = []
    for end in range(200, len(whole), 7):
        (tmp_path / "cut").write_bytes(whole[:end])
        try:
            recording, found = read(tmp_path / "cut")
        except RecordingError:
            assert not lengths  # only where not even the header is whole
            continue
        assert [message.payload for message in found] == payloads[: len(found)]
        assert recording.is_cut
        lengths.append(len(found))
    assert lengths == sorted(lengths)
    assert lengths[-1] == len(payloads)


def test_a_recorder_that_was_killed_leaves_a_file_to_read(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "file", HEADER) as writer:
        writer.add(TOPIC, b"before", retain=True)
        writer.flush()
        writer.add(TOPIC, b"after the last flush", retain=True)
        (tmp_path / "copy").write_bytes((tmp_path / "file").read_bytes())
    recording, (message,) = read(tmp_path / "copy")
    assert (message.payload, message.retain, recording.is_cut) == (b"before", True, True)


@pytest.mark.parametrize("content", [b"", b"no recording", zstandard.compress(b"\xc1"), zstandard.compress(b"text")])
def test_another_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(RecordingError, match="not a recording"):
        read(tmp_path / "file")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="missing: cannot be read: No such file"):
        read(tmp_path / "missing")


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"version": 2}, "a recording of version 2; this trisect reads version 1"),
        ({"format": "another"}, "not a recording that `trisect record` has made"),
        ({"pipeline": "A B"}, "pipeline"),
        ({"started_ts": "now"}, "started_ts"),
    ],
)
def test_a_header_that_cannot_be_is_named(changed: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=problem):
        read(packed(tmp_path / "file", {**PLAIN, **changed}))


@pytest.mark.parametrize(
    "message",
    [
        [1.0, TOPIC, b"", False, 5],
        [float("nan"), TOPIC, b"", False],
        [-1.0, TOPIC, b"", False],
        [1e300, TOPIC, b"", False],
        [1.0, TOPIC, "text", False],
        [1.0, b"topic", b"", False],
        [1.0, "t" * 70_000, b"", False],
        {"at": 1.0},
    ],
)
def test_a_message_that_cannot_be_is_refused(message: Any, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="not a"):
        read(packed(tmp_path / "file", PLAIN, message))


def test_time_does_not_go_back(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="not a message"):
        read(packed(tmp_path / "file", PLAIN, [2.0, TOPIC, b"", False], [1.0, TOPIC, b"", False]))


def claiming(nbytes: int) -> bytes:
    """A header, and a message that claims a payload of so many bytes, without the payload."""
    start = b"\x94\x01" + msgpack.packb(TOPIC) + b"\xc6" + nbytes.to_bytes(4, "big")
    return bytes(msgpack.packb(PLAIN) + start)


def test_what_a_file_claims_and_does_not_have_is_a_cut(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(zstandard.compress(claiming(2**32 - 1)))
    recording, found = read(tmp_path / "file")
    assert (found, recording.is_cut) == ([], True)


def test_a_message_larger_than_any_is_refused_before_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(zstandard.compress(claiming(2**31) + bytes(2 * LARGEST_PACKET)))
    with pytest.raises(RecordingError, match="not a recording"):
        read(tmp_path / "file")


def test_no_password_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text("pipeline: demo\nbroker: {username: me, password: secret}\nnodes: {d: {tier: device}}\n")
    assert configuration_of(path) == "pipeline: demo\nnodes:\n  d:\n    tier: device\n"
