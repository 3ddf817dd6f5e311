"""How fast bytes move from one process to another through mosquitto, what processors do for it, and where time goes.

    python -m benchmarks.transport [--tls] [--rounds N] [--sizes BYTES ...]

Ways, all in one run and in turn, so that a busy machine is busy for all of them: `raw` is TCP from process to process
without a broker, `bulk` the session's BULK channel, `direct` that from node to node (`transport.direct`), `paho` the
broker's way over the CONTROL channel, which paho drives. A
message is cut into chunks, published with QoS 1, and answered by one byte once it is whole; the receiver has it written
into memory that it keeps. Latency is one way (both processes read one clock); throughput keeps four messages in flight.
Seconds of processor per GB are of the publishing process, of the subscribing one, and of mosquitto.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.transport_ways import CHANNELS, Way, direct_way, make_certificate, mosquitto, raw_way, session_way
from broker.session import Address, Session
from broker.tls import Tls

_SIZES_BYTES = (1_000, 64_000, 602_112, 12_845_056)
_WINDOW = 4


@dataclass(frozen=True, slots=True)
class Sample:
    """One way and size in one round. Seconds of processor are per GB."""

    way: str
    nbytes: int
    latency_s: float
    bytes_per_s: float
    publish_cpu: float
    subscribe_cpu: float
    broker_cpu: float


@dataclass(frozen=True, slots=True)
class Stages:
    """Where the time of one small message goes, in seconds."""

    to_thread: float
    into_socket: float
    through_broker: float
    to_handler: float


def measure(way: Way, nbytes: int, seconds: float, broker: psutil.Process) -> Sample:
    """One message at a time for latency, then four at a time for throughput."""
    latencies: list[float] = []
    give_up = time.monotonic() + seconds
    while len(latencies) < 5 or (time.monotonic() < give_up and len(latencies) < 300):
        began = time.perf_counter()
        way.send(nbytes)
        latencies.append(way.wait()[1] - began)
    repeats = max(8, min(len(latencies), int(2e8 / nbytes)))
    cpu = [time.process_time(), way.receiver_cpu(), sum(broker.cpu_times()[:2])]
    began = time.perf_counter()
    for number in range(repeats + _WINDOW):
        if number < repeats:
            way.send(nbytes)
        if number >= _WINDOW:
            way.wait()
    took_s = time.perf_counter() - began
    after = [time.process_time(), way.receiver_cpu(), sum(broker.cpu_times()[:2])]
    per_gb = [(late - early) / (repeats * nbytes / 1e9) for early, late in zip(cpu, after, strict=True)]
    return Sample(way.name, nbytes, statistics.median(latencies), repeats * nbytes / took_s, *per_gb)


def stages(way: Way, session: Session, nbytes: int, repeats: int = 200) -> Stages:
    """Medians of where the time of a small message goes."""
    line, at = session._connections[CHANNELS[way.name]]._line, {"taken": 0.0, "written": 0.0}
    publish, write = line.publish, line.write

    def timed_publish(*args: object, **named: object) -> int:
        at["taken"] = time.perf_counter()
        return publish(*args, **named)  # type: ignore[arg-type]

    def timed_write() -> None:
        write()
        if at["written"] < at["taken"]:
            at["written"] = time.perf_counter()

    line.publish, line.write = timed_publish, timed_write  # type: ignore[method-assign]
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        way.send(nbytes)
        read, there = way.wait()
        found.append((at["taken"] - began, at["written"] - at["taken"], read - at["written"], there - read))
        time.sleep(0.002)
    line.publish, line.write = publish, write  # type: ignore[method-assign]
    return Stages(*(statistics.median(column) for column in zip(*found, strict=True)))


def mosquitto_clients(port: int, nbytes: int, repeats: int = 100) -> float:
    """One way from `mosquitto_pub -l` to `mosquitto_sub`, QoS 1: the median of what their pipes show."""
    where = ["-p", str(port), "-q", "1", "-V", "5", "-t", "bench/line"]
    with (
        subprocess.Popen(["mosquitto_sub", *where], stdout=subprocess.PIPE) as sub,
        subprocess.Popen(["mosquitto_pub", *where, "-l"], stdin=subprocess.PIPE) as pub,
    ):
        assert sub.stdout is not None
        assert pub.stdin is not None
        time.sleep(1.0)
        line, took = b"x" * (nbytes - 1) + b"\n", []
        for _ in range(repeats):
            began = time.perf_counter()
            pub.stdin.write(line)
            pub.stdin.flush()
            sub.stdout.readline()
            took.append(time.perf_counter() - began)
            time.sleep(0.002)
        sub.terminate()
    return statistics.median(took)


def show(samples: Sequence[Sample], title: str) -> list[dict[str, float | str]]:
    """Print medians over the rounds for people; returns them."""
    table = Table(title=title)
    for heading in ("way", "bytes", "one way p50", "throughput", "of raw", "publish s/GB", "subscribe", "mosquitto"):
        table.add_column(heading, justify="right")
    rows: list[dict[str, float | str]] = []
    for nbytes, way in dict.fromkeys((sample.nbytes, sample.way) for sample in samples):
        mine = [each for each in samples if (each.nbytes, each.way) == (nbytes, way)]
        raw = [each.bytes_per_s for each in samples if (each.nbytes, each.way) == (nbytes, "raw")]
        row: dict[str, float | str] = {
            name: statistics.median(getattr(each, name) for each in mine) for name in list(asdict(mine[0]))[2:]
        }
        ratio = statistics.median(each.bytes_per_s / of for each, of in zip(mine, raw, strict=True))
        rows.append({"way": way, "nbytes": nbytes, "of_raw": ratio, **row})
        table.add_row(
            way,
            f"{nbytes:,}",
            f"{float(row['latency_s']) * 1e3:.2f} ms",
            f"{float(row['bytes_per_s']) / 1e6:,.0f} MB/s",
            f"{ratio:.2f}",
            *(f"{float(row[name]):.2f}" for name in ("publish_cpu", "subscribe_cpu", "broker_cpu")),
        )
    Console().print(table)
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(_SIZES_BYTES), metavar="BYTES")
    parser.add_argument(
        "--ways", nargs="+", default=["raw", "bulk", "direct", "paho"], choices=["raw", "bulk", "direct", "paho"]
    )
    parser.add_argument("--chunk-bytes", type=int, default=1024 * 1024)
    parser.add_argument("--seconds", type=float, default=0.5, help="for latencies, per way, size and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tls", action="store_true", help="encrypt all of it")
    parser.add_argument("--json", action="store_true", help="also print medians as JSON")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files = make_certificate(folder) if options.tls else None
        port, broker = stack.enter_context(mosquitto(files, folder))
        time.sleep(0.5)
        address = Address("127.0.0.1", port, tls=Tls(*(Path(file).read_text() for file in files)) if files else None)
        ways, sessions = [], {}
        for name in options.ways:
            if name == "raw":
                ways.append(raw_way(stack, files))
            elif name == "direct":
                ways.append(direct_way(stack, address, options.chunk_bytes))
            else:
                way, sessions[name] = session_way(stack, name, address, options.chunk_bytes)
                ways.append(way)
        samples = [
            measure(way, nbytes, options.seconds, broker)
            for _ in range(options.rounds)
            for nbytes in options.sizes
            for way in ways
        ]
        secured = ", TLS" if options.tls else ""
        rows = show(samples, f"QoS 1, chunks of {options.chunk_bytes:,}, {options.rounds} rounds{secured}")
        for way in ways:
            if way.name in sessions:
                parts = asdict(stages(way, sessions[way.name], 64_000))
                total = sum(parts.values())
                text = ", ".join(f"{name} {value * 1e3:.3f}" for name, value in parts.items())
                print(f"64,000 bytes, one at a time, {way.name}: {text}; in all {total * 1e3:.3f} ms")
        if files is None:
            print(f"64,000 bytes, mosquitto_pub to mosquitto_sub: {mosquitto_clients(port, 64_000) * 1e3:.3f} ms")
    if options.json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
