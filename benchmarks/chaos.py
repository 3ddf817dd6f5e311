"""Random faults on a pipeline of real processes, over two streams: what was lost, doubled or wrong, and for how long.

`camera` takes frames over MQTT, `folder` is the device's own source; both run on all three tiers. After each fault the
pipeline gets time to come back, so that a gap belongs to one fault. Lost frames of `folder` are holes in the order of
its images, which go round; at the end the device stops in order and answers what it has. Nodes reach the broker
through lines that can be cut.

    python benchmarks/chaos.py --faults 100 --seed 1 --json chaos.json
    python benchmarks/chaos.py --faults 100 --seed 1 --bridge --disk
    python benchmarks/chaos.py --sum one.json other.json

Most of a fault's time is a wait for a clock or a timeout: several runs, each with a pipeline of its own, share a
machine well. SIGTERM ends a run after its present fault, with its report.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.line import Line
from broker.server import Server, ServerSettings
from broker.settings import Bridge
from nodes.cli import demo, sample_images
from nodes.client import requests
from nodes.client.processes import Processes
from nodes.client.stream_client import StreamClient
from nodes.config.loader import load_config
from pipeline.plan import StreamId

FOLDER = StreamId("folder")
IMAGES = 40
EDGE_FROM, CLOUD_FROM = "15", "30"
REFUSAL_S = 10.0
"""A plan that is refused is told by the reason of the next one, which comes after the answer to who asked for it."""
SPARE_BYTES = (64 << 20, 120 << 20)
"""Enough to go on with what is compiled, too little for more (`pipeline.models.footprint`)."""
PATIENCE_S = 900.0
CUT_S = 20.0
WRONG_CLOCK = Path(__file__).parent / "wrong_clock"
NODES = tuple(map(str, demo.NODES))
OTHERS = (str(demo.EDGE), str(demo.CLOUD))
KINDS = (
    *(f"kill {name}" for name in (*NODES, "planner")),
    f"kill {OTHERS[0]} and {OTHERS[1]}",
    *(f"hang {name}" for name in OTHERS),
    *(f"cut {name}" for name in OTHERS),
    *(f"clock {name}" for name in NODES),
    *(f"starve {name}" for name in OTHERS),
    "slow consumer",
    "restart broker",
    "limits broker",
    *(f"gap {name}" for name in NODES),
)
BRIDGE_KINDS = ("cut bridge", "gap bridge")
DISK_KINDS = ("full disk", "readonly disk")
"""Of the folder in which nodes keep their state; they need root."""
GAP_S = 60.0
DISK_S = 8.0
DISK_BYTES = 16 << 20
SMALL = {"max_queued_messages": 20, "max_inflight_messages": 20, "max_packet_bytes": 280_000}


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done, between which moments of the monotonic clock it could show."""

    kind: str
    began: float
    ended: float


