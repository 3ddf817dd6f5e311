"""A three-tier pipeline over brokers that are not one mosquitto 2.0: what of it was lost, doubled or wrong.

    python benchmarks/brokers.py bridge --protocol mqttv311      two mosquitto, joined; the bridge is cut for 10 s
    python benchmarks/brokers.py bridge --protocol mqttv50
    python benchmarks/brokers.py limits                          max_queued_messages 20, memory_limit, a smaller packet
    python benchmarks/brokers.py one --mosquitto /usr/sbin/mosquitto     another mosquitto
    python benchmarks/brokers.py one --address 127.0.0.1:1883    a broker that runs already, such as RabbitMQ

Device, edge, planner and camera are at the first broker, the cloud at the second. A person at the second one places the
stream and publishes photos, too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from benchmarks.line import Line
from broker.ports import free_port
from broker.server import Server, ServerSettings
from broker.session import Address
from broker.settings import Bridge, Protocol
from nodes.cli import demo, sample_images
from nodes.client import publishing, requests
from nodes.client.processes import Processes
from nodes.client.stream_client import StreamClient
from nodes.config.loader import load_config

FAR = str(demo.CLOUD)
PATIENCE_S = 180.0
CUT_S = 10.0
INTERVAL_S = 0.1
PHOTOS = 5
SMALL = ServerSettings(max_queued_messages=20, max_inflight_messages=20)


class Sites:
    """One pipeline whose nodes have brokers of their own."""

    def __init__(self, folder: Path, near: Address, far: Address, processes: Processes) -> None:
        self.folder, self.processes = folder, processes
        settings = yaml.safe_load(demo.write_config(folder, "mobilenet_v2", near.port).read_text())
        self.paths = {name: self._write(name, settings, near) for name in ("planner", *map(str, demo.NODES))}
        self.paths[FAR] = self._write(FAR, settings, far)
        self.config, self.far_config = load_config(self.paths["planner"]), load_config(self.paths[FAR])
        self.images = sample_images.frames(40, seed=1)

    def _write(self, name: str, settings: dict[str, Any], broker: Address) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**settings, "broker": {"host": broker.host, "port": broker.port}}))
        return path

    def start(self) -> None:
        """All processes."""
        self.processes.start("planner", ["planner", "-c", str(self.paths["planner"])])
        for name in map(str, demo.NODES):
            state = ["--id", name, "--state-dir", str(self.folder / "state")]
            self.processes.start(name, ["node", "-c", str(self.paths[name]), *state])

    def place(self) -> None:
        """On all three tiers, asked for at the far broker; again, while the planner has not heard of all nodes."""
        give_up = time.monotonic() + PATIENCE_S
        while True:
            try:
                requests.place(self.far_config, demo.STREAM, edge_from="15", cloud_from="30", timeout_s=PATIENCE_S)
                return
            except requests.RequestRefused:
                if time.monotonic() > give_up:
                    raise
                time.sleep(1.0)


def exercise(sites: Sites, frames: int, halfway: Callable[[], None]) -> dict[str, Any]:
    """Frames on three tiers, something that happens halfway, and photos of a person at the far broker."""
    with StreamClient(sites.config, demo.STREAM) as client:

        def wait(what: str, condition: Callable[[], bool]) -> None:
            if not client.wait(condition, PATIENCE_S, sites.processes.check):
                raise TimeoutError(f"{what}: not within {PATIENCE_S:.0f} s; see the logs in {sites.folder}")

        sites.start()
        wait("ready", lambda: client.ready() >= {*demo.NODES, sites.config.planner.id} and client.active is not None)
        sites.place()
        middle = threading.Thread(target=halfway)
        for number in range(frames):
            if number == frames // 2:
                middle.start()
            wait("room", lambda: client.in_flight < 2 * demo.WINDOW)
            client.publish(sites.images[number % len(sites.images)], str(number))
            time.sleep(INTERVAL_S)
        middle.join()
        wait("results", lambda: client.collected.whole >= frames)
        sites.place()
        photos = [sites.folder / f"photo-{number}.jpg" for number in range(PHOTOS)]
        for path, image in zip(photos, sites.images, strict=False):
            path.write_bytes(image)
        own = publishing.publish(sites.far_config, demo.STREAM, photos, rate_hz=None, timeout_s=PATIENCE_S)
        answered = sum(bool(result["ok"]) for result in own)
        wait("photos", lambda: client.collected.whole >= frames + PHOTOS)
        return {**_report(sites, client, frames), "photos_answered": answered}


def _report(sites: Sites, client: StreamClient, frames: int) -> dict[str, Any]:
    collected = client.collected
    named = {s: _number(r) for s, r in collected.results.items()}
    of_camera = {s: number for s, number in named.items() if number is not None}
    times = Counter(of_camera.values())
    results = [
        {**collected.results[s], "correlation": number % len(sites.images)} for s, number in sorted(of_camera.items())
    ]
    equal, _ = demo.compare(sites.config, results, collected.outputs, sites.images)
    return {
        "frames_in": frames,
        "results": len(times),
        "lost": frames - len(times),
        "duplicates": times.total() - len(times) + collected.duplicates,
        "bit_equal": equal,
        "on_three_tiers": sum(len(result["tiers"]) == 3 for result in results),
    }


def _number(result: Mapping[str, Any]) -> int | None:
    name = str(result.get("correlation", ""))
    return int(name) if name.isdecimal() else None


def holds(report: Mapping[str, Any]) -> bool:
    """Whether nothing was lost, nothing came twice, all was equal, and a person far away got all results."""
    frames = report["frames_in"]
    return bool(
        report["results"] == report["bit_equal"] == frames
        and not report["duplicates"]
        and report["on_three_tiers"]
        and report["photos_answered"] == PHOTOS
    )


@contextmanager
def bridged(protocol: Protocol, folder: Path) -> Iterator[tuple[Address, Address, Line]]:
    """Two mosquitto whose bridge goes through a line."""
    with (
        Server(ServerSettings()) as far,
        Line(far.host, far.port) as line,
        Server(ServerSettings(bridge=Bridge(line.address.host, line.address.port, protocol=protocol))) as near,
    ):
        yield Address(near.host, near.port), Address(far.host, far.port), line


def run_bridge(protocol: Protocol, frames: int, folder: Path, *, cut_s: float = CUT_S) -> dict[str, Any]:
    """Over two brokers, the bridge standing still for a while, and breaking then."""
    with bridged(protocol, folder) as (near, far, line), Processes(folder) as processes:

        def cut() -> None:
            line.hold()
            time.sleep(cut_s)
            line.cut()
            line.release()

        return {"bridge": protocol, **exercise(Sites(folder, near, far, processes), frames, cut)}


def run_one(address: Address | None, executable: str | None, frames: int, folder: Path) -> dict[str, Any]:
    """With one broker, ours or one that is there."""
    server = nullcontext(address) if address else Server(ServerSettings(), executable=executable)
    with server as broker, Processes(folder) as processes:
        at = Address(broker.host, broker.port)
        return {
            "broker": str(address or executable),
            **exercise(Sites(folder, at, at, processes), frames, lambda: None),
        }


def run_limits(frames: int, folder: Path) -> dict[str, Any]:
    """A broker with small limits that comes back, halfway, with still smaller packets."""
    (folder / "broker").mkdir()
    settings = replace(SMALL, port=free_port("127.0.0.1"), persistence_dir=folder / "broker", autosave_s=1)
    with ExitStack() as stack:
        first = stack.enter_context(Server(settings))
        at = Address(first.host, first.port)
        processes = stack.enter_context(Processes(folder))

        def smaller() -> None:
            first.stop()
            stack.enter_context(Server(replace(settings, max_packet_bytes=280_000)))

        return {"limits": "20 messages, 280 kB", **exercise(Sites(folder, at, at, processes), frames, smaller)}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("bridge", "limits", "one"))
    parser.add_argument("--protocol", choices=("mqttv311", "mqttv50"), default="mqttv311")
    parser.add_argument("--mosquitto", help="the executable")
    parser.add_argument("--address", help="host:port of a broker that runs")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--directory", type=Path, help="keep the logs here; it must not exist")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trisect-brokers-") as temporary:
        folder = arguments.directory or Path(temporary) / "run"
        folder.mkdir()
        if arguments.what == "bridge":
            report = run_bridge(arguments.protocol, arguments.frames, folder)
        elif arguments.what == "limits":
            report = run_limits(arguments.frames, folder)
        else:
            host, _, port = (arguments.address or "").rpartition(":")
            address = Address(host, int(port)) if port else None
            report = run_one(address, arguments.mosquitto, arguments.frames, folder)
    print(json.dumps(report, indent=2))
    return 0 if holds(report) else 1


if __name__ == "__main__":
    sys.exit(main())
