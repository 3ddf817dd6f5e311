"""A stack in tiles on one to eight edge workers, each with a share of a core, end to end through the broker.

    python benchmarks/tiles.py vgg16 --stack block1_conv1:block3_pool --grids 1x1,2x1,2x2,5-4-5x1-1
    python benchmarks/tiles.py vgg16 --stack block1_conv1:block3_pool --shares 0.1,0.1,0.2,0.4 --grids 4x1,1-1-2-4x1
    python benchmarks/tiles.py vgg16 --stack block1_conv1:block3_pool --grids 2x2 --kills 20

A grid's shares stand with dashes here, since commas part the grids. Device, coordinator, planner and broker have no
quota; every node computes on one thread. One frame in flight, the grids in turn, so often as `--repeats` says. Frames'
outputs are compared with the unsplit model's, bit for bit. `--kills` streams with a full window and kills workers in
turn, each started again when the next but one is to die.
"""

from __future__ import annotations

import argparse
import json
import queue
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.quota import Quotas
from benchmarks.recording import recording
from broker import topics
from broker.server import Server, ServerSettings
from broker.session import Message
from nodes.cli import demo, sample_images
from nodes.client import requests
from nodes.client.processes import Processes
from nodes.client.stream_client import StreamClient
from nodes.config.loader import load_config
from nodes.protocol.messages import parse_json
from nodes.protocol.reports import read_report
from pipeline.models.graphs import graph_of
from pipeline.models.source import ModelSource
from pipeline.plan import NodeId
from pipeline.tiles import Grid, split, stack_named

PATIENCE_S = 600.0
WARM_UP = 3
IMAGES = 8
PREDICTED = ("predicted_stack_seconds", "learned_stack_seconds")
GATHER = "gather_seconds_p50"


@dataclass(frozen=True, slots=True)
class Measured:
    """One grid once: medians over frames in seconds. `stack` is from the first tile's sending to the last's return.

    Predictions are the planner's: when it placed the tiles, and at the round's end, when it had seen what they take.
    """

    grid: str
    workers: int
    frames: int
    frame_seconds: float
    stack_seconds: float
    transfer_seconds: float
    queue_seconds: float
    compute_seconds: float
    predicted_seconds: float
    predicted_stack_seconds: float
    learned_stack_seconds: float


