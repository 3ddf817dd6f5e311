"""How the last process ended is said by the next one, and only of one that did not end in order."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from nodes.session.last_run import LastRun, Run, how_it_ended, this_machine, this_run

CODE = """
import os, signal, sys
from pathlib import Path
from nodes.session.last_run import LastRun
with LastRun(Path(sys.argv[1])):
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["killed", "in order"])
def test_a_process_that_was_killed_is_told_of_by_the_next(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state" / "cam.running"
    subprocess.run([sys.executable, "-c", CODE, str(path), how], check=False)
    with LastRun(path):
        assert path.exists()
    assert not path.exists()
    assert ("did not end in order: it was killed (SIGKILL)" in caplog.text) == (how == "killed")


def test_the_kernels_kills_and_a_new_boot_are_named() -> None:
    last = Run(77, 1e9, "a", 2)
    assert "the machine has been started again since" in how_it_ended(last, Run(1, 2e9, "b", 0))
    assert "by the kernel for want of memory, as 1 have been" in how_it_ended(last, Run(1, 2e9, "a", 3))
    assert "has killed nobody" in how_it_ended(last, Run(1, 2e9, "a", 2))


def test_a_process_that_lives_keeps_its_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cam.running"
    path.write_text(json.dumps(asdict(this_run())))
    with LastRun(path):
        pass
    assert path.exists()
    assert not caplog.records
    path.write_text(json.dumps(asdict(replace(this_run(), created_ts=1e9))))
    with LastRun(path):
        pass
    assert "did not end in order" in caplog.text, "another process has its number now"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"pid": -1}', '{"pid": 1e400}', "[" * 100_000, '{"pid": "x"}', "\xff"]
)
def test_a_damaged_file_is_written_anew(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cam.running"
    path.write_text(text, encoding="latin-1")
    with LastRun(path):
        assert json.loads(path.read_text())["pid"] > 0
    assert not caplog.records


def test_a_folder_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with LastRun(tmp_path / "file" / "cam.running"):
        pass


def test_a_machine_is_the_same_for_all_its_processes_and_says_nothing_of_its_boot() -> None:
    code = "from nodes.session.last_run import this_machine; print(this_machine())"
    other = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert other.stdout.strip() == this_machine() != ""
    assert this_machine() not in this_run().boot.replace("-", "")
