"""A package over a slow line to three nodes: bytes that leave against bytes that are needed, broken off and resumed.

    python -m benchmarks.model_push --model vgg16 --mbit-s 100 --json model-push.json      (as root)

The source is a process of its own in a network namespace behind a line of that bandwidth (veth and token bucket);
broker and nodes are in the hub. Three scenarios: each node needs another third of the file; the same, broken off three
times (the source is killed, the nodes are killed, the line is down); all need the same third. At the end a bit is
flipped in one node's file, and in a piece on its way. Bytes are counted twice: payloads of the source's pieces as the
broker hands them to one who hears all of them, and all bytes on the line with MQTT, TCP, IP and Ethernet, as the token
bucket counts them.

VGG-16 has 411 of its 553 MB in one block, so no plan makes thirds of it: they are thirds of the file's pieces.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.table import Table

from benchmarks.network import Network
from benchmarks.testbed import PASSWORD, USER
from broker import topics
from broker.server import Server, ServerSettings
from broker.session import Channel, Message
from broker.topics import Namespace
from nodes.cli import demo
from nodes.config.loader import load_config
from nodes.config.sections import Config
from nodes.display.screen import Screen
from nodes.packages.exchange import Exchange
from nodes.protocol.border import Border
from nodes.protocol.messages import to_bytes
from nodes.protocol.packages import PublishedPackage
from nodes.session.presence import guest_session
from pipeline.errors import TrisectError
from pipeline.lite.package import Package
from pipeline.models import store
from pipeline.models.source import ModelSource
from pipeline.pieces.manifest import PackageManifest, manifest_of, spans_of
from pipeline.pieces.partial import PartialPackage, WholeFile

SOURCE = "source"
NODES = ("one", "two", "three")
PATIENCE_S = 600.0
DOWN_S = 20.0
GOAL = 1.05


def thirds(path: Path) -> PackageManifest:
    """The file's manifest, whose three blocks are its thirds."""
    manifest = manifest_of(Package(path), name="thirds")
    count = len(manifest.pieces)
    ends = [round(count * part / 3) for part in range(4)]
    return replace(manifest, blocks=tuple(spans_of(range(ends[n], ends[n + 1])) for n in range(3)))


def serve(path: Path, config_path: Path) -> None:
    """Publish the file and serve it until SIGTERM: the source's process."""
    config, manifest = load_config(config_path), thirds(path)
    session = guest_session(config, SOURCE)
    exchange = Exchange(config, session, SOURCE, Path(tempfile.mkdtemp()), Border(Namespace(config.pipeline)))
    exchange.start()
    exchange.offer(WholeFile(path, manifest))
    session.start(PATIENCE_S)
    topic = Namespace(config.pipeline).topic(topics.PACKAGE, digest=manifest.digest)
    session.publish(topic, to_bytes(PublishedPackage(manifest, manifest.digest).to_json()), retain=True)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()
    os._exit(0)


class Node:
    """A node's exchange; `stop` leaves its file as a killed process would."""

    def __init__(self, config: Config, name: str, folder: Path) -> None:
        self.received_before = 0
        self.done: queue.SimpleQueue[PartialPackage | Exception] = queue.SimpleQueue()
        self._config, self._name, self._folder = config, name, folder
        self.start()

    def start(self) -> None:
        """Begin, or begin again with what is on the disk."""
        self.session = guest_session(self._config, self._name, on_up=self._up)
        self.border = Border(Namespace(self._config.pipeline))
        self.exchange = Exchange(self._config, self.session, self._name, self._folder / self._name, self.border)
        self.exchange.start()
        self.session.start(PATIENCE_S)

    def _up(self) -> None:
        self.exchange.connected()

    def stop(self) -> None:
        """End; what has come stays on the disk."""
        self.received_before += self.exchange.received_bytes_total
        self.exchange.stop()
        topic = Namespace(self._config.pipeline).topic(topics.HOLDINGS, node=self._name)
        self.session.stop({topic: b""})

    @property
    def received(self) -> int:
        """Bytes of pieces that have come."""
        return self.received_before + self.exchange.received_bytes_total

    def want(self, manifest: PackageManifest, blocks: Sequence[int]) -> None:
        """Ask, as soon as the package is known."""
        wait(lambda: manifest.digest in self.exchange.published)
        self.exchange.want("x", manifest.digest, blocks, self.done.put, self.done.put)

    def got(self) -> PartialPackage:
        """Wait until all of it is here. Raises what went wrong."""
        found = self.done.get(timeout=PATIENCE_S)
        if isinstance(found, Exception):
            raise found
        return found


