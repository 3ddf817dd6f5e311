"""Put one hostile client at a running three-tier pipeline: whether results go on, how late they come, what is lost.

It hears all that is said, and sends it again, changed a little or not at all, 200 messages a second, on the topics on
which it was said: plans, states, tensors, answers, requests, frames, results; a tenth of it retained. Frames come at a
fixed rate from another client, for as long before (calm) as during the attack, in one run. It is a process of its own,
and makes most of its messages before the attack, since to make one takes longer than to send it.

    python -m benchmarks.hostile_client [--seconds 60] [--rate 200] [--frames-hz 4] [--kinds plan,state] [--json FILE]

It has no password to break: this broker lets everybody in. What it forges in another's name with all numbers right is
believed, so answers are counted here and not compared; against that stand the broker's passwords and its ACL.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import psutil
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from broker.server import Server, ServerSettings
from nodes.cli import demo, sample_images
from nodes.client.processes import Processes
from nodes.client.stream_client import StreamClient
from nodes.config.loader import load_config
from nodes.display.screen import Screen
from tests.properties.mutations import Mutations

HEARD = 64
FRESH = 4
LARGE_BYTES = 16_000
"""In the attack itself, what is larger has some bytes changed, or goes as it is."""
MOST_BYTES = 200_000
PATIENCE_S = 120.0


class Hostile:
    """A client that hears everything and sends it again, a little wrong."""

    def __init__(self, port: int, pipeline: str, seed: int, kinds: frozenset[str]) -> None:
        self._kinds = kinds
        self._mutations = Mutations(random.Random(seed))
        self._heard: dict[str, deque[tuple[str, bytes]]] = {}
        self._lock = threading.Lock()
        self._ready: deque[tuple[str, str, bytes]] = deque()
        self.sent: Counter[str] = Counter()
        self.seconds = 0.0
        self._prefix = f"trisect/v1/{pipeline}/"
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.subscribe(f"{self._prefix}#")
        self._client.loop_start()

    def _on_message(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:
        if len(message.payload) <= MOST_BYTES:
            with self._lock:
                self._heard.setdefault(self._kind(message.topic), deque(maxlen=HEARD)).append(
                    (message.topic, bytes(message.payload))
                )

    def _kind(self, topic: str) -> str:
        parts = topic.removeprefix(self._prefix).split("/")
        return parts[2] if parts[0] == "node" and len(parts) > 2 else parts[0]

    def prepare(self, count: int) -> None:
        """Make so many messages of what was heard, to be sent later."""
        self._ready = deque(self._made() for _ in range(count))

    def _made(self, at_most: int = MOST_BYTES) -> tuple[str, str, bytes]:
        chance = self._mutations.chance
        with self._lock:
            kind = chance.choice(sorted(self._heard.keys() & self._kinds if self._kinds else self._heard))
            topic, payload = chance.choice(self._heard[kind])
        if chance.random() < 0.1:
            return kind, topic, payload
        return kind, topic, self._wrong(payload) if len(payload) <= at_most else self._cut(payload)

    def attack(self, seconds: float, rate: float) -> None:
        """Send for so long; one in four is made of what has just been heard."""
        chance = self._mutations.chance
        began = time.monotonic()
        for number in range(round(seconds * rate)):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            is_ready = number % FRESH and self._ready
            kind, topic, payload = self._ready.popleft() if is_ready else self._made(LARGE_BYTES)
            self._client.publish(topic, payload, qos=1, retain=chance.random() < 0.1)
            self.sent[kind] += 1
        self.seconds = time.monotonic() - began

    def _wrong(self, payload: bytes) -> bytes:
        try:
            return self._mutations.mutated(payload)
        except (ValueError, TypeError, RecursionError, msgpack.UnpackException):  # a photo, a claim, its own nonsense
            return self._cut(payload)

    def _cut(self, payload: bytes) -> bytes:
        chance = self._mutations.chance
        return payload[: chance.randrange(len(payload) + 1)] + chance.randbytes(4)

    def stop(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()


def _serve(commands: Connection, port: int, pipeline: str, seed: int, kinds: frozenset[str]) -> None:
    """The hostile client's process: obeys `prepare` and `attack`, each with its arguments, and says what it did."""
    hostile = Hostile(port, pipeline, seed, kinds)
    while (command := commands.recv()) is not None:
        name, *arguments = command
        getattr(hostile, name)(*arguments)
        commands.send((hostile.sent, hostile.seconds))
    hostile.stop()


