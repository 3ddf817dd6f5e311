"""Sequence numbers over a device's restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodes.tier import sequences


def test_sequence_numbers_never_come_twice_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / "state" / "camera.sequence"
    firsts = [sequences.reserve(path) for _ in range(3)]
    assert firsts[0] == 1
    assert firsts == sorted(set(firsts))


@pytest.mark.parametrize("there", ["nonsense", "", "9" * 5_000, "-4", "\u0663"])
def test_a_damaged_file_stops_no_start_and_numbers_go_up(
    tmp_path: Path, there: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state" / "camera.sequence"
    before = sequences.reserve(path)
    path.write_text(there, encoding="utf-8")
    assert sequences.reserve(path) > before
    assert "numbered by the clock" in caplog.text


def test_a_folder_that_cannot_be_written_stops_no_start(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    assert sequences.reserve(tmp_path / "state" / "camera.sequence") > 1_000_000