class Bench:
    """A device, an edge that shares tiles out, and workers under quotas, by the shares of a core."""

    def __init__(
        self, model: str, shares: Sequence[float], folder: Path, stack: ExitStack, record: Path | None = None
    ) -> None:
        self.model, self.shares = model, shares
        self.workers = [f"worker-{number}" for number in range(1, len(shares) + 1)]
        self.quotas = stack.enter_context(Quotas())
        server = stack.enter_context(Server(ServerSettings()))
        self._folder, self._path = folder, folder / "tiles.yaml"
        self._path.write_text(yaml.safe_dump(self._settings(server.port)))
        self.config = load_config(self._path)
        stack.enter_context(recording(self.config, record))
        self.processes = stack.enter_context(Processes(folder))
        self.images = sample_images.frames(IMAGES, seed=1)
        self.client = StreamClient(self.config, demo.STREAM)
        self.sent = 0

    def _settings(self, port: int) -> dict[str, Any]:
        nodes: dict[str, Any] = {str(n): {"tier": n.split("-")[0], "threads": 1} for n in (demo.DEVICE, demo.EDGE)}
        nodes |= {worker: {"tier": "edge", "role": "worker", "threads": 1} for worker in self.workers}
        stream = {"device": str(demo.DEVICE), "model": self.model, "outputs": True, "frame_timeout_s": 60.0}
        return {
            "pipeline": "tiles",
            "broker": {"port": port},
            "models": {self.model: {"source": self.model, "weights": "seed:0"}},
            "streams": {str(demo.STREAM): stream},
            "nodes": nodes,
            "planner": {"min_seconds_between_plans": 1.0, "settle_s": 0.5},
        }

    def start(self, name: str) -> None:
        """Start a process; a worker under its quota from its first moment on."""
        if name == "planner":
            self.processes.start(name, ["planner", "-c", str(self._path)])
            return
        share = self.shares[self.workers.index(name)] if name in self.workers else None
        arguments = ["node", "-c", str(self._path), "--id", name, "--state-dir", str(self._folder / "state")]
        # profiles are kept for each share: another one is another machine
        pid = self.processes.start(name, arguments, {"XDG_CACHE_HOME": str(self._folder / f"cache-{share}")})
        if share is not None:
            self.quotas.limit(name, share, pid)

    def start_all(self) -> None:
        """All processes, until every node is ready."""
        names = [str(demo.DEVICE), str(demo.EDGE), *self.workers]
        for name in ("planner", *names):
            self.start(name)
        self.wait(lambda: self.client.ready() >= set(map(NodeId, names)) and self.client.active is not None)

    def wait(self, condition: Any) -> None:
        """Raises TimeoutError."""
        if not self.client.wait(condition, PATIENCE_S, self.processes.check):
            raise TimeoutError(f"not within {PATIENCE_S:.0f} s; see the logs in {self._folder}")

    def place(self, stack: str, grid: str) -> dict[str, Any]:
        """Have the stack in these tiles on as many workers, the whole network on the edge."""
        tiles = {"grid": grid, "stack": stack, "workers": self.workers[: len(Grid.parse(grid))]}
        return requests.place(self.config, demo.STREAM, edge_from="1", tiles=tiles, timeout_s=PATIENCE_S)

    def frames(self, count: int, in_flight: int = 0) -> list[dict[str, Any]]:
        """Send frames, at most so many unanswered after each; returns their results once all are in."""
        first = self.sent
        for _ in range(count):
            self.client.publish(self.images[self.sent % IMAGES], str(self.sent))
            self.sent += 1
            self.wait(lambda: self.client.in_flight <= in_flight)
        self.wait(lambda: self.client.in_flight == 0)
        results = sorted(self.client.collected.results.values(), key=lambda result: int(result["correlation"]))
        return results[first:]

    def measure(self, stack: str, grid: str, count: int) -> Measured:
        """One frame at a time under this grid."""
        plan = self.place(stack, grid)
        self.frames(WARM_UP)
        reports: queue.SimpleQueue[Message] = queue.SimpleQueue()
        topic = self.client.names.topic(topics.TELEMETRY, node=demo.EDGE)
        self.client.session.subscribe([topic], reports.put)
        results = self.frames(count)
        time.sleep(2 * self.config.telemetry.interval_s)
        self.client.session.unsubscribe([topic])
        gathers, parts = [], defaultdict(list)
        while not reports.empty():
            payload = reports.get().payload
            gathers += [report[GATHER]] if GATHER in (report := parse_json(payload)) else []
            for tile in read_report(payload).tiles:
                if tile.epoch == plan["epoch"]:
                    for name in ("transfer_seconds", "queue_seconds", "compute_seconds"):
                        parts[name].append(getattr(tile, name))
        return Measured(
            grid=grid,
            workers=len(set(plan["tiles"]["workers"])),
            frames=len(results),
            frame_seconds=statistics.median(result["seconds"] for result in results),
            stack_seconds=statistics.median(gathers),
            **{name: statistics.median(values) for name, values in parts.items()},
            predicted_seconds=plan["predicted"]["seconds"],
            predicted_stack_seconds=plan["predicted"]["tiles"]["seconds"],
            learned_stack_seconds=self.client.plans[plan["epoch"]]["predicted"]["tiles"]["seconds"],
        )

    def kill_workers(self, stack: str, grid: str, kills: int, count: int) -> dict[str, Any]:
        """Kill workers in turn under a full window; returns the latencies of calm frames and of those at each kill."""
        self.place(stack, grid)
        calm = [result["seconds"] for result in self.frames(count, demo.WINDOW)]
        added = []
        for number in range(kills):
            worker = self.workers[number % len(self.workers)]
            state = self.client.states[NodeId(worker)]
            self.frames(2, demo.WINDOW)
            self.processes.kill(worker)
            added.append(max(result["seconds"] for result in self.frames(2 * demo.WINDOW, demo.WINDOW)))
            self.start(worker)
            self.wait(lambda w=worker, s=state: self.client.states[w].session != s.session and w in self.client.ready())
            self.frames(demo.WINDOW, demo.WINDOW)
        return {
            "kills": kills,
            "calm_seconds_p50": statistics.median(calm),
            "calm_seconds_max": max(calm),
            "worst_after_kill_seconds_p50": statistics.median(added),
            "worst_after_kill_seconds_max": max(added),
        }

    def proof(self) -> dict[str, int]:
        """Frames, results, duplicates, and those that are bit-equal to the unsplit model."""
        collected = self.client.collected
        self.wait(lambda: collected.whole >= self.sent)
        images = [self.images[number % IMAGES] for number in range(self.sent)]
        results = list(collected.results.values())
        equal, _ = demo.compare(self.config, results, collected.outputs, images)
        return {"frames": self.sent, "results": len(results), "duplicates": collected.duplicates, "bit_equal": equal}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--stack", required=True)
    parser.add_argument("--grids", required=True, help="with commas; the first is what the others are compared with")
    parser.add_argument("--shares", help="of a core, with commas, one for each worker; default: 0.25 each")
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--record", type=Path, help="keep what the planner learns from here, as .jsonl.xz")
    parser.add_argument("--directory", type=Path)
    arguments = parser.parse_args()
    grids = [grid.replace("-", ",") for grid in arguments.grids.split(",")]
    most = max(len(Grid.parse(grid)) for grid in grids)
    shares = [float(share) for share in arguments.shares.split(",")] if arguments.shares else [0.25] * most
    with ExitStack() as stack:
        folder = arguments.directory or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(arguments.model, shares, folder, stack, arguments.record)
        stack.enter_context(bench.client)
        bench.start_all()
        numbers: dict[str, Any] = {"model": arguments.model, "stack": arguments.stack, "shares": shares}
        if arguments.kills:
            numbers |= bench.kill_workers(arguments.stack, grids[0], arguments.kills, arguments.frames)
            rounds: list[Measured] = []
        else:
            turns = [grid for _ in range(arguments.repeats) for grid in grids]
            rounds = [bench.measure(arguments.stack, grid, arguments.frames) for grid in turns]
        bench.processes.stop()
        numbers |= {"rounds": [asdict(one) for one in rounds], **bench.proof()}
    console = Console(width=None if sys.stdout.isatty() else 150)
    if rounds:
        console.print(table(arguments.model, arguments.stack, grids, rounds))
    console.print({name: value for name, value in numbers.items() if name != "rounds"})
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=2) + "\n")


