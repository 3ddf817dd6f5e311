"""The demo: a whole pipeline as processes on one machine, photos through it, two plan changes on the way, and a proof.

The proof compares each result's whole output with that of the unsplit prepared model, in this process, afterwards.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from broker.server import Server, ServerSettings
from nodes.cli import drawn_network, sample_images
from nodes.cli.tables import plan_table
from nodes.client import requests
from nodes.client.processes import Processes
from nodes.client.stream_client import StreamClient
from nodes.config.loader import load_config
from nodes.config.model_settings import preprocess_of, source_of
from nodes.config.sections import Config
from nodes.display.screen import Screen
from pipeline.errors import TrisectError
from pipeline.frames.input_blocks import first_block
from pipeline.frames.inputs import to_inputs
from pipeline.graph import ModelGraph
from pipeline.models import lookup
from pipeline.partition.baselines import single_tensor_cuts
from pipeline.plan import NodeId, StreamId
from pipeline.wire import Array

STREAM = StreamId("camera")
MODEL = "mobilenet_v2"
DEVICE, EDGE, CLOUD = NodeId("device-1"), NodeId("edge-1"), NodeId("cloud-1")
NODES = (DEVICE, EDGE, CLOUD)
WINDOW = 4
INTERVAL_S = 0.1
READY_WAIT_S = 300.0
RESULT_WAIT_S = 300.0
THREADS = 1


@dataclass(frozen=True, slots=True)
class Proof:
    """Numbers of the run: seconds, bytes and counts."""

    model: str
    frames_in: int
    results: int
    lost: int
    duplicates: int
    bit_equal: int
    plan_changes: int
    tiers_used: list[str]
    first_result_seconds: float
    latency_seconds_p50: float
    latency_seconds_p95: float
    unsplit_seconds_p50: float
    transfer_bytes_per_frame: float
    predicted_seconds: float
    epochs: list[dict[str, Any]]

    @property
    def holds(self) -> bool:
        """True when nothing was lost or came twice, and every output is the unsplit model's, bit for bit."""
        return self.frames_in == self.results == self.bit_equal and not self.lost and not self.duplicates


def run(*, model: str | None, frames: int, json_path: Path | None, directory: Path | None) -> int:
    """Run the demo; returns the exit code, 0 only if the proof holds. Raises TrisectError, BrokerError."""
    began = time.monotonic()
    if model is not None and not model.endswith((".keras", ".trisect")):
        lookup(model)
    console = Screen()
    with ExitStack() as stack:
        folder = _made(directory) if directory else stack.enter_context(_folder_kept_on_failure(console))
        if model is None and drawn_network.is_needed():
            model = str(drawn_network.put(folder))
            console.print(f"a small network, drawn for this; for {MODEL}: pip install 'trisect[tensorflow]'")
        model = model or MODEL
        images = sample_images.frames(frames)
        settings = ServerSettings(persistence_dir=_made(folder / "broker"))
        server = stack.enter_context(Server(settings, log_file=folder / "broker.log"))
        console.print(f"broker: mosquitto, process {server.pid}, port {server.port}, log {server.log_file}")
        config_path = write_config(folder, model, server.port)
        config = load_config(config_path)
        processes = stack.enter_context(Processes(folder, also_check=server.check))
        start_nodes(processes, config_path, folder, console)
        console.print(f"watch it in another terminal: trisect watch -c {config_path}", soft_wrap=True, style="dim")
        console.print(f"or in a browser: trisect web -c {config_path}", soft_wrap=True, style="dim")
        with StreamClient(config, STREAM) as client:
            _await_nodes(client, processes, console)
            _stream(client, processes, images, console)
        processes.stop()
        proof = _prove(config, client, images, began, console)
    _show(proof, console)
    if json_path is not None:
        json_path.write_text(json.dumps(asdict(proof), indent=2) + "\n")
        console.print(f"numbers written to {json_path}")
    return 0 if proof.holds else 1


def write_config(folder: Path, model: str, port: int) -> Path:
    """The demo's configuration, as a file that `trisect watch` and `place` read as well."""
    is_file = model.endswith((".keras", ".trisect"))
    source = str(Path(model).resolve()) if is_file else model
    name = Path(model).stem.lower()
    settings = {
        "pipeline": "demo",
        "broker": {"port": port},
        "models": {
            name: {"source": source} | ({} if model.endswith((".keras", ".trisect")) else {"weights": "seed:0"})
        },
        "streams": {STREAM: {"device": DEVICE, "model": name, "window": WINDOW, "outputs": True, "preview": True}},
        "nodes": {node: {"tier": node.split("-")[0], "threads": THREADS} for node in map(str, NODES)},
        "planner": {"min_seconds_between_plans": 1.0, "settle_s": 0.5},
    }
    path = folder / "demo.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