def wait(condition: Callable[[], bool]) -> None:
    """Wait patiently. Raises TrisectError."""
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > give_up:
            raise TrisectError("waited in vain")
        time.sleep(0.02)


class Lab:
    """The network, the broker and the source's process."""

    def __init__(self, path: Path, folder: Path, network: Network, server: Server) -> None:
        self.path, self.folder, self.network, self.manifest = path, folder, network, thirds(path)
        self._source_config = folder / "source.yaml"
        text = demo.write_config(folder, "mobilenet_v2", server.port).read_text()
        for file, host in ((folder / "demo.yaml", "127.0.0.1"), (self._source_config, network.hub_address(SOURCE))):
            entry = f"broker:\n  host: {host}\n  username: {USER}\n  password: {PASSWORD}\n"
            file.write_text(text.replace("broker:\n", entry))
            file.chmod(0o600)
        self.config = load_config(folder / "demo.yaml")
        self._child: subprocess.Popen[bytes] | None = None
        self.payload_bytes = 0
        self._monitor = guest_session(self.config, "monitor")
        names = Namespace(self.config.pipeline)
        self._monitor.subscribe([names.filter(topics.PIECE, node=SOURCE)], self._heard, channel=Channel.BULK)
        self._monitor.start(PATIENCE_S)

    def _heard(self, message: Message) -> None:
        self.payload_bytes += len(message.payload)

    def stop(self) -> None:
        """End what was started here."""
        self.kill_source()
        self._monitor.stop()

    def start_source(self) -> None:
        """Start it in its namespace."""
        command = [sys.executable, "-m", "benchmarks.model_push", "--serve", str(self.path), str(self._source_config)]
        self._child = subprocess.Popen([*self.network.launcher(SOURCE), *command])

    def kill_source(self) -> None:
        """End it at once."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def line_bytes(self) -> int:
        """Bytes that have left the source's machine, with all headers."""
        found = subprocess.run(
            [*self.network.launcher(SOURCE), "tc", "-s", "-j", "qdisc", "show", "dev", "line0"],
            capture_output=True,
            check=True,
            text=True,
        )
        return int(json.loads(found.stdout)[0]["bytes"])

    def set_line(self, state: str) -> None:
        """Cut the line, or join it."""
        subprocess.run(["ip", "link", "set", "line0", state], check=True)

    @contextmanager
    def nodes(self, scenario: str) -> Iterator[list[Node]]:
        """Three nodes with nothing on their disks."""
        made = [Node(self.config, f"{name}-{scenario}", self.folder) for name in NODES]
        try:
            yield made
        finally:
            for node in made:
                with contextlib.suppress(TrisectError):
                    node.stop()


def scenario(lab: Lab, name: str, blocks: Sequence[Sequence[int]], breaks: bool) -> dict[str, float]:
    """Run one; returns its numbers."""
    manifest = lab.manifest
    needs = [manifest.needed(mine) for mine in blocks]
    needed = sum(manifest.nbytes_of(piece) for piece in frozenset().union(*needs))
    total = sum(manifest.nbytes_of(piece) for mine in needs for piece in mine)
    before, payload_before, began = lab.line_bytes(), lab.payload_bytes, time.monotonic()
    with lab.nodes(name) as nodes:
        for node, mine in zip(nodes, blocks, strict=True):
            node.want(manifest, mine)
        if breaks:
            for share, broken in ((0.25, _kill_source), (0.5, _kill_nodes), (0.75, _cut_line)):
                wait(partial(_have_come, nodes, share * total))
                broken(lab, nodes, blocks)
        for node in nodes:
            node.got()
        seconds = time.monotonic() - began
        line, payload = lab.line_bytes() - before, lab.payload_bytes - payload_before
        duplicates = sum(node.exchange.duplicates_total for node in nodes)
    return {
        "needed_bytes": needed,
        "payload_bytes": payload,
        "line_bytes": line,
        "payload_ratio": payload / needed,
        "line_ratio": line / needed,
        "duplicate_pieces": duplicates,
        "seconds": seconds,
    }


