"""A whole pipeline of real processes on a free port, shared by the tests of a module: starting it takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from broker.server import Server, ServerSettings
from nodes.cli import demo, sample_images
from nodes.client.processes import Processes
from nodes.client.stream_client import StreamClient
from nodes.config.loader import load_config
from nodes.config.sections import Config

PATIENCE_S = 120.0


@dataclass
class Pipeline:
    """What a test needs to drive it and to break it."""

    folder: Path
    config_path: Path
    config: Config
    server: Server
    processes: Processes
    images: Sequence[bytes] = field(repr=False)

    def start(self, name: str) -> None:
        """Start one of its processes again."""
        if name == "planner":
            self.processes.start(name, ["planner", "-c", str(self.config_path)])
        else:
            state = str(self.folder / "state")
            self.processes.start(name, ["node", "-c", str(self.config_path), "--id", name, "--state-dir", state])

    def client(self) -> StreamClient:
        """A new client of its stream, not yet connected."""
        return StreamClient(self.config, demo.STREAM)

    def wait(self, client: StreamClient, condition: Callable[[], bool]) -> None:
        """Wait for a condition, patiently; fails with the ends of all logs."""
        if not client.wait(condition, PATIENCE_S):
            logs = "\n".join(f"== {log.name}\n{log.read_text()[-2000:]}" for log in self.folder.glob("*.log"))
            collected = client.collected
            came = sorted(int(result["correlation"]) for result in collected.results.values())
            bare = sorted(collected.results.keys() - collected.outputs.keys())
            pytest.fail(
                f"waited {PATIENCE_S} s in vain; {client.in_flight} frames without a result, results of frames {came}, "
                f"without outputs: sequences {bare}\n{logs}"
            )

    def assert_proven(self, client: StreamClient, frames: int) -> None:
        """Each frame has exactly one result, and its whole output is that of the unsplit model, bit for bit."""
        self.wait(client, lambda: client.collected.whole >= frames)
        results = list(client.collected.results.values())
        assert sorted(int(result["correlation"]) for result in results) == list(range(frames))
        assert client.collected.duplicates == 0
        equal, _ = demo.compare(self.config, results, client.collected.outputs, self.images)
        assert equal == frames


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Broker, planner and three nodes, ready, with a plan."""
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "broker").mkdir()
    with Server(ServerSettings(persistence_dir=folder / "broker")) as server, Processes(folder) as processes:
        config_path = demo.write_config(folder, "mobilenet_v2", server.port)
        whole = Pipeline(
            folder, config_path, load_config(config_path), server, processes, sample_images.frames(40, seed=1)
        )
        for name in ("planner", *demo.NODES):
            whole.start(name)
        with whole.client() as client:
            whole.wait(client, lambda: client.ready() >= set(demo.NODES) and client.active is not None)
        yield whole