def start_nodes(processes: Processes, config_path: Path, folder: Path, console: Screen) -> None:
    """The planner and the three nodes, each a process."""
    pid = processes.start("planner", ["planner", "-c", str(config_path)])
    console.print(f"planner: process {pid}")
    for node in NODES:
        arguments = ["node", "-c", str(config_path), "--id", node, "--state-dir", str(folder / "state")]
        console.print(f"{node}: process {processes.start(node, arguments)}")


@contextmanager
def _folder_kept_on_failure(console: Screen) -> Iterator[Path]:
    """A temporary folder, whose logs stay where an error speaks of them."""
    folder = Path(tempfile.mkdtemp(prefix="trisect-demo-"))
    try:
        yield folder
    except Exception:
        console.print(f"logs and configuration are kept in {folder}", soft_wrap=True)
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _await_nodes(client: StreamClient, processes: Processes, console: Screen) -> None:
    with console.status("nodes load the model and measure it and their links"):
        ready = client.wait(
            lambda: client.ready() >= set(NODES) and client.active is not None, READY_WAIT_S, processes.check
        )
    if not ready:
        states = {node: state.state.value for node, state in client.states.items()}
        raise TrisectError(f"not ready after {READY_WAIT_S:.0f} s: {states}; see the logs")
    assert client.active is not None
    console.print(plan_table(client.plans[client.active]))


