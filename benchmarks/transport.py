"""How fast bytes move from one process to another through mosquitto, what processors do for it, and where time goes.

    python -m benchmarks.transport [--tls] [--rounds N] [--sizes BYTES ...]

Ways, all in one run and in turn, so that a busy machine is busy for all of them: `raw` is TCP from process to process
without a broker, `bulk` the session's BULK channel, `paho` the same over its CONTROL channel, which paho drives. A
message is cut into chunks, published with QoS 1, and answered by one byte once it is whole; the receiver has it written
into memory that it keeps. Latency is one way (both processes read one clock); throughput keeps four messages in flight.
Seconds of processor per GB are of the publishing process, of the subscribing one, and of mosquitto.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from broker.messages import Payload
from broker.mqtt.reader import Placement
from broker.ports import free_port
from broker.server import find_mosquitto
from broker.session import Address, Channel, Limits, Message, Session
from broker.tls import Tls

_SIZES_BYTES = (1_000, 64_000, 602_112, 12_845_056)
_TIMES = struct.Struct("dd")
_WINDOW = 4
_CHANNELS = {"bulk": Channel.BULK, "paho": Channel.CONTROL}
_LIMITS = Limits(control_queue_bytes=256 << 20)
_PATIENCE_S = 60.0


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


class Kept:
    """A handler that has large payloads written into memory of its own, as a tensor's are."""

    def __init__(self, most: int, handle: Callable[[bool], None]) -> None:
        self._memory = memoryview(bytearray(most + 1))
        self._handle = handle

    def place(self, topic: str, first: memoryview, nbytes: int) -> Placement | None:
        """Behind the first byte, which says whether this is the last chunk."""
        return Placement(1, self._memory[: nbytes - 1], self)

    def __call__(self, message: Message) -> None:
        """A chunk is here."""
        self._handle(message.payload[0] == 1)


def chunks_of(nbytes: int, chunk_bytes: int) -> list[Payload]:
    """The payloads of one message; the first byte of the last one marks its end."""
    sizes = [min(chunk_bytes, nbytes - start) for start in range(0, nbytes, chunk_bytes)]
    memory = memoryview(bytes(chunk_bytes))
    return [(bytes([number == len(sizes) - 1]), memory[: size - 1]) for number, size in enumerate(sizes)]


def watch_reads(session: Session, channel: Channel) -> list[float]:
    """When the newest read of a connection began: changes in place."""
    line, at = session._connections[channel]._line, [0.0]
    read = line.read

    def timed() -> int:
        at[0] = time.perf_counter()
        return read()

    line.read = timed  # type: ignore[method-assign]
    return at


def serve_session(address: Address, way: str, chunk_bytes: int, pipe: Pipe) -> None:
    """The subscribing process: answers each whole message with when its read began and when it was there."""
    channel = _CHANNELS[way]
    with Session(address, name=f"receiver-{way}", token="r", limits=_LIMITS) as session:
        began = watch_reads(session, channel)

        def handle(is_last: bool) -> None:
            if is_last:
                session.publish(f"bench/echo/{way}", _TIMES.pack(began[0], time.perf_counter()), channel=channel)

        session.subscribe([f"bench/data/{way}"], Kept(chunk_bytes, handle), channel=channel)
        session.start(wait_s=_PATIENCE_S)
        answer_cpu(pipe)


def serve_raw(port: int, context: tuple[str, str] | None, pipe: Pipe) -> None:
    """The receiving process without a broker: each message is a length and that many bytes."""
    listener = socket.create_server(("127.0.0.1", port))
    threading.Thread(target=answer_cpu, args=(pipe,), daemon=True).start()
    sock, _ = listener.accept()
    tuned(sock)
    if context is not None:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(*context)
        sock = server.wrap_socket(sock, server_side=True)
    memory, head = memoryview(bytearray(1 << 25)), memoryview(bytearray(8))
    while receive(sock, head):
        began = time.perf_counter()
        receive(sock, memory[: int.from_bytes(head, "big")])
        sock.sendall(_TIMES.pack(began, time.perf_counter()))


def receive(sock: socket.socket, view: memoryview) -> bool:
    """Fill the view; False at the end of the stream."""
    while view:
        nbytes = sock.recv_into(view)
        if not nbytes:
            return False
        view = view[nbytes:]
    return True


def tuned(sock: socket.socket) -> socket.socket:
    """As the session's sockets are."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, _LIMITS.socket_buffer_bytes)
    return sock


def answer_cpu(pipe: Pipe) -> None:
    """Say this process's seconds of processor whenever asked, until told to end."""
    pipe.send(os.getpid())
    while pipe.recv():
        pipe.send(time.process_time())


