"""A light node on an ARM core under QEMU as the device of a pipeline: broker, planner, edge and cloud run on this x86.

Every output is compared bit for bit with the unsplit network of this machine. What the device measured of itself is
kept in the cache folder, so that a later run begins sooner.
"""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import yaml

from benchmarks.arm_machine import CHECKOUT, ArmMachine
from broker.server import Server, ServerSettings
from nodes.cli import demo, sample_images
from nodes.client import requests
from nodes.client.processes import Processes
from nodes.client.stream_client import StreamClient
from nodes.config.loader import load_config
from pipeline.models import store
from pipeline.models.source import ModelSource

PATIENCE_S = 900.0
CUTS = ((3, 1), (3, 2), (8, 1))
"""The device has one in so many blocks, or two in so many; the edge has half of the rest."""


def run(machine: ArmMachine, core: str, model: str, frames: int) -> int:
    """Send `frames` photos for each cut; exit code 1 unless every output came and is equal."""
    package = store.load(ModelSource(model, model, "seed:0"))  # stays on the disk while it is open here
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trisect-arm-", dir="/var/tmp")))
        server = stack.enter_context(Server(ServerSettings()))
        path = _write(folder, model, package.path, server.port)
        config = load_config(path)
        processes = stack.enter_context(Processes(folder))
        began = time.monotonic()
        _start(processes, machine, core, path, folder)
        images = sample_images.frames(frames * len(CUTS))
        with StreamClient(config, demo.STREAM) as client:
            _wait(client, processes, lambda: client.ready() >= set(demo.NODES) and client.active is not None)
            print(f"all ready after {time.monotonic() - began:.0f} s; {demo.DEVICE} is a {core} under QEMU", flush=True)
            for number, (parts, taken) in enumerate(CUTS):
                _place(client, parts, taken)
                _send(client, processes, images, range(number * frames, (number + 1) * frames))
            results = sorted(client.collected.results.values(), key=lambda result: int(result["sequence"]))
            outputs = client.collected.outputs
        print("\n".join(line for line in processes.log(str(demo.DEVICE)).read_text().splitlines() if "tiles:" in line))
        processes.stop()
        equal, _ = demo.compare(config, results, outputs, images)
    for result in results:
        stages = ", ".join(f"{stage['tier']} {stage['compute_seconds']:.2f} s" for stage in result["path"])
        print(f"frame {result['correlation']}: epoch {result['epoch']}: {stages}; whole {result['seconds']:.1f} s")
    through = sum("device" in result["tiers"] and len(result["tiers"]) == len(demo.NODES) for result in results)
    print(
        f"{model}: {len(images)} photos in, {len(results)} results, {through} through all three tiers, "
        f"{equal} bit-equal to the unsplit network on this machine"
    )
    return int(not len(images) == len(results) == through == equal)


def _write(folder: Path, model: str, package: Path, port: int) -> Path:
    settings = {
        "pipeline": "arm",
        "broker": {"port": port},
        "models": {model: {"source": str(package)}},
        "streams": {
            str(demo.STREAM): {
                "device": str(demo.DEVICE),
                "model": model,
                "window": 1,
                "outputs": True,
                "frame_timeout_s": PATIENCE_S,
            }
        },
        "nodes": {str(node): {"tier": node.split("-")[0], "threads": 1} for node in demo.NODES},
        "planner": {"min_seconds_between_plans": 1.0, "settle_s": 0.5},
    }
    path = folder / "arm.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


def _start(processes: Processes, machine: ArmMachine, core: str, path: Path, folder: Path) -> None:
    ours = {"PYTHONPATH": str(CHECKOUT)}
    processes.start("planner", ["planner", "-c", str(path)], ours)
    for node in map(str, demo.NODES):
        arguments = ["node", "-c", str(path), "--id", node, "--state-dir", str(folder / "state")]
        if node == str(demo.DEVICE):  # the host's Python, which comes next, is the shell's name for itself
            emulated = machine.command(core, [], {"XDG_CACHE_HOME": str(machine.folder / f"device-{core}")})
            processes.start(node, arguments, launcher=["sh", "-c", f'exec {shlex.join(emulated)} "$@"'])
        else:
            processes.start(node, arguments, ours)


def _wait(client: StreamClient, processes: Processes, condition: Callable[[], bool]) -> None:
    if not client.wait(condition, PATIENCE_S, processes.check):
        states = {node: state.state.value for node, state in client.states.items()}
        raise SystemExit(f"not within {PATIENCE_S:.0f} s: {states}")


def _place(client: StreamClient, parts: int, taken: int) -> None:
    assert client.active is not None
    blocks = len(client.graphs[client.plans[client.active]["digest"]])
    edge_from = blocks * taken // parts
    cloud_from = (edge_from + blocks) // 2
    requests.place(
        client.config, demo.STREAM, edge_from=str(edge_from), cloud_from=str(cloud_from), timeout_s=PATIENCE_S
    )


def _send(client: StreamClient, processes: Processes, images: Sequence[bytes], numbers: range) -> None:
    for number in numbers:
        client.publish(images[number], str(number))
        _wait(client, processes, lambda: client.in_flight == 0)