def _stream(client: StreamClient, processes: Processes, images: Sequence[bytes], console: Screen) -> None:
    """Keep frames flowing; a third on, force all three tiers, and a third later hand back to the planner."""
    third = len(images) // 3
    waiting = iter(enumerate(images))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as progress, ThreadPoolExecutor(1) as aside:
        task = progress.add_task("results", total=len(images))

        def send(count: int, until: Callable[[], bool] = lambda: False) -> None:
            for number, image in islice(waiting, count):
                client.publish(image, str(number))
                client.wait(lambda: client.in_flight <= WINDOW, RESULT_WAIT_S, processes.check)
                progress.update(task, completed=len(client.collected.results))
                time.sleep(INTERVAL_S)
                if until():
                    return

        for auto in (False, True):
            send(third)
            change = aside.submit(_change, client, auto=auto)
            send(third // 2, until=change.done)
            progress.console.print(plan_table(change.result()))
        send(len(images))
        whole = len(images)
        client.wait(lambda: client.collected.whole >= whole, RESULT_WAIT_S, processes.check)
        progress.update(task, completed=len(client.collected.results))


def _change(client: StreamClient, *, auto: bool) -> dict[str, Any]:
    return requests.place(client.config, STREAM, auto=True) if auto else split_in_three(client)


def split_in_three(client: StreamClient) -> dict[str, Any]:
    """Force blocks of the network onto each tier; returns the plan once it is active."""
    assert client.active is not None
    edge_from, cloud_from = narrow_cuts(client.graphs[client.plans[client.active]["digest"]])
    return requests.place(client.config, STREAM, edge_from=str(edge_from), cloud_from=str(cloud_from))


def narrow_cuts(graph: ModelGraph) -> tuple[int, int]:
    """Where the edge and the cloud begin, so that fewest bytes cross and each tier has a fifth of the blocks or more.

    A third of the blocks each, whatever crosses, where the network is never as narrow as a single tensor.
    """
    first, least = first_block(graph), (len(graph) - first_block(graph)) // 5
    crossing = {cut: graph.tensors[t].nbytes for cut in single_tensor_cuts(graph).tolist() for t in _live(graph, cut)}
    pairs = [
        (edge, cloud)
        for edge, cloud in combinations(sorted(crossing), 2)
        if edge - first >= least and cloud - edge >= least and len(graph) - cloud >= least
    ]
    thirds = max(1, len(graph) // 3), max(2, 2 * len(graph) // 3)
    return min(pairs, key=lambda pair: crossing[pair[0]] + crossing[pair[1]], default=thirds)


def _live(graph: ModelGraph, cut: int) -> list[int]:
    """The tensors that blocks from `cut` on read of those before."""
    return [t for t, readers in enumerate(graph.consumers) if readers and graph.producer[t] < cut <= readers[-1]]


def _prove(config: Config, client: StreamClient, images: Sequence[bytes], began: float, console: Screen) -> Proof:
    collected = client.collected
    results = sorted(collected.results.values(), key=lambda result: result["sequence"])
    with console.status("comparing every output with the unsplit model's"):
        equal, unsplit_s = compare(config, results, collected.outputs, images)
    arrivals = [collected.arrivals[result["sequence"]] for result in results]
    latencies = [result["seconds"] for result in results]
    epochs = _epochs(results, client.plans)
    frames = max(len(results), 1)
    return Proof(
        model=next(iter(config.models)),
        frames_in=len(images),
        results=len(results),
        lost=len(images) - len(results),
        duplicates=collected.duplicates,
        bit_equal=equal,
        plan_changes=max(0, len(client.activations) - 1),
        tiers_used=[tier for tier in ("device", "edge", "cloud") if any(tier in result["tiers"] for result in results)],
        first_result_seconds=round(min(arrivals, default=float("nan")) - began, 3),
        latency_seconds_p50=float(np.percentile(latencies, 50)) if latencies else float("nan"),
        latency_seconds_p95=float(np.percentile(latencies, 95)) if latencies else float("nan"),
        unsplit_seconds_p50=unsplit_s,
        transfer_bytes_per_frame=sum(epoch["frames"] * epoch["transfer_bytes"] for epoch in epochs) / frames,
        predicted_seconds=sum(epoch["frames"] * epoch["predicted_seconds"] for epoch in epochs) / frames,
        epochs=epochs,
    )


def compare(
    config: Config,
    results: Sequence[Mapping[str, Any]],
    outputs: Mapping[int, Mapping[int, Array]],
    images: Sequence[bytes],
) -> tuple[int, float]:
    """Number of outputs equal to the unsplit prepared model's by `np.array_equal`, and the median seconds of
    its run.
    """
    from nodes.tier.loading import load
    from pipeline import engines

    (name, section), *_ = config.models.items()
    engine, models = load(config.engine, {name: source_of(name, section)}, THREADS, config.exact)
    model = models[name]
    whole = engines.unsplit(engine, model)
    preprocess = preprocess_of(section)
    equal, seconds = 0, []
    answers: dict[int, Mapping[int, Array]] = {}
    for result in results:
        number = int(result["correlation"])
        if number not in answers:
            inputs = to_inputs(images[number], model.graph, preprocess)
            began = time.perf_counter()
            answers[number] = whole.run(inputs)
            seconds.append(time.perf_counter() - began)
        expected, got = answers[number], outputs.get(result["sequence"], {})
        equal += got.keys() == expected.keys() and all(np.array_equal(got[t], expected[t]) for t in expected)
    return equal, float(np.median(seconds)) if seconds else float("nan")


def _epochs(results: Sequence[Mapping[str, Any]], plans: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each plan that answered frames: how many, what was predicted and what was measured."""
    found = []
    for epoch in sorted({result["epoch"] for result in results}):
        mine = [result for result in results if result["epoch"] == epoch]
        predicted = plans[epoch]["predicted"]
        found.append(
            {
                "epoch": epoch,
                "planner": plans[epoch]["planner"],
                "frames": len(mine),
                "tiers": [stage["tier"] for stage in plans[epoch]["stages"]],
                "transfer_bytes": sum(link["nbytes"] for link in predicted["links"].values()),
                "predicted_seconds": predicted["seconds"] - predicted["frame_overhead_seconds"],
                "measured_seconds_p50": float(np.median([result["seconds"] for result in mine])),
                "stages_and_links_seconds_p50": float(np.median([_stages_and_links_s(result) for result in mine])),
            }
        )
    return found


def _stages_and_links_s(result: Mapping[str, Any]) -> float:
    """Measured seconds that a plan predicts: computing and links, without decoding and waiting for earlier frames."""
    return float(sum(stage["compute_seconds"] for stage in result["path"]) + sum(result["links"].values()))


def _show(proof: Proof, console: Screen) -> None:
    table = Table(
        title="what ran",
        title_justify="left",
        caption="medians; measured: stages and links, as predicted; whole: with decoding and queues",
        caption_justify="left",
    )
    for heading in (
        "epoch",
        "planner",
        "tiers",
        "frames",
        "kB a frame",
        "predicted ms",
        "measured ms",
        "whole ms",
    ):
        table.add_column(heading, justify="left" if heading in ("planner", "tiers") else "right")
    for epoch in proof.epochs:
        table.add_row(
            str(epoch["epoch"]),
            epoch["planner"],
            ", ".join(epoch["tiers"]),
            str(epoch["frames"]),
            f"{epoch['transfer_bytes'] / 1e3:,.0f}",
            f"{epoch['predicted_seconds'] * 1e3:.1f}",
            f"{epoch['stages_and_links_seconds_p50'] * 1e3:.1f}",
            f"{epoch['measured_seconds_p50'] * 1e3:.1f}",
        )
    console.print(table)
    console.print(
        f"first result {proof.first_result_seconds:.1f} s after the start; "
        f"latency p50 {proof.latency_seconds_p50 * 1e3:.1f} ms, p95 {proof.latency_seconds_p95 * 1e3:.1f} ms; "
        f"unsplit {proof.unsplit_seconds_p50 * 1e3:.1f} ms on {THREADS} thread"
    )
    console.print(
        f"proof: {proof.frames_in} frames in, {proof.results} results, {proof.lost} lost, "
        f"{proof.duplicates} duplicates, {proof.bit_equal} bit-equal to the unsplit model; "
        f"{proof.plan_changes} plan changes in mid-stream; tiers used: {', '.join(proof.tiers_used)}",
        style="green" if proof.holds else "bold red",
    )
