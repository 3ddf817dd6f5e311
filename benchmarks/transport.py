"""How fast bytes move: Session -> mosquitto -> Session, two processes, one machine. Knows no tensor.

Latency is the time from publish() of the first chunk to the receiver's acknowledgement of the last, minus nothing: it
includes the receiver's one-byte answer, measured on its own as the first row. Throughput keeps several messages in
flight and counts bytes between the first and the last arrival.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from broker.server import Server, ServerSettings
from broker.session import Address, Channel, Message, Session

_DATA, _ECHO = "bench/data", "bench/echo"
_SIZES_BYTES = (1, 1_000, 64_000, 602_112, 3_211_264, 12_845_056)


@dataclass(frozen=True, slots=True)
class Row:
    """One size. Latencies are one way plus a small answer; throughput is one way."""

    nbytes: int
    chunks: int
    repeats: int
    latency_p50_s: float
    latency_p95_s: float
    throughput_bytes_per_s: float


def chunks_of(nbytes: int, chunk_bytes: int) -> list[bytes]:
    """The payloads of one message; the last byte of the last one marks its end."""
    sizes = [min(chunk_bytes, nbytes - start) for start in range(0, nbytes, chunk_bytes)]
    return [bytes(size - 1) + bytes([number == len(sizes) - 1]) for number, size in enumerate(sizes)]


def receive(
    host: str, port: int, ready: multiprocessing.synchronize.Event, done: multiprocessing.synchronize.Event
) -> None:
    """The other process: answers the end of each message with one byte."""
    with Session(Address(host, port), name="bench-receiver", token="r") as session:

        def on_data(message: Message) -> None:
            if message.payload[-1]:
                session.publish(_ECHO, b"\1", channel=Channel.BULK)

        session.subscribe([_DATA], on_data, channel=Channel.BULK)
        session.start(wait_s=10)
        ready.set()
        done.wait()


@contextmanager
def receiver(server: Server) -> Iterator[None]:
    """A receiving process that is up."""
    spawn = multiprocessing.get_context("spawn")
    ready, done = spawn.Event(), spawn.Event()
    process = spawn.Process(target=receive, args=(server.host, server.port, ready, done), name="bench-receiver")
    process.start()
    try:
        if not ready.wait(30):
            raise RuntimeError("the receiver did not come up within 30 s")
        yield
    finally:
        done.set()
        process.join(10)


def measure(session: Session, echoes: threading.Semaphore, nbytes: int, chunk_bytes: int, seconds: float) -> Row:
    """One row: first one message at a time, then four at a time."""
    payloads = chunks_of(nbytes, chunk_bytes)

    def send() -> None:
        for payload in payloads:
            session.publish(_DATA, payload, channel=Channel.BULK)

    def wait() -> None:
        if not echoes.acquire(timeout=30):
            raise RuntimeError(f"no answer to {nbytes} bytes within 30 s")

    for _ in range(3):
        send()
        wait()
    latencies: list[float] = []
    give_up = time.monotonic() + seconds
    while len(latencies) < 5 or (time.monotonic() < give_up and len(latencies) < 1000):
        started = time.perf_counter()
        send()
        wait()
        latencies.append(time.perf_counter() - started)
    repeats, window = max(8, len(latencies)), 4
    started = time.perf_counter()
    for number in range(repeats + window):
        if number < repeats:
            send()
        if number >= window:
            wait()
    elapsed_s = time.perf_counter() - started
    latencies.sort()
    p95 = latencies[min(len(latencies) - 1, int(0.95 * len(latencies)))]
    return Row(nbytes, len(payloads), repeats, statistics.median(latencies), p95, repeats * nbytes / elapsed_s)


def show(rows: list[Row]) -> None:
    """Print for people."""
    table = Table(title="Session -> mosquitto -> Session, QoS 1")
    for heading in ("bytes", "chunks", "latency p50", "p95", "throughput"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            f"{row.nbytes:,}",
            str(row.chunks),
            f"{row.latency_p50_s * 1e3:.2f} ms",
            f"{row.latency_p95_s * 1e3:.2f} ms",
            f"{row.throughput_bytes_per_s / 1e6:,.1f} MB/s",
        )
    Console().print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(_SIZES_BYTES), metavar="BYTES")
    parser.add_argument("--chunk-bytes", type=int, default=1024 * 1024)
    parser.add_argument("--seconds", type=float, default=1.0, help="per size (default: 1)")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    options = parser.parse_args()
    echoes = threading.Semaphore(0)
    with (
        Server(ServerSettings(max_packet_bytes=max(16 * 1024 * 1024, options.chunk_bytes + 1024))) as server,
        receiver(server),
        Session(Address(server.host, server.port), name="bench-sender", token="s") as session,
    ):
        session.subscribe([_ECHO], lambda _: echoes.release(), channel=Channel.BULK)
        session.start(wait_s=10)
        rows = [measure(session, echoes, size, options.chunk_bytes, options.seconds) for size in options.sizes]
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        show(rows)


if __name__ == "__main__":
    main()