def table(model: str, stack: str, grids: Sequence[str], rounds: Sequence[Measured]) -> Table:
    """Medians of each grid's rounds, and how many times as fast as the first grid they are."""
    graph = graph_of(ModelSource(model, model))
    made = Table(title=f"{model}, {stack}: medians of {len(rounds) // len(grids)} rounds, one frame in flight")
    headings = (
        "grid",
        "workers",
        "stack s",
        "predicted",
        "learned",
        "times",
        "learned",
        "frame s",
        "times",
        "compute s",
        "transfer ms",
        "extra work",
        "input",
    )
    for heading in headings:
        made.add_column(heading, justify="right")
    of_grid = {grid: _medians([one for one in rounds if one.grid == grid]) for grid in grids}
    first = of_grid[grids[0]]
    for grid, median in of_grid.items():
        tile_map = split(graph, stack_named(graph, stack), Grid.parse(grid))
        made.add_row(
            grid,
            str(max(one.workers for one in rounds if one.grid == grid)),
            f"{median['stack_seconds']:.3f}",
            f"{median['predicted_stack_seconds']:.3f}",
            f"{median['learned_stack_seconds']:.3f}",
            f"{first['stack_seconds'] / median['stack_seconds']:.2f}",
            f"{first['learned_stack_seconds'] / median['learned_stack_seconds']:.2f}",
            f"{median['frame_seconds']:.3f}",
            f"{first['frame_seconds'] / median['frame_seconds']:.2f}",
            f"{median['compute_seconds']:.3f}",
            f"{median['transfer_seconds'] * 1e3:.1f}",
            f"{tile_map.extra_work:+.0%}",
            f"{tile_map.extra_input:+.0%}",
        )
    return made


def _medians(rounds: Sequence[Measured]) -> Mapping[str, float]:
    names = ("stack_seconds", "frame_seconds", "compute_seconds", "transfer_seconds", *PREDICTED)
    return {name: statistics.median(getattr(one, name) for one in rounds) for name in names}


if __name__ == "__main__":
    main()
