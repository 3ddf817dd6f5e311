"""What a pipeline writes to disk and log while nothing happens, counted by the kernel and extrapolated to a day.

    python -m benchmarks.idle_writes --minutes 60 --json idle-writes.json

Broker, planner and three nodes on this machine, with a plan and without a frame. Each process's bytes are those that
it gave to the storage layer (`/proc/PID/io`: write_bytes, without what was deleted before it reached the disk), so that
the folder has to be on a disk and not in memory. Whole pages count: a log line of 80 bytes is 4,096 if nothing else
is written in the meantime. Start is apart: what a node writes when it is started is not what it writes in a day.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

import psutil
from rich.table import Table

from broker.server import Server, ServerSettings
from nodes.cli import demo
from nodes.client.processes import Processes
from nodes.client.stream_client import StreamClient
from nodes.config.loader import load_config
from nodes.display.screen import Screen
from nodes.enrolment.broker_files import AUTOSAVE_S

DAY_S = 86_400.0
SETTLE_S = 90.0
"""After the start: calibrations, profiles and the standing-by network are written once."""
READY_S = 300.0
LOOK_S = 30.0
GOAL_MB = 20.0


def written_bytes(pid: int) -> int:
    """Bytes that the process has had written to storage so far, less those that it deleted in time."""
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(fields["write_bytes"]) - int(fields["cancelled_write_bytes"])


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Measure, print a table, and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--folder", type=Path, help="On a disk; default: below /var/tmp.")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="trisect-idle-", dir=options.folder or "/var/tmp"))
    try:
        numbers = measure(folder, options.minutes * 60.0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    show(numbers)
    if options.json is not None:
        options.json.write_text(json.dumps(numbers, indent=1) + "\n")


def measure(folder: Path, seconds: float) -> dict[str, object]:
    """Run the pipeline without a frame for so long; returns bytes by process, of logs and of files."""
    (folder / "broker").mkdir()
    settings = ServerSettings(persistence_dir=folder / "broker", autosave_s=AUTOSAVE_S)
    with Server(settings, log_file=folder / "broker.log") as server, Processes(folder) as processes:
        config_path = demo.write_config(folder, "mobilenet_v2", server.port)
        demo.start_nodes(processes, config_path, folder, Screen(file=StringIO()))
        with StreamClient(load_config(config_path), demo.STREAM) as client:
            up = client.wait(
                lambda: client.ready() >= set(demo.NODES) and client.active is not None, READY_S, processes.check
            )
        assert up, "the pipeline did not come up"
        time.sleep(SETTLE_S)
        pids = {"broker": server.pid or 0, **{name: processes.pid(name) for name in ("planner", *demo.NODES)}}
        began, before, logs_before = time.monotonic(), _all(pids), _logs(folder)
        while time.monotonic() - began < seconds:
            time.sleep(min(LOOK_S, max(0.0, seconds - (time.monotonic() - began))))
            processes.check()
        took_s = time.monotonic() - began
        after, logs_after = _all(pids), _logs(folder)
        return {
            "measured_seconds": took_s,
            "written_bytes": {name: after[name] - before[name] for name in pids},
            "log_bytes": {name: logs_after[name] - logs_before[name] for name in logs_after},
            "start_written_bytes": before,
            "files_bytes": folder_bytes(folder),
            "bytes_a_day": {name: (after[name] - before[name]) / took_s * DAY_S for name in pids},
        }


def _all(pids: Mapping[str, int]) -> dict[str, int]:
    return {name: written_bytes(pid) for name, pid in pids.items() if psutil.pid_exists(pid)}


def _logs(folder: Path) -> dict[str, int]:
    return {path.stem: path.stat().st_size for path in sorted(folder.glob("*.log"))}


def show(numbers: Mapping[str, object]) -> None:
    """Print the table."""
    table = Table(title=f"written in {numbers['measured_seconds']:.0f} s without a frame", title_justify="left")
    for heading in ("process", "kB", "log kB", "start kB", "MB a day"):
        table.add_column(heading, justify="left" if heading == "process" else "right")
    written, logs, start, day = (
        numbers[name] for name in ("written_bytes", "log_bytes", "start_written_bytes", "bytes_a_day")
    )
    assert isinstance(written, dict)
    assert isinstance(logs, dict)
    assert isinstance(start, dict)
    assert isinstance(day, dict)
    for name in written:
        table.add_row(
            name,
            f"{written[name] / 1e3:,.1f}",
            f"{logs.get(name, 0) / 1e3:,.1f}",
            f"{start[name] / 1e3:,.1f}",
            f"{day[name] / 1e6:.2f}",
        )
    Screen().print(table)
    worst = max(day.values())
    Screen().print(f"at most {worst / 1e6:.2f} MB a day and process; goal: {GOAL_MB:g}")


if __name__ == "__main__":
    main()
