"""How near a node's running estimates of its line are to what it can do, and how soon they follow when it changes.

A node that computes nothing stands in a network namespace behind a token bucket (needs root). It sends and gets tensors
of one size at a steady rate, or none, so that only probes cross. For each bandwidth in turn: the median of the
estimates in the second half of its time, and the seconds until they were within a quarter of it for good. A bucket lets
64 kB through at once: a tensor passes somewhat faster than the bandwidth says, and so do estimates.

    python benchmarks/links.py --mbit 100,20,100 --nbytes 300000 --rate-hz 4
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.network import Network
from broker.server import Server, ServerSettings
from broker.session import Channel
from broker.topics import Namespace
from nodes.config.sections import Config
from nodes.session.link_monitor import LinkWatch
from nodes.session.presence import Presence, guest_session, wait_up
from pipeline.errors import TrisectError
from pipeline.plan import NodeId

NODE = NodeId("edge-1")
NAMES = Namespace("links")
USER, PASSWORD = "bench", "bench"
EVERY_S = 0.1
NEAR = 0.25
WAYS = ("link.up_bytes_per_s", "link.down_bytes_per_s")


def config_of(host: str, port: int) -> Config:
    """A pipeline of one node."""
    broker = {"host": host, "port": port, "username": USER, "password": PASSWORD}
    return Config.model_validate({"pipeline": "links", "broker": broker, "nodes": {NODE: {"tier": "edge"}}})


def be_node(config: Config, nbytes: int, rate_hz: float) -> None:
    """Send, receive, and print a report in JSON with a monotonic `at`, ten times a second, until killed."""
    presence = Presence(config, NAMES, NODE, "edge")
    with presence:
        wait_up(presence.session)
        presence.session.subscribe(["down"], lambda message: None, channel=Channel.BULK)
        watch = LinkWatch(config, NAMES, presence)
        watch.start()
        arguments = (presence, "up", nbytes, rate_hz, threading.Event())
        threading.Thread(target=send, args=arguments, name="links.sender", daemon=True).start()
        while True:
            print(json.dumps({"at": time.monotonic(), **watch.report()}), flush=True)
            time.sleep(EVERY_S)


def send(presence: Presence, topic: str, nbytes: int, rate_hz: float, ended: threading.Event) -> None:
    """Tensors of one size at a steady rate, none for a rate of 0."""
    while rate_hz and not ended.wait(1.0 / rate_hz):
        presence.session.publish(topic, bytes(nbytes), channel=Channel.BULK, wait_s=None)


def measure(
    mbit: Sequence[float], nbytes: int, rate_hz: float, seconds: float
) -> Iterator[tuple[float, float, list[dict[str, float]]]]:
    """For each bandwidth: itself, when it was set, and the reports until the next. Raises TrisectError without root."""
    with tempfile.TemporaryDirectory(prefix="trisect-links-") as folder, Network([NODE]) as network:
        secrets = Path(folder) / "passwords"
        subprocess.run(["mosquitto_passwd", "-b", "-c", str(secrets), USER, PASSWORD], check=True, capture_output=True)
        Path(folder).chmod(0o755)
        secrets.chmod(0o644)
        network.limit(NODE, mbit[0])
        with Server(ServerSettings(host="0.0.0.0", password_file=secrets)) as server:
            config = config_of("127.0.0.1", server.port)
            ended = threading.Event()
            with Presence(config, NAMES, config.planner.id, "planner") as hub, guest_session(config, "sink") as sink:
                wait_up(hub.session)
                sink.start(10.0).subscribe(["up"], lambda message: None, channel=Channel.BULK)
                address = f"{network.hub_address(NODE)}:{server.port}"
                numbers = [str(number) for number in (nbytes, rate_hz)]
                command = [*network.launcher(NODE), sys.executable, __file__, "--be-node", address, *numbers]
                sender = threading.Thread(target=send, args=(hub, "down", nbytes, rate_hz, ended), name="links.hub")
                sender.start()
                with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as node:
                    reports = (json.loads(line) for line in node.stdout or ())
                    for rate in mbit:
                        network.limit(NODE, rate)
                        began = time.monotonic()
                        yield rate, began, list(_until(reports, began + seconds))
                    node.kill()
                ended.set()
                sender.join()


def _until(reports: Iterator[dict[str, float]], end: float) -> Iterator[dict[str, float]]:
    for report in reports:
        yield report
        if report["at"] >= end:
            return


def settled_after(reports: Sequence[dict[str, float]], way: str, began: float, final: float) -> float:
    """Seconds until the estimate was near where it stayed, and did not leave it any more."""
    far = [r["at"] for r in reports if way not in r or abs(r[way] - final) > NEAR * final]
    return max([0.0, *(at - began for at in far)])


def main() -> int:
    """The command line; 2 when this machine cannot do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mbit", default="100,20,100", help="bandwidths, one after the other")
    parser.add_argument("--nbytes", type=int, default=300_000)
    parser.add_argument("--rate-hz", type=float, default=4.0, help="tensors a second each way; 0 for probes only")
    parser.add_argument("--seconds", type=float, default=8.0, help="for each bandwidth")
    parser.add_argument("--be-node", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.be_node:
        host, _, port = arguments.be_node[0].partition(":")
        be_node(config_of(host, int(port)), int(arguments.be_node[1]), float(arguments.be_node[2]))
        return 0
    table = Table("line, MB/s", "up, MB/s", "after s", "down, MB/s", "after s")
    mbit = [float(rate) for rate in arguments.mbit.split(",")]
    try:
        for rate, began, reports in measure(mbit, arguments.nbytes, arguments.rate_hz, arguments.seconds):
            row = [f"{rate / 8:.2f}"]
            for way in WAYS:
                final = statistics.median(r[way] for r in reports[len(reports) // 2 :] if way in r)
                row += [f"{final / 1e6:.2f}", f"{settled_after(reports, way, began, final):.1f}"]
            table.add_row(*row)
    except TrisectError as error:
        Console().print(f"not measured: {error}")
        return 2
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
