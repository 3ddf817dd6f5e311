"""The device's journal against SQLite in WAL mode: milliseconds a frame, and what a `kill -9` in mid-write loses.

A frame is recorded, and the record of the fourth before it is closed, at a stream's pace. SQLite commits each (a commit
survives the process) with `synchronous=NORMAL`; checkpoints are made by a second connection every half second, which is
its fastest set-up that survives a power cut as well as the journal does. `--kills N` kills N processes while they write
and counts frames whose record was confirmed and is missing.

    python benchmarks/journal.py --kills 200
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from broker.session import Delivery
from nodes.tier.journal import SYNC_S, Journal

OPEN = 4
KEPT = 256
STAYS_OPEN = 4
Step = Callable[[int], None]
KINDS: dict[str, tuple[bytes | None, int, float]] = {
    "over MQTT (its delivery)": (None, 600, 200.0),
    "photo, 72 kB": (random.Random(1).randbytes(72_000), 300, 100.0),
    "raw 224 x 224, 151 kB": (random.Random(2).randbytes(150_528), 150, 50.0),
    "raw 640 x 480, 922 kB": (random.Random(3).randbytes(921_600), 80, 20.0),
}


@contextmanager
def ours(folder: Path, payload: bytes | None) -> Iterator[Step]:
    """Record and close with the journal."""
    with Journal(folder / "cam.journal", "t") as journal:

        def step(number: int) -> None:
            if payload is None:
                journal.delivered(number, Delivery(number % 60_000 + 1, 0, number, False))
            else:
                journal.entered(number, "x", number, payload)
            if number >= OPEN:
                journal.answered(number - OPEN)

        yield step


@contextmanager
def sqlite(folder: Path, payload: bytes | None) -> Iterator[Step]:
    """Record and close with SQLite."""
    path = folder / "cam.sqlite"
    database = sqlite3.connect(path, isolation_level=None)
    for line in ("journal_mode=WAL", "synchronous=NORMAL", "wal_autocheckpoint=0"):
        database.execute(f"PRAGMA {line}")
    database.execute("CREATE TABLE frame (sequence INTEGER PRIMARY KEY, source TEXT, position INTEGER, payload BLOB)")
    database.execute("CREATE TABLE delivery (sequence INTEGER PRIMARY KEY, packet INTEGER, hash INTEGER, done INTEGER)")
    ended = threading.Event()

    def checkpoint() -> None:
        other = sqlite3.connect(path, isolation_level=None)
        while not ended.wait(SYNC_S):
            other.execute("PRAGMA wal_checkpoint(PASSIVE)")
        other.close()

    def step(number: int) -> None:
        if payload is None:
            database.execute("INSERT INTO delivery VALUES (?, ?, ?, 0)", (number, number % 60_000 + 1, number))
            database.execute("UPDATE delivery SET done = 1 WHERE sequence = ?", (number - OPEN,))
            if number >= KEPT:
                database.execute("DELETE FROM delivery WHERE sequence = ?", (number - KEPT,))
        else:
            database.execute("INSERT INTO frame VALUES (?, 'x', ?, ?)", (number, number, payload))
            database.execute("DELETE FROM frame WHERE sequence = ?", (number - OPEN,))

    thread = threading.Thread(target=checkpoint)
    thread.start()
    try:
        yield step
    finally:
        ended.set()
        thread.join()
        database.close()


def measure(
    kept: Callable[[Path, bytes | None], AbstractContextManager[Step]],
    folder: Path,
    payload: bytes | None,
    count: int,
    rate_hz: float,
) -> tuple[float, float, float]:
    """Mean and 99th percentile of milliseconds a frame in the caller's thread, and processor milliseconds of all."""
    seconds = []
    with kept(folder, payload) as step:
        began, cpu = time.perf_counter(), _cpu_seconds()
        for number in range(count):
            start = time.perf_counter()
            step(number)
            seconds.append(time.perf_counter() - start)
            time.sleep(max(0.0, began + (number + 1) / rate_hz - time.perf_counter()))
        cpu = _cpu_seconds() - cpu
    return statistics.mean(seconds) * 1e3, sorted(seconds)[count * 99 // 100] * 1e3, cpu / count * 1e3


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def write_for_ever(folder: Path) -> None:
    """Record frames of all sizes and confirm each on stdout, until killed."""
    sizes = random.Random()
    with Journal(folder / "cam.journal", "t") as journal:
        number = 1 + max((frame.sequence for frame in journal.unfinished()), default=0)
        while True:
            journal.entered(number, "x", number, sizes.randbytes(int(10 ** sizes.uniform(1, 6))))
            os.write(1, f"+{number}\n".encode())
            if number % STAYS_OPEN:
                journal.answered(number)
                os.write(1, f"-{number}\n".encode())
            number += 1


def kill_in_mid_write(kills: int) -> tuple[int, int]:
    """Frames confirmed as recorded and not as answered, over so many processes; and those of them that were lost."""
    open_frames, lost, moments = 0, 0, random.Random(4)
    with tempfile.TemporaryDirectory() as temporary:
        for _ in range(kills):
            with tempfile.TemporaryDirectory(dir=temporary) as folder:
                command = [sys.executable, __file__, "--write-for-ever", folder]
                with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
                    assert child.stdout is not None
                    first = child.stdout.readline()
                    time.sleep(moments.uniform(0.0, 0.6))
                    child.send_signal(signal.SIGKILL)
                    said = (first + child.stdout.read()).decode().split()
                entered = {int(line[1:]) for line in said if line[0] == "+"}
                answered = {int(line[1:]) for line in said if line[0] == "-"}
                kept = {frame.sequence for frame in Journal(Path(folder) / "cam.journal", "u").unfinished()}
                newest = max(entered)
                if newest % STAYS_OPEN:  # it may have been answered without having said so
                    answered.add(newest)
                lost += len(entered - answered - kept)
                open_frames += len(entered - answered)
    return open_frames, lost


def main() -> int:
    """Measure and print; 1 when a kill lost a frame."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, help="on the disk to measure; default: the temporary folder")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--write-for-ever", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write_for_ever:
        write_for_ever(arguments.write_for_ever)
    table = Table("frame", "kept by", "ms a frame", "p99 ms", "processor ms")
    for kind, (payload, count, rate_hz) in KINDS.items():
        found: dict[str, list[tuple[float, float, float]]] = {"journal": [], "SQLite": []}
        for _ in range(arguments.repeats):
            for name, kept in (("journal", ours), ("SQLite", sqlite)):
                with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
                    found[name].append(measure(kept, Path(folder), payload, count, rate_hz))
        for name, values in found.items():
            table.add_row(kind, name, *(f"{statistics.median(column):.3f}" for column in zip(*values, strict=True)))
    Console().print(table)
    if not arguments.kills:
        return 0
    open_frames, lost = kill_in_mid_write(arguments.kills)
    print(f"{arguments.kills} kills in mid-write: {lost} of {open_frames} open frames lost")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
