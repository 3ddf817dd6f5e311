"""What encryption costs: processor seconds per gigabyte from Session to mosquitto to Session, without and with TLS.

    python -m benchmarks.transport_tls --gigabytes 1 --rounds 5

Sender, broker and receiver are processes of their own, on one machine; messages are chunks as tensors are sent in. Both
brokers run at once and take turns, so that what else the machine does falls on both; the median round counts. Processor
time, not the clock's: it hardly depends on who else computes. In each round OpenSSL also encrypts and decrypts the same
bytes in memory, without a socket: each of the two connections does both once, so twice that is what no client and no
broker on this library can save.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import ssl
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from broker.ports import free_port
from broker.server import Server, ServerSettings
from broker.session import Address, Channel, Message, Session
from broker.tls import Tls, context_of, receiving_context_of
from nodes.config.loader import load_config
from nodes.enrolment import broker_files, starting
from nodes.enrolment.folder import PipelineFolder
from nodes.session.presence import address_of

TOPIC = "trisect/v1/lab/node/edge-1/out/camera/1/0"
GB = 1_000_000_000
IN_FLIGHT = 32
PARTS = ("sender", "broker", "receiver")


def receive(address: Address, expected: int, pipe: Connection) -> None:
    """Take messages; say when each batch of `expected` has come."""
    seen = 0

    def on_message(message: Message) -> None:
        nonlocal seen
        seen += 1
        if seen % expected == 0:
            pipe.send(seen)

    with Session(address, name="receiver", token="r") as session:
        session.subscribe([TOPIC], on_message, channel=Channel.BULK)
        session.start(30)
        pipe.send(0)
        pipe.recv()


@dataclass
class Side:
    """One broker with its sender and receiver."""

    session: Session
    receiver: multiprocessing.process.BaseProcess
    pipe: Connection
    broker: int

    def round(self, count: int, payload: bytes) -> dict[str, float]:
        """Send so many messages; processor seconds of each part meanwhile."""
        pids = {"sender": psutil.Process().pid, "broker": self.broker, "receiver": self.receiver.pid}
        before = {part: _seconds(pid) for part, pid in pids.items()}
        window = threading.Semaphore(IN_FLIGHT)
        for _ in range(count):
            window.acquire()
            self.session.publish(
                TOPIC, payload, channel=Channel.BULK, wait_s=None, settled=lambda _taken: window.release()
            )
        if not self.pipe.poll(120):
            raise RuntimeError("the receiver did not get all messages within 120 s")
        self.pipe.recv()
        return {part: _seconds(pid) - before[part] for part, pid in pids.items()}


def _seconds(pid: int | None) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


@contextmanager
def side(sender: Address, receiver: Address, broker: int, count: int) -> Iterator[Side]:
    """Both ends, connected."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=receive, args=(receiver, count, there), name="receiver")
    process.start()
    try:
        if not here.poll(60):
            raise RuntimeError("the receiver did not come up")
        here.recv()
        with Session(sender, name="sender", token="s").start(30) as session:
            yield Side(session, process, here, broker)
    finally:
        here.send("stop")
        process.join(30)


class InMemory:
    """OpenSSL alone: one end encrypts into memory, the other decrypts from there, as the broker's connections do."""

    def __init__(self, credentials: Tls) -> None:
        client = context_of(replace(credentials, peers=("edge-1",)))
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._writing = receiving_context_of(credentials).wrap_bio(back, there, server_side=True)
        self._reading = client.wrap_bio(there, back)
        for _ in range(4):
            for end in (self._reading, self._writing):
                with suppress(ssl.SSLWantReadError):
                    end.do_handshake()

    @property
    def suite(self) -> str:
        """Name of the cipher suite."""
        cipher = self._writing.cipher()
        return cipher[0] if cipher else ""

    def round(self, count: int, payload: bytes) -> float:
        """Processor seconds to encrypt and decrypt so many messages."""
        memory, began = memoryview(bytearray(len(payload))), time.process_time()
        for _ in range(count):
            self._pass(memoryview(payload), memory)
        return time.process_time() - began

    def _pass(self, source: memoryview, target: memoryview) -> None:
        while source:
            source = source[self._writing.write(source) :]
        while target:
            # with a buffer it returns a count of bytes, whatever the type stubs say
            target = target[int(self._reading.read(len(target), target)) :]  # type: ignore[arg-type]


def enrolled(base: Path, stack: ExitStack) -> tuple[Address, Address, int]:
    """Two nodes' ways to a broker with certificates, and the broker's process."""
    base.chmod(0o755)
    nodes = {"device": ["device-1"], "edge": ["edge-1", "edge-2"]}
    text = starting.configuration("lab", "mobilenet_v2", "seed:0", nodes)
    folder = PipelineFolder.create(base / "lab", text, ["localhost"], port=free_port("127.0.0.1"))
    sender, receiver = (address_of(load_config(folder.enrol(name))) for name in ("edge-1", "edge-2"))
    broker_files.prepare(folder.broker)
    server = stack.enter_context(Server(broker_files.settings_of(folder.broker)))
    assert server.pid is not None
    return sender, receiver, server.pid


def measure(gigabytes: float, rounds: int, chunk_bytes: int) -> Mapping[str, Mapping[str, float]]:
    """Median processor seconds per gigabyte, by side and part; last of OpenSSL alone, by its suite."""
    count = max(1, round(gigabytes * GB / chunk_bytes))
    payload = bytes(range(256)) * (chunk_bytes // 256)
    base = Path(tempfile.mkdtemp(prefix="trisect-tls-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        plain = stack.enter_context(Server(ServerSettings()))
        assert plain.pid is not None
        open_ = Address(plain.host, plain.port)
        encrypted = enrolled(base, stack)
        assert encrypted[0].tls is not None
        sides = {
            "plain": stack.enter_context(side(open_, open_, plain.pid, count)),
            "TLS": stack.enter_context(side(*encrypted, count)),
        }
        alone = InMemory(encrypted[0].tls)
        alone_s: list[float] = []
        taken: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, one in sides.items():
                taken[name].append(one.round(count, payload))
            alone_s.append(alone.round(count, payload))
    sent_gb = count * len(payload) / GB
    found = {
        name: {part: statistics.median(each[part] for each in many) / sent_gb for part in PARTS}
        | {"all": statistics.median(sum(each.values()) for each in many) / sent_gb}
        for name, many in taken.items()
    }
    return found | {alone.suite: {"all": 2 * statistics.median(alone_s) / sent_gb}}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="a round (default: 1)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chunk-bytes", type=int, default=1 << 20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = measure(arguments.gigabytes, arguments.rounds, arguments.chunk_bytes)
    for part in (*PARTS, "all"):
        plain, tls = found["plain"][part], found["TLS"][part]
        print(f"{part:9} plain {plain:6.2f} s/GB   TLS {tls:6.2f} s/GB   {tls / plain:5.2f} times")
    (suite, alone), plain = list(found.items())[-1], found["plain"]["all"]
    least = 1 + alone["all"] / plain
    print(f"{suite} in memory, twice: {alone['all']:.2f} s/GB; with the plain way's seconds {least:.2f} times")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
