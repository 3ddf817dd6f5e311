"""The Python client's part in a frame's seconds, next to a bare MQTT client in one run.

Each photo is sent three times, one frame in flight: by paho-mqtt with a response topic, by `Client.publish`, and by
`AsyncClient.publish`, whose answers have their output tensors as well; each in a process of its own. Run:

    python benchmarks/client.py [--model NAME] [--frames N] [--json PATH]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import queue
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from rich.console import Console

from broker import topics
from broker.server import Server, ServerSettings
from broker.topics import Namespace
from nodes.cli import demo, sample_images
from nodes.client.async_client import AsyncClient
from nodes.client.client import Client
from nodes.client.processes import Processes
from nodes.client.stream_client import StreamClient
from nodes.config.loader import load_config
from nodes.config.sections import Config

WARM_UP = 10
PAUSE_S = 0.01


class Bare:
    """The least that a program can do: a frame with a response topic, and the JSON that comes back."""

    def __init__(self, config: Config, port: int) -> None:
        names = Namespace(config.pipeline)
        self._frames, self._replies = (
            names.topic(topics.FRAME, stream=demo.STREAM),
            names.topic(topics.REPLY, client="bare"),
        )
        self._answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_message = lambda client, data, message: self._answers.put(json.loads(message.payload))
        self._client.connect("127.0.0.1", port)
        self._client.subscribe(self._replies, qos=1)
        self._client.loop_start()
        self._number = 0

    def publish(self, frame: bytes) -> float:
        """Send a frame; returns the device's seconds of its result."""
        properties = Properties(PacketTypes.PUBLISH)
        properties.ResponseTopic, self._number = self._replies, self._number + 1
        properties.CorrelationData = str(self._number).encode()
        self._client.publish(self._frames, frame, qos=1, properties=properties)
        return float(self._answers.get(timeout=60)["seconds"])

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as folder, Server(ServerSettings()) as server:
        config_path = demo.write_config(Path(folder), arguments.model, server.port)
        config = load_config(config_path)
        with Processes(Path(folder)) as processes:
            demo.start_nodes(processes, config_path, Path(folder), console)
            with StreamClient(config, demo.STREAM) as watcher:
                watcher.wait(
                    lambda: watcher.ready() >= set(demo.NODES) and watcher.active is not None, 900, processes.check
                )
            numbers = measured(config_path, server.port, sample_images.frames(arguments.frames + WARM_UP))
    console.print(numbers)
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=2) + "\n")


def measured(config_path: Path, port: int, images: Sequence[bytes]) -> dict[str, float]:
    """Medians over frames in milliseconds: the whole at the client, and without the device's own seconds."""
    spawn = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for name, play in PLAYERS.items():
        pipes[name], theirs = spawn.Pipe()
        spawn.Process(target=play, args=(config_path, port, theirs), daemon=True).start()
        pipes[name].recv()
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in pipes}
    for image in images:
        for name, pipe in pipes.items():
            pipe.send(image)
            samples[name].append(pipe.recv())
            time.sleep(PAUSE_S)
    for pipe in pipes.values():
        pipe.send(None)
    kept = {name: taken[WARM_UP:] for name, taken in samples.items()}
    numbers = {f"{name}_ms": 1e3 * statistics.median(s for s, _ in taken) for name, taken in kept.items()}
    for name, taken in kept.items():
        numbers[f"{name}_without_device_ms"] = 1e3 * statistics.median(s - device_s for s, device_s in taken)
    for name in ("client", "async_client"):
        pairs = zip(kept[name], kept["bare"], strict=True)
        numbers[f"{name}_over_bare_ms"] = 1e3 * statistics.median((s - d) - (t - e) for (s, d), (t, e) in pairs)
    return {name: round(value, 3) for name, value in numbers.items()}


def _play(pipe: Connection, publish: Callable[[bytes], float]) -> None:
    """Publish each frame that comes; say how long it took, and the device's seconds of it."""
    pipe.send("ready")
    while (image := pipe.recv()) is not None:
        began = time.perf_counter()
        device_s = publish(image)
        pipe.send((time.perf_counter() - began, device_s))


def _bare(config_path: Path, port: int, pipe: Connection) -> None:
    bare = Bare(load_config(config_path), port)
    _play(pipe, bare.publish)
    bare.close()


def _client(config_path: Path, _port: int, pipe: Connection) -> None:
    with Client(config_path) as client:
        _play(pipe, lambda image: client.publish(image).seconds)


def _async_client(config_path: Path, _port: int, pipe: Connection) -> None:
    loop = asyncio.new_event_loop()
    client = loop.run_until_complete(AsyncClient(config_path).open())
    _play(pipe, lambda image: loop.run_until_complete(client.publish(image)).seconds)
    loop.run_until_complete(client.close())


PLAYERS = {"bare": _bare, "client": _client, "async_client": _async_client}

if __name__ == "__main__":
    main()