def _have_come(nodes: Sequence[Node], nbytes: float) -> bool:
    return sum(node.received for node in nodes) >= nbytes


def _kill_source(lab: Lab, nodes: Sequence[Node], blocks: Sequence[Sequence[int]]) -> None:
    lab.kill_source()
    lab.start_source()


def _kill_nodes(lab: Lab, nodes: Sequence[Node], blocks: Sequence[Sequence[int]]) -> None:
    for node in nodes:
        node.stop()
    for node, mine in zip(nodes, blocks, strict=True):
        node.start()
        node.want(lab.manifest, mine)


def _cut_line(lab: Lab, nodes: Sequence[Node], blocks: Sequence[Sequence[int]]) -> None:
    lab.set_line("down")
    time.sleep(DOWN_S)
    lab.set_line("up")


def flipped_bits(lab: Lab) -> dict[str, int]:
    """A bit on one node's disk, and one in a piece on its way: found, and only these pieces fetched again."""
    manifest = lab.manifest
    node = Node(lab.config, f"{NODES[0]}-thirds", lab.folder)
    node.stop()
    path = lab.folder / f"{NODES[0]}-thirds" / f"{manifest.digest}.trisect"
    at = 7 * manifest.piece_bytes + 12_345
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    began = node.received
    node.start()
    node.want(manifest, [0])
    held = node.got()
    again = node.received - began
    whole = WholeFile(lab.path, manifest).read(9) or b""
    held.forget([9])
    node.exchange.want("y", manifest.digest, [0], node.done.put, node.done.put)
    node.got()
    node.stop()
    lie = bytes([whole[0] ^ 1]) + whole[1:]
    return {"fetched_again_bytes": again, "is_piece_with_flipped_bit": int(manifest.is_piece(9, lie))}


def main() -> None:
    """Run all, print a table, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vgg16")
    parser.add_argument("--mbit-s", type=float, default=100.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", nargs=2, type=Path, metavar=("FILE", "CONFIG"), help="for the source's process")
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
        return
    path = store.load(ModelSource(options.model, options.model)).path
    numbers: dict[str, dict[str, float]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        network = stack.enter_context(Network([SOURCE]))
        secrets = folder / "passwords"
        subprocess.run(["mosquitto_passwd", "-b", "-c", str(secrets), USER, PASSWORD], check=True, capture_output=True)
        secrets.chmod(0o644)
        folder.chmod(0o755)
        settings = ServerSettings(host="0.0.0.0", password_file=secrets)
        server = stack.enter_context(Server(settings, log_file=folder / "broker.log"))
        network.limit(SOURCE, options.mbit_s)
        lab = Lab(path, folder, network, server)
        stack.callback(lab.stop)
        lab.start_source()
        apart, same = ((0,), (1,), (2,)), ((1,), (1,), (1,))
        for name, blocks, breaks in (("thirds", apart, False), ("broken", apart, True), ("same", same, False)):
            numbers[name] = scenario(lab, name, blocks, breaks)
            print(name, json.dumps(numbers[name]), flush=True)
        numbers["flipped"] = {key: float(value) for key, value in flipped_bits(lab).items()}
        print("flipped", json.dumps(numbers["flipped"]), flush=True)
    show(numbers, options.mbit_s)
    if options.json is not None:
        options.json.write_text(json.dumps(numbers, indent=1) + "\n")


def show(numbers: dict[str, dict[str, float]], mbit_s: float) -> None:
    """Print the table."""
    table = Table(title=f"over {mbit_s:g} Mbit/s", title_justify="left")
    for heading in ("scenario", "needed MB", "payloads MB", "ratio", "line MB", "ratio", "s"):
        table.add_column(heading, justify="left" if heading == "scenario" else "right")
    for name, row in numbers.items():
        if "needed_bytes" in row:
            table.add_row(
                name,
                *(f"{row[key] / 1e6:,.1f}" for key in ("needed_bytes", "payload_bytes")),
                f"{row['payload_ratio']:.4f}",
                f"{row['line_bytes'] / 1e6:,.1f}",
                f"{row['line_ratio']:.4f}",
                f"{row['seconds']:.1f}",
            )
    Screen().print(table)
    print(f"goal for payloads: {GOAL}")


if __name__ == "__main__":
    main()
