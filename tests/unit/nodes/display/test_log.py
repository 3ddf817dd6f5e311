"""A log that nobody reads, or that has nowhere to go, stops nothing."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nodes.display.log import WAITING_LINES, NonBlockingLog, open_standard_files

ROOT = Path(__file__).parents[4]


def _record(text: str) -> logging.LogRecord:
    return logging.LogRecord("x", logging.INFO, "f", 1, text, (), None)


@pytest.mark.timeout(60)
def test_a_pipe_that_nobody_reads_stops_nobody_and_what_is_dropped_is_said() -> None:
    reader, writer = os.pipe()
    log = NonBlockingLog(writer)
    for number in range(2 * WAITING_LINES):
        log.handle(_record(f"{number:04} {'x' * 500}"))  # would stop here
    seen = b""
    while b"0100" not in seen:
        seen += os.read(reader, 1 << 20)
    while b"last" not in seen:
        log.handle(_record("last"))  # there may be no room for it yet
        seen += os.read(reader, 1 << 20)
    assert b"lines before this one were dropped" in seen
    assert seen.startswith(b"0000 xxx")


def test_a_command_without_standard_error_runs_as_always() -> None:
    command = f"{sys.executable} -m nodes.cli models mobilenet_v2 --json 2>&-"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0
    assert b"mobilenet_v2" in done.stdout


def test_a_command_ended_while_it_loads_ends_in_order() -> None:
    script = "import os, signal, sys\nfrom nodes.cli import app\n"
    script += "app.app = lambda args: os.kill(os.getpid(), signal.SIGTERM)\n"
    script += "try:\n    app.main()\nfinally:\n    print('undone')"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (143, "undone\n")


def test_without_a_home_the_folders_are_in_the_temporary_one(tmp_path: Path) -> None:
    script = "import pathlib\nfrom pipeline import folders\n"
    script += "def home():\n    raise RuntimeError('Could not determine home directory.')\n"
    script += "pathlib.Path.home = home\nprint(folders.cache(), folders.state())"
    clean = {k: v for k, v in os.environ.items() if not k.startswith("XDG")} | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, env=clean
    )
    assert done.stdout.split() == [f"{tmp_path}/trisect-{os.getuid()}/{end}" for end in (".cache", ".local/state")]


def test_a_locale_without_arrows_gets_question_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    open_standard_files()
    print("device → edge", flush=True)
    assert written.getvalue() == b"device ? edge\n"