@contextmanager
def child(serve: Callable[..., None], *args: object) -> Iterator[Pipe]:
    """A receiving process that is up, by its pipe."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=serve, args=(*args, there), daemon=True)
    process.start()
    try:
        if not here.poll(_PATIENCE_S):
            raise RuntimeError("the receiver did not come up")
        here.recv()
        yield here
    finally:
        here.send(False)
        process.join(5)
        process.kill()


@contextmanager
def mosquitto(files: tuple[str, str, str] | None, folder: Path) -> Iterator[tuple[int, psutil.Process]]:
    """A broker of this benchmark's, with TLS if there are files (CA, certificate, key)."""
    port = free_port("127.0.0.1")
    lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", "set_tcp_nodelay true", "max_packet_size 33554432"]
    lines += ["max_inflight_messages 64", "max_queued_bytes 536870912", "persistence false", "log_dest none"]
    if files is not None:
        lines += [f"cafile {files[0]}", f"certfile {files[1]}", f"keyfile {files[2]}", "user root"]
    path = folder / "mosquitto.conf"
    path.write_text("\n".join(lines) + "\n")
    process = subprocess.Popen([find_mosquitto(), "-c", str(path)], stderr=subprocess.DEVNULL)
    try:
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(10)


def make_certificate(folder: Path) -> tuple[str, str, str]:
    """A self-signed certificate for 127.0.0.1, which is its own authority."""
    key, cert = str(folder / "key.pem"), str(folder / "cert.pem")
    asked = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*asked.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, cert, key


class Way:
    """One way to move bytes: `send(nbytes)` begins, `wait()` gives when it was read and there, in order."""

    def __init__(self, name: str, pipe: Pipe, send: Callable[[int], None], wait: Callable[[], tuple[float, float]]):
        self.name, self.send, self.wait, self._pipe = name, send, wait, pipe

    def receiver_cpu(self) -> float:
        """Seconds of processor of the other process so far."""
        self._pipe.send(True)
        return float(self._pipe.recv())


def session_way(stack: ExitStack, name: str, address: Address, chunk_bytes: int) -> tuple[Way, Session]:
    """Through the broker."""
    pipe = stack.enter_context(child(serve_session, address, name, chunk_bytes))
    session = stack.enter_context(Session(address, name=f"sender-{name}", token="s", limits=_LIMITS))
    channel, echoes, payloads = _CHANNELS[name], list[bytes](), dict[int, list[Payload]]()
    arrived = threading.Semaphore(0)

    def on_echo(message: Message) -> None:
        echoes.append(message.payload)
        arrived.release()

    def send(nbytes: int) -> None:
        if nbytes not in payloads:
            payloads[nbytes] = chunks_of(nbytes, chunk_bytes)
        for payload in payloads[nbytes]:
            session.publish(f"bench/data/{name}", payload, channel=channel)

    def wait() -> tuple[float, float]:
        if not arrived.acquire(timeout=_PATIENCE_S):
            raise RuntimeError(f"{name}: no answer")
        began, there = _TIMES.unpack(echoes.pop(0))
        return began, there

    session.subscribe([f"bench/echo/{name}"], on_echo, channel=channel)
    session.start(wait_s=_PATIENCE_S)
    return Way(name, pipe, send, wait), session


def raw_way(stack: ExitStack, files: tuple[str, str, str] | None) -> Way:
    """Without a broker."""
    port = free_port("127.0.0.1")
    pipe = stack.enter_context(child(serve_raw, port, None if files is None else files[1:]))
    sock = stack.enter_context(tuned(socket.create_connection(("127.0.0.1", port))))
    if files is not None:
        context = ssl.create_default_context(cafile=files[0])
        sock = stack.enter_context(context.wrap_socket(sock, server_hostname="127.0.0.1"))
    memory, answer = memoryview(bytes(1 << 25)), memoryview(bytearray(_TIMES.size))

    def send(nbytes: int) -> None:
        sock.sendall(nbytes.to_bytes(8, "big"))
        sock.sendall(memory[:nbytes])

    def wait() -> tuple[float, float]:
        receive(sock, answer)
        began, there = _TIMES.unpack(answer)
        return began, there

    return Way("raw", pipe, send, wait)


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
    line, at = session._connections[_CHANNELS[way.name]]._line, {"taken": 0.0, "written": 0.0}
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
    parser.add_argument("--ways", nargs="+", default=["raw", "bulk", "paho"], choices=["raw", "bulk", "paho"])
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
        address = Address("127.0.0.1", port, tls=Tls(Path(files[0]).read_text()) if files else None)
        ways, sessions = [], {}
        for name in options.ways:
            if name == "raw":
                ways.append(raw_way(stack, files))
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
