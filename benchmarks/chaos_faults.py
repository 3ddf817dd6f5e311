"""Faults of a running pipeline of real processes: killed, hung, cut off, starved, with wrong clocks and full disks."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.line import Line
from broker.server import Server
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
    """What was done, and between which moments of the monotonic clock it could show.

    `restarted` is when killed processes were started again.
    """

    kind: str
    began: float
    ended: float
    restarted: float | None


class FaultyPipeline:
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
        self._restarted: float | None = None

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

    def fault(self, kind: str) -> None:
        """Do one, undo it, wait until all is well."""
        began, self._restarted = time.monotonic(), None
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
        self.faults.append(Fault(kind, began, time.monotonic(), self._restarted))
        print(f"{time.strftime('%H:%M:%S')} {len(self.faults)} {kind}: {time.monotonic() - began:.1f} s", flush=True)

    def _kill(self, names: Sequence[str]) -> None:
        states = self.clients[FOLDER].states
        sessions = {name: states[name].session for name in names}  # type: ignore[index]
        for name in names:
            self.processes.kill(name)
        time.sleep(self.random.uniform(0.0, (3.0 if len(names) == 1 else 12.0) * self.scale))
        self._restarted = time.monotonic()
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