@contextmanager
def hostile_process(port: int, pipeline: str, seed: int, kinds: frozenset[str]) -> Iterator[Connection]:
    """A hostile client in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=_serve, args=(theirs, port, pipeline, seed, kinds), daemon=True)
    process.start()
    try:
        yield ours
    finally:
        ours.send(None)
        process.join()


def main(arguments: list[str]) -> int:
    """Returns 1 when a frame had no result, or p95 more than doubled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--frames-hz", type=float, default=4.0)
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--kinds", type=lambda text: text.split(","), default=[], help="Only topics of these names, as plan,state."
    )
    parser.add_argument("--directory", type=Path, help="Keep the logs here.")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        report = run(options.directory or Path(temporary), options)
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return int(bool(report["lost"]) or report["p95_ratio"] > 2.0)


def run(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Calm, attack, and what came of both."""
    console = Screen()
    folder.mkdir(parents=True, exist_ok=True)
    server = Server(ServerSettings(persistence_dir=folder / "broker"), log_file=folder / "broker.log")
    with server, Processes(folder, also_check=server.check) as processes:
        path = demo.write_config(folder, options.model, server.port)
        config = load_config(path)
        demo.start_nodes(processes, path, folder, console)
        pids = {name: processes.pid(name) for name in ("planner", *map(str, demo.NODES))}
        with (
            StreamClient(config, demo.STREAM) as client,
            hostile_process(server.port, config.pipeline, options.seed, frozenset(options.kinds)) as hostile,
        ):
            if not client.wait(lambda: client.ready() >= set(demo.NODES) and client.active is not None, 300.0):
                raise TimeoutError("the nodes are not ready after 300 s")
            demo.split_in_three(client)
            feeder = Feeder(client, options.frames_hz)
            feeder.run(10.0)
            hostile.send(("prepare", round(options.seconds * options.rate * (1 - 1 / FRESH))))
            hostile.recv()
            calm = feeder.run(options.seconds)
            before = memory(pids)
            seconds_before = processor_seconds(pids)
            hostile.send(("attack", options.seconds, options.rate))
            attacked = feeder.run(options.seconds)  # the attack lasts longer where the machine is too slow for its rate
            sent, seconds = hostile.recv()
            seconds_taken = {name: s - seconds_before[name] for name, s in processor_seconds(pids).items()}
            after = memory(pids)
            client.wait(lambda: not feeder.missing(), PATIENCE_S)
            processes.check()
            return {
                "command": " ".join(["python -m benchmarks.hostile_client", *sys.argv[1:]]),
                "messages": sum(sent.values()),
                "messages_per_second": round(sum(sent.values()) / seconds, 1),
                "by_kind": dict(sent.most_common()),
                "frames": len(feeder.sent),
                "lost": len(feeder.missing()),
                "answered_in_the_attack": attacked["results"],
                "calm": calm,
                "attacked": attacked,
                "p95_ratio": round(attacked["p95_ms"] / calm["p95_ms"], 2),
                "megabytes": {name: [round(before[name], 1), round(after[name], 1)] for name in pids},
                "processor_seconds": {name: round(taken, 1) for name, taken in seconds_taken.items()},
                "processes_alive": all(psutil.pid_exists(pid) for pid in pids.values()),
            }


class Feeder:
    """Frames at a fixed rate, and when each had its first result."""

    def __init__(self, client: StreamClient, rate_hz: float) -> None:
        self._client, self._rate_hz = client, rate_hz
        self._images = sample_images.frames(20)
        self.sent: dict[str, float] = {}

    def run(self, seconds: float) -> Mapping[str, float]:
        """Send for so long; seconds of those frames that were answered by the end of it, and a moment after."""
        names = []
        began = time.monotonic()
        for number in range(round(seconds * self._rate_hz)):
            time.sleep(max(0.0, began + number / self._rate_hz - time.monotonic()))
            name = str(len(self.sent))
            self.sent[name] = time.monotonic()
            names.append(name)
            self._client.publish(self._images[len(self.sent) % len(self._images)], name)
        self._client.wait(lambda: not self.missing(), 10.0)
        answered = self._answered()
        taken = [answered[name] - self.sent[name] for name in names if name in answered]
        p50, p95 = np.percentile(taken, [50, 95]) * 1e3 if taken else (float("inf"), float("inf"))
        return {"frames": len(names), "results": len(taken), "p50_ms": round(p50, 1), "p95_ms": round(p95, 1)}

    def _answered(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for sequence, result in list(self._client.collected.results.items()):
            name, at = str(result.get("correlation")), self._client.collected.arrivals[sequence]
            found[name] = min(at, found.get(name, at))
        return found

    def missing(self) -> set[str]:
        """Frames without a result."""
        return self.sent.keys() - self._answered().keys()


def memory(pids: Mapping[str, int]) -> dict[str, float]:
    """Resident megabytes of each process."""
    return {name: psutil.Process(pid).memory_info().rss / 1e6 for name, pid in pids.items()}


def processor_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """Of each process so far."""
    times = {name: psutil.Process(pid).cpu_times() for name, pid in pids.items()}
    return {name: taken.user + taken.system for name, taken in times.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
