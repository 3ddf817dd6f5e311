"""Random faults on a pipeline of real processes, over two streams: what was lost, doubled or wrong, and for how long.

`camera` takes frames over MQTT, `folder` is the device's own source; both run on all three tiers. After each fault the
pipeline gets time to come back, so that a gap belongs to one fault. Lost frames of `folder` are holes in the order of
its images, which go round; at the end the device stops in order and answers what it has.

    python benchmarks/chaos.py --faults 30 --seed 1 --json chaos.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from broker.server import Server, ServerSettings
from nodes import demo, photos, requests
from nodes.config import load_config
from nodes.processes import Processes
from nodes.stream_client import StreamClient
from pipeline.plan import StreamId

FOLDER = StreamId("folder")
IMAGES = 40
PATIENCE_S = 120.0
KINDS = (
    *(f"kill {name}" for name in ("device-1", "edge-1", "cloud-1", "planner")),
    *(f"stop {name}" for name in ("edge-1", "cloud-1")),
    "restart broker",
)


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done, between which moments of the monotonic clock it could show."""

    kind: str
    began: float
    ended: float


class Chaos:
    """A running pipeline, its two clients, and the faults done to it."""

    def __init__(self, folder: Path, server: Server, processes: Processes, seed: int) -> None:
        self.folder, self.server, self.processes = folder, server, processes
        self.random = random.Random(seed)
        self.images = photos.frames(IMAGES, seed=seed)
        (folder / "images").mkdir()
        for number, image in enumerate(self.images):
            (folder / "images" / f"{number:03d}.jpg").write_bytes(image)
        self.path = demo.write_config(folder, "mobilenet_v2", server.port)
        settings = yaml.safe_load(self.path.read_text())
        source = {"images": str(folder / "images"), "rate_hz": 4.0, "loop": True}
        settings["streams"][str(FOLDER)] = {**settings["streams"][str(demo.STREAM)], "source": source}
        settings["transport"] = {"keepalive_s": 5}
        self.path.write_text(yaml.safe_dump(settings))
        self.config = load_config(self.path)
        self.clients = {stream: StreamClient(self.config, stream) for stream in (demo.STREAM, FOLDER)}
        self.sent = 0
        self.faults: list[Fault] = []

    def start(self, name: str) -> None:
        """Start one process."""
        state = ["--id", name, "--state-dir", str(self.folder / "state")]
        self.processes.start(
            name, ["planner", "-c", str(self.path)] if name == "planner" else ["node", "-c", str(self.path), *state]
        )

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        """Raises TimeoutError."""
        if not self.clients[FOLDER].wait(condition, PATIENCE_S):
            raise TimeoutError(f"{what}: not within {PATIENCE_S:.0f} s; faults so far: {[f.kind for f in self.faults]}")

    def ready(self) -> bool:
        """Whether all nodes are ready and both streams run on three tiers."""
        return all(
            client.ready() >= {*demo.NODES, self.config.planner.id}
            and client.active is not None
            and len(client.plans.get(client.active, {}).get("stages", ())) == 3
            for client in self.clients.values()
        )

    def publish_until(self, ended: threading.Event) -> None:
        """Frames for `camera`, as fast as 4 a second, with at most twice the window unanswered."""
        client = self.clients[demo.STREAM]
        while not ended.wait(0.25):
            if client.in_flight < 2 * demo.WINDOW:
                client.publish(self.images[self.sent % IMAGES], str(self.sent))
                self.sent += 1

    def fault(self, kind: str) -> None:
        """Do one, mend it, wait until all is well."""
        began = time.monotonic()
        verb, _, name = kind.partition(" ")
        sessions = {node: state.session for node, state in self.clients[FOLDER].states.items()}
        if verb == "kill":
            self.processes.kill(name)
            time.sleep(self.random.uniform(0.0, 3.0))
            self.start(name)
            client = self.clients[FOLDER]
            self.wait(f"{name} starts anew", lambda: client.states[name].session != sessions.get(name))  # type: ignore[index]
        elif verb == "stop":
            os.kill(self.processes.pid(name), signal.SIGSTOP)
            time.sleep(self.random.uniform(2.0, 15.0))
            os.kill(self.processes.pid(name), signal.SIGCONT)
        else:
            self.server.restart()
        time.sleep(self.random.uniform(2.0, 4.0))
        self.wait(f"after {kind}", self.ready)
        before = {stream: len(client.collected.results) for stream, client in self.clients.items()}
        self.wait(
            f"results after {kind}",
            lambda: all(len(self.clients[stream].collected.results) > count + 2 for stream, count in before.items()),
        )
        self.faults.append(Fault(kind, began, time.monotonic()))

    def run(self, faults: int) -> None:
        """All faults, then the end of both streams."""
        for name in ("planner", *demo.NODES):
            self.start(name)
        self.wait("start", lambda: all(c.ready() >= set(demo.NODES) and c.active for c in self.clients.values()))
        for stream in self.clients:
            requests.place(self.config, stream, edge_from="15", cloud_from="30")
        ended = threading.Event()
        publisher = threading.Thread(target=self.publish_until, args=(ended,), name="chaos.publisher")
        publisher.start()
        try:
            kinds = [KINDS[number % len(KINDS)] for number in range(faults)]
            self.random.shuffle(kinds)
            for kind in kinds:
                print(f"{time.strftime('%H:%M:%S')} {kind}", flush=True)
                self.fault(kind)
        finally:
            ended.set()
            publisher.join()
        camera = self.clients[demo.STREAM]
        answered = lambda: len({r["correlation"] for r in camera.collected.results.values()}) >= self.sent  # noqa: E731
        camera.wait(answered, 60.0)
        self.processes.stop(str(demo.DEVICE))
        time.sleep(1.0)

    def report(self) -> dict[str, Any]:
        """Counts for each stream, and the longest gap between results for each kind of fault."""
        streams = {str(stream): self._stream_report(stream) for stream in self.clients}
        gaps: dict[str, float] = {}
        for client in self.clients.values():
            at = sorted(client.collected.arrivals.values())
            for fault in self.faults:
                inside = [b - a for a, b in pairwise(at) if b > fault.began and a < fault.ended]
                gaps[fault.kind] = round(max([gaps.get(fault.kind, 0.0), *inside]), 2)
        kinds = Counter(fault.kind for fault in self.faults)
        return {"faults": len(self.faults), "kinds": dict(kinds), "streams": streams, "longest_gap_seconds": gaps}

    def _stream_report(self, stream: StreamId) -> dict[str, Any]:
        collected = self.clients[stream].collected
        results = [collected.results[sequence] for sequence in sorted(collected.results)]
        if stream == FOLDER:
            numbers = [int(result["source"][:3]) for result in results]
            steps = [(b - a) % IMAGES for a, b in pairwise(numbers)]
            lost, again = sum(step - 1 for step in steps if step > 1), steps.count(0)
            frames_in = len(results) + lost - again
        else:
            names = Counter(int(result["correlation"]) for result in results)
            numbers = [int(result["correlation"]) % IMAGES for result in results]
            frames_in, lost, again = self.sent, self.sent - len(names), names.total() - len(names)
        named = [{**r, "correlation": number} for r, number in zip(results, numbers, strict=True)]
        equal, _ = demo.compare(self.config, named, collected.outputs, self.images)
        return {
            "frames_in": frames_in,
            "results": len(results),
            "lost": lost,
            "repeated_under_another_sequence": again,
            "repeated_under_the_same_sequence": collected.duplicates,
            "errors": sum(not result["ok"] for result in results),
            "bit_equal": equal,
        }


def run(faults: int, seed: int, folder: Path) -> Mapping[str, Any]:
    """Run it in `folder`; returns the report, with `ended` saying why it ended early if it did."""
    (folder / "broker").mkdir(parents=True)
    with Server(ServerSettings(persistence_dir=folder / "broker")) as server, Processes(folder) as processes:
        chaos = Chaos(folder, server, processes, seed)
        ended = ""
        with chaos.clients[demo.STREAM], chaos.clients[FOLDER]:
            try:
                chaos.run(faults)
            except TimeoutError as error:
                ended = str(error)
        processes.stop()
        return {"seed": seed, **chaos.report(), "ended": ended}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--directory", type=Path, help="keep the logs here; it must not exist")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trisect-chaos-") as temporary:
        report = run(arguments.faults, arguments.seed, arguments.directory or Path(temporary) / "run")
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    bad = any(
        stream["lost"] or stream["repeated_under_another_sequence"] or stream["bit_equal"] != stream["results"]
        for stream in report["streams"].values()
    )
    return 1 if bad or report["ended"] else 0


if __name__ == "__main__":
    sys.exit(main())
