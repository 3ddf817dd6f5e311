"""A pipeline on machines of one computer: a device and a cloud behind token buckets, edge nodes beside the broker.

Every node has one thread, and may have a share of a core only, from its first moment on: it measures itself under it.
Needs root.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from benchmarks.network import Network
from benchmarks.quota import Quotas
from benchmarks.recording import recording
from broker.server import Server, ServerSettings
from nodes.cli import demo, sample_images
from nodes.client.processes import Processes
from nodes.client.stream_client import StreamClient
from nodes.config.loader import load_config

USER, PASSWORD = "bench", "bench"
DEVICE, EDGE, CLOUD = map(str, demo.NODES)
SEEDED = {"weights": "seed:0"}
IMAGES = 20
PATIENCE_S = 600.0
AS_PUBLISHED = {"codecs": False, "constraints": {"pin": {"frame_decode": "device", "frame_normalise": "device"}}}
"""The terms of a plan as D3 and Scission have them: the device decodes, and float32 tensors are sent as they are."""


class Testbed:
    """`nodes` are the settings of each node, `source` is the model's where it is no name of the zoo, `plan` are the
    stream's terms, `settings` further sections; `network` has a machine for the device and one for the cloud. What the
    planner learns from is kept in `record`.
    """

    def __init__(
        self,
        folder: Path,
        network: Network,
        stack: ExitStack,
        *,
        model: str,
        nodes: Mapping[str, Mapping[str, Any]],
        record: Path | None = None,
        source: str = "",
        plan: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.network, self.model, self.nodes = folder, network, model, nodes
        self._source, self._plan, self._settings = source, plan or {}, settings or {}
        self.quotas = stack.enter_context(Quotas())
        secrets = folder / "passwords"
        subprocess.run(["mosquitto_passwd", "-b", "-c", str(secrets), USER, PASSWORD], check=True, capture_output=True)
        secrets.chmod(0o644)
        server = stack.enter_context(Server(ServerSettings(host="0.0.0.0", password_file=secrets)))
        self._paths = {name: self._write(name, server.port) for name in ("planner", *nodes)}
        self.config = load_config(self._paths["planner"])
        stack.enter_context(recording(self.config, record))
        self.processes = stack.enter_context(Processes(folder))
        self.client = stack.enter_context(StreamClient(self.config, demo.STREAM))
        self.images = sample_images.frames(IMAGES, seed=1)
        self.sent = 0

    def _write(self, name: str, port: int) -> Path:
        host = self.network.hub_address(name) if name in (DEVICE, CLOUD) else "127.0.0.1"
        settings = {
            "pipeline": "bench",
            "broker": {"host": host, "port": port, "username": USER, "password": PASSWORD},
            "models": {self.model: {"source": self._source or self.model} | ({} if self._source else SEEDED)},
            "streams": {
                str(demo.STREAM): {"device": DEVICE, "model": self.model, "frame_timeout_s": 60.0, "plan": self._plan}
            },
            "nodes": {node: {"threads": 1, **given} for node, given in self.nodes.items()},
            "planner": {"min_seconds_between_plans": 1.0, "settle_s": 0.5},
            "telemetry": {"interval_s": 0.5},
            **self._settings,
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(settings))
        path.chmod(0o600)  # it has a password
        return path

    def start(self, shares: Mapping[str, float | None]) -> None:
        """All processes, until there is a plan and all nodes have measured themselves.

        `shares` are of a core, None for as much as there is.
        """
        self.processes.start("planner", ["planner", "-c", str(self._paths["planner"])])
        for node, share in shares.items():
            arguments = ["node", "-c", str(self._paths[node]), "--id", node, "--state-dir", str(self.folder / "state")]
            launcher = self.network.launcher(node) if node in (DEVICE, CLOUD) else []
            cache = {"XDG_CACHE_HOME": str(self.folder / f"cache-{node}")}
            process = self.processes.start(node, arguments, cache, launcher)
            if share is not None:
                self.quotas.limit(node, share, process)
        self.wait(lambda: self.client.ready() >= set(self.config.nodes) and self.client.active is not None)
        logs = [self.processes.log(node) for node in shares]
        self.wait(lambda: all("profiled" in log.read_text() for log in logs))

    def wait(self, condition: Callable[[], bool]) -> None:
        """Raises TimeoutError."""
        if not self.client.wait(condition, PATIENCE_S, self.processes.check):
            raise TimeoutError(f"not within {PATIENCE_S:.0f} s; see the logs in {self.folder}")

    def publish(self) -> None:
        """Send the next frame."""
        self.client.publish(self.images[self.sent % IMAGES], str(self.sent))
        self.sent += 1

    @contextmanager
    def feeding(self, answered: Callable[[], object] = lambda: None) -> Iterator[None]:
        """One frame in flight at any time, from a thread, until the context ends; `answered` is called after each."""
        ended = threading.Event()

        def feed() -> None:
            while not ended.is_set():
                self.publish()
                while not self.client.wait(lambda: self.client.in_flight == 0, 0.05) and not ended.is_set():
                    pass
                answered()

        feeder = threading.Thread(target=feed, name="testbed.feeder")
        feeder.start()
        try:
            yield
        finally:
            ended.set()
            feeder.join()