class Chaos:
    """A running pipeline, its two clients, and the faults done to it. `scale` shortens how long faults last."""

    def __init__(
        self,
        folder: Path,
        server: Server,
        processes: Processes,
        lines: Mapping[str, Line],
        seed: int,
        scale: float,
        rate_hz: float,
    ) -> None:
        self.folder, self.server, self.processes, self.lines = folder, server, processes, lines
        self.random, self.scale, self.rate_hz = random.Random(seed), scale, rate_hz
        self.images = sample_images.frames(IMAGES, seed=seed)
        (folder / "images").mkdir()
        for number, image in enumerate(self.images):
            (folder / "images" / f"{number:03d}.jpg").write_bytes(image)
        path = demo.write_config(folder, "mobilenet_v2", server.port)
        settings = yaml.safe_load(path.read_text())
        source = {"images": str(folder / "images"), "rate_hz": rate_hz, "loop": True}
        settings["streams"][str(FOLDER)] = {**settings["streams"][str(demo.STREAM)], "source": source}
        self.paths = {name: self._write(name, settings, server.port) for name in ("planner", *NODES)}
        for name, line in ((name, line) for name, line in lines.items() if name in NODES):
            self.paths[name] = self._write(name, settings, line.address.port)
        self.config = load_config(self.paths["planner"])
        self.clients = {stream: StreamClient(self.config, stream) for stream in (demo.STREAM, FOLDER)}
        self.sent = 0
        self.refused_total = 0
        self.faults: list[Fault] = []

    def _write(self, name: str, settings: dict[str, Any], port: int) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**settings, "broker": {"port": port}}))
        return path

    def start(self, name: str) -> None:
        """Start one process, its clock right."""
        path = ["-c", str(self.paths[name])]
        if name == "planner":
            self.processes.start(name, ["planner", *path])
            return
        state = ["--id", name, "--state-dir", str(self.folder / "state")]
        self._set_clock(name, 0.0)
        search = os.pathsep.join([str(WRONG_CLOCK), *filter(None, [os.environ.get("PYTHONPATH")])])
        clock = {"PYTHONPATH": search, "WRONG_CLOCK": str(self._clock(name))}
        self.processes.start(name, ["node", *path, *state], clock)

    def _clock(self, name: str) -> Path:
        return self.folder / f"{name}.clock"

    def _set_clock(self, name: str, offset_s: float) -> None:
        new = self._clock(name).with_suffix(".new")
        new.write_text(str(offset_s))
        new.replace(self._clock(name))

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

    def place(self) -> None:
        """Put both streams on three tiers, asked again while the planner is too busy to answer."""
        give_up = time.monotonic() + PATIENCE_S
        for stream in self.clients:
            while True:
                try:
                    requests.place(
                        self.config, stream, edge_from=EDGE_FROM, cloud_from=CLOUD_FROM, timeout_s=PATIENCE_S
                    )
                    break
                except requests.RequestRefused:
                    if time.monotonic() > give_up:
                        raise

    def publish_until(self, ended: threading.Event) -> None:
        """Frames for `camera`, as fast as `rate_hz`, with at most twice the window unanswered."""
        client = self.clients[demo.STREAM]
        while not ended.wait(1 / self.rate_hz):
            if client.in_flight < 2 * demo.WINDOW:
                client.publish(self.images[self.sent % IMAGES], str(self.sent))
                self.sent += 1

    def fault(self, kind: str) -> None:
        """Do one, undo it, wait until all is well."""
        began = time.monotonic()
        verb, _, names = kind.partition(" ")
        do: dict[str, Callable[[Sequence[str]], None]] = {
            "kill": self._kill,
            "hang": self._hang,
            "cut": self._cut,
            "clock": self._jump,
            "starve": self._starve,
            "slow": lambda _: self._hold_up_a_consumer(),
            "restart": lambda _: self.server.restart(),
            "limits": lambda _: self._limit_broker(),
            "gap": self._gap,
            "full": lambda _: self._fill_disk(),
            "readonly": lambda _: self._lock_disk(),
        }
        do[verb](names.split(" and "))
        time.sleep(self.random.uniform(2.0, 4.0))
        self.wait(f"after {kind}", self.ready)
        before = {stream: len(client.collected.results) for stream, client in self.clients.items()}
        self.wait(
            f"results after {kind}",
            lambda: all(len(self.clients[stream].collected.results) > count + 2 for stream, count in before.items()),
        )
        self.faults.append(Fault(kind, began, time.monotonic()))
        print(f"{time.strftime('%H:%M:%S')} {len(self.faults)} {kind}: {time.monotonic() - began:.1f} s", flush=True)

    def _kill(self, names: Sequence[str]) -> None:
        states = self.clients[FOLDER].states
        sessions = {name: states[name].session for name in names}  # type: ignore[index]
        for name in names:
            self.processes.kill(name)
        time.sleep(self.random.uniform(0.0, (3.0 if len(names) == 1 else 12.0) * self.scale))
        for name in names:
            self.start(name)
        self.wait(
            f"{' and '.join(names)} start anew",
            lambda: all(states[name].session != sessions[name] for name in names),  # type: ignore[index]
        )

    def _hang(self, names: Sequence[str]) -> None:
        for name in names:
            os.kill(self.processes.pid(name), signal.SIGSTOP)
        time.sleep(self.random.uniform(2.0, 15.0) * self.scale)
        for name in names:
            os.kill(self.processes.pid(name), signal.SIGCONT)

    def _cut(self, names: Sequence[str]) -> None:
        for name in names:
            self.lines[name].hold()
        time.sleep(CUT_S * self.scale)
        for name in names:
            self.lines[name].release()

    def _gap(self, names: Sequence[str]) -> None:
        """As when a Wi-Fi is out of reach: nothing passes, then all connections have to be made again."""
        for name in names:
            self.lines[name].hold()
        time.sleep(GAP_S * self.scale)
        for name in names:
            self.lines[name].cut()
            self.lines[name].release()

    def _limit_broker(self) -> None:
        """Few messages and small packets for a while, which it tells at CONNECT only."""
        usual = self.server.settings
        self.server.restart(replace(usual, **SMALL))  # type: ignore[arg-type]  # whole numbers all
        time.sleep(self.random.uniform(5.0, 15.0) * self.scale)
        self.server.restart(usual)

    def _fill_disk(self) -> None:
        filler = self.folder / "state" / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(1 << 16))
        time.sleep(DISK_S * self.scale)
        filler.unlink()

    def _lock_disk(self) -> None:
        state = str(self.folder / "state")
        # what is open for writing keeps a file system from becoming read-only, so over it lies its own picture
        subprocess.run(["mount", "--bind", state, state], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", state], check=True)
        time.sleep(DISK_S * self.scale)
        subprocess.run(["umount", state], check=True)

    def _jump(self, names: Sequence[str]) -> None:
        for name in names:
            self._set_clock(name, self.random.choice((-1.0, 1.0)) * self.random.uniform(10.0, 7200.0))
        time.sleep(self.random.uniform(2.0, 5.0))

    def _starve(self, names: Sequence[str]) -> None:
        """Next to no more memory for the nodes, then a new plan for both streams, which they refuse."""
        for name in names:
            pid = self.processes.pid(name)
            limit = psutil.Process(pid).memory_info().vms + self.random.randrange(*SPARE_BYTES)
            resource.prlimit(pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        known = {stream: set(client.plans) for stream, client in self.clients.items()}
        first, second = self.random.randint(5, 14), self.random.randint(31, 40)
        for stream in self.clients:
            with contextlib.suppress(requests.RequestRefused):
                requests.place(self.config, stream, edge_from=str(first), cloud_from=str(second), timeout_s=4.0)
        for stream, client in self.clients.items():
            for name in names:
                told = partial(self._says_refused, client, known[stream], name)
                self.refused_total += client.wait(told, REFUSAL_S)
        self._kill(names)
        self.wait("nodes are back", lambda: self.clients[FOLDER].ready() >= {*demo.NODES, self.config.planner.id})
        self.place()

    @staticmethod
    def _says_refused(client: StreamClient, known: set[int], name: str) -> bool:
        """True when the reason of a plan that was not known says that the node refused one."""
        return any(f"{name} refused" in plan["reason"] for epoch, plan in client.plans.items() if epoch not in known)

    def _hold_up_a_consumer(self) -> None:
        command = ["mosquitto_sub", "-p", str(self.server.port), "-q", "1", "-t", "trisect/#"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as consumer:
            time.sleep(1.0)
            consumer.send_signal(signal.SIGSTOP)
            time.sleep(self.random.uniform(5.0, 15.0) * self.scale)
            consumer.kill()

    def run(self, kinds: Sequence[str], ended_early: threading.Event) -> None:
        """All faults, or those until it shall end early, then the end of both streams."""
        for name in ("planner", *NODES):
            self.start(name)
        self.wait("start", lambda: all(c.ready() >= set(demo.NODES) and c.active for c in self.clients.values()))
        self.place()
        ended = threading.Event()
        publisher = threading.Thread(target=self.publish_until, args=(ended,), name="chaos.publisher")
        publisher.start()
        try:
            for kind in kinds:
                if ended_early.is_set():
                    break
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
        """Counts for each stream, and for each kind of fault the longest gap between results in each of its times."""
        streams = {str(stream): self._stream_report(stream) for stream in self.clients}
        arrivals = [sorted(client.collected.arrivals.values()) for client in self.clients.values()]
        gaps: dict[str, list[float]] = {}
        for fault in self.faults:
            inside = [b - a for at in arrivals for a, b in pairwise(at) if fault.began <= (a + b) / 2 < fault.ended]
            gaps.setdefault(fault.kind, []).append(round(max(inside, default=0.0), 2))
        kinds = Counter(fault.kind for fault in self.faults)
        done = {"faults": len(self.faults), "kinds": dict(kinds), "plans_refused": self.refused_total}
        return {**done, "streams": streams, "gap_seconds": gaps}

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
            "duplicates": again + collected.duplicates,
            "errors": sum(not result["ok"] for result in results),
            "bit_equal": equal,
        }


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own, in memory. Needs root."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _brokers(stack: ExitStack, folder: Path, *, is_bridged: bool) -> tuple[Server, dict[str, Line]]:
    """The broker, and the lines to it; the cloud's own one behind a bridge, whose line is among them."""
    settings = ServerSettings(persistence_dir=folder / "broker")
    if not is_bridged:
        server = stack.enter_context(Server(settings))
        return server, {name: stack.enter_context(Line(server.host, server.port)) for name in NODES}
    (folder / "far").mkdir()
    far = stack.enter_context(Server(ServerSettings(persistence_dir=folder / "far")))
    line = stack.enter_context(Line(far.host, far.port))
    bridge = Bridge(line.address.host, line.address.port)
    server = stack.enter_context(Server(replace(settings, bridge=bridge)))
    ends = {name: far if name == str(demo.CLOUD) else server for name in NODES}
    lines = {name: stack.enter_context(Line(end.host, end.port)) for name, end in ends.items()}
    return server, {**lines, "bridge": line}


def run(
    kinds: Sequence[str],
    seed: int,
    folder: Path,
    *,
    scale: float = 1.0,
    is_bridged: bool = False,
    rate_hz: float = 4.0,
    ended_early: threading.Event | None = None,
) -> Mapping[str, Any]:
    """These faults, in `folder`; returns the report, with `ended` saying why it ended early if it did."""
    (folder / "broker").mkdir(parents=True)
    with ExitStack() as stack:
        if any(kind in DISK_KINDS for kind in kinds):
            stack.enter_context(small_disk(folder / "state"))
        server, lines = _brokers(stack, folder, is_bridged=is_bridged)
        processes = stack.enter_context(Processes(folder))
        chaos = Chaos(folder, server, processes, lines, seed, scale, rate_hz)
        for client in chaos.clients.values():
            stack.enter_context(client)
        ended = ""
        try:
            chaos.run(kinds, ended_early or threading.Event())
        except (TimeoutError, requests.RequestRefused) as error:
            ended = str(error)
        processes.stop()
        return {"seed": seed, **chaos.report(), "ended": ended}


def summed(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several runs' reports as one: counts added, gaps by kind with how often, their median and the longest."""
    streams: dict[str, Counter[str]] = {}
    gaps: dict[str, list[float]] = {}
    for report in reports:
        for name, counts in report["streams"].items():
            streams.setdefault(name, Counter()).update(counts)
        for kind, seconds in report["gap_seconds"].items():
            gaps.setdefault(kind, []).extend(seconds)
    return {
        "faults": sum(report["faults"] for report in reports),
        "plans_refused": sum(report["plans_refused"] for report in reports),
        "streams": {name: dict(counts) for name, counts in streams.items()},
        "gaps": {
            kind: {"times": len(of), "median_s": round(statistics.median(of), 2), "longest_s": max(of)}
            for kind, of in sorted(gaps.items())
        },
        "ended": "; ".join(report["ended"] for report in reports if report["ended"]),
    }


def holds(report: Mapping[str, Any]) -> bool:
    """Whether all went through, nothing was lost, nothing came twice, and every output is the unsplit model's."""
    return not report["ended"] and all(
        stream["results"]
        and stream["frames_in"] == stream["results"] == stream["bit_equal"]
        and not stream["duplicates"]
        for stream in report["streams"].values()
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate-hz", type=float, default=4.0, help="frames a second of each stream; 4")
    parser.add_argument("--only", help="kinds that begin with this")
    parser.add_argument("--bridge", action="store_true", help="the cloud at a broker of its own, behind a bridge")
    parser.add_argument("--disk", action="store_true", help="state in a small file system of its own; needs root")
    parser.add_argument("--sum", type=Path, nargs="+", help="print the sum of these reports, and run nothing")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--directory", type=Path, help="keep the logs here; it must not exist")
    arguments = parser.parse_args()
    if arguments.sum:
        report: Mapping[str, Any] = summed([json.loads(path.read_text()) for path in arguments.sum])
        print(json.dumps(report, indent=2))
        return 0 if holds(report) else 1
    known = KINDS + BRIDGE_KINDS * arguments.bridge + DISK_KINDS * arguments.disk
    chosen = [kind for kind in known if kind.startswith(arguments.only or "")]
    kinds = [chosen[number % len(chosen)] for number in range(arguments.faults)]
    random.Random(arguments.seed).shuffle(kinds)
    ended_early = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended_early.set())
    with tempfile.TemporaryDirectory(prefix="trisect-chaos-") as temporary:
        folder = arguments.directory or Path(temporary) / "run"
        report = run(
            kinds,
            arguments.seed,
            folder,
            is_bridged=arguments.bridge,
            rate_hz=arguments.rate_hz,
            ended_early=ended_early,
        )
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    return 0 if holds(report) else 1


if __name__ == "__main__":
    sys.exit(main())
