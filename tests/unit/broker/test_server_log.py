"""The log of a broker of ours: harmless lines, a bounded file, and no trouble for the broker when the disk is full."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from broker import server_log
from broker.server_log import ServerLog


def test_what_a_client_id_brings_is_made_harmless(tmp_path: Path) -> None:
    log = ServerLog(tmp_path / "broker.log")
    log.add("New client as \x1b[2J\u202eevil\n")
    log.close()
    for kept in (log.tail, (tmp_path / "broker.log").read_text()):
        assert "\x1b" not in kept
        assert "\u202e" not in kept
        assert "New client as \ufffd[2J\ufffdevil" in kept


def test_the_file_is_bounded_and_begins_again_in_a_second_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_log, "_FILE_BYTES", 1_000)
    log = ServerLog(tmp_path / "broker.log")
    for number in range(200):
        log.add(f"line {number}")
    log.close()
    assert {path.name for path in tmp_path.iterdir()} == {"broker.log", "broker.log.1"}
    assert all(path.stat().st_size <= 1_000 for path in tmp_path.iterdir())
    assert (tmp_path / "broker.log").read_text().endswith("line 199\n")


def test_a_folder_that_goes_away_costs_lines_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_log, "_FILE_BYTES", 100)
    log = ServerLog(tmp_path / "logs" / "broker.log")
    shutil.rmtree(tmp_path / "logs")
    for number in range(50):
        log.add(f"line {number}")
    assert log.tail.endswith("line 49")


def test_a_link_to_elsewhere_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "broker.log").symlink_to(tmp_path / "precious")
    log = ServerLog(tmp_path / "broker.log")
    log.add("line")
    assert log.path is None
    assert (tmp_path / "precious").read_text() == "mine"
