"""A whole pipeline over two brokers: device and edge at one, cloud at the other, and the bridge between them cut."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from broker.ports import free_port
from broker.server import Server
from nodes.cli import demo, sample_images
from nodes.client import requests
from nodes.client.processes import Processes
from nodes.client.stream_client import StreamClient
from nodes.config.loader import load_config
from nodes.enrolment import broker_files, starting
from nodes.enrolment.folder import PipelineFolder
from tests.integration.enrolled import reachable_folder
from tests.system.conftest import PATIENCE_S, Pipeline

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

SITE, CLOUD, LINE = "127.0.0.1", "127.0.0.2", "127.0.0.3"
FRAMES = 12


class Line:
    """What the bridge goes over: forwards bytes, until it is cut. Then nobody answers there.

    Accepting and closing would be another fault: in a TLS handshake that is broken off, a bridge of mosquitto 2.0.11
    now and then loses count of its connections, and the broker turns in keepalive__check for ever.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: list[socket.socket] = []
        self.mend()

    def cut(self) -> None:
        """End all connections, and let none through."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let connections through again."""
        self._listener = socket.create_server((LINE, self._port))
        self._thread = threading.Thread(target=self._accept, args=(self._listener,), name="line", daemon=True)
        self._thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                here, _ = listener.accept()
            except OSError:
                return
            there = socket.create_connection((CLOUD, self._port))
            self._open = [*self._open, here, there]
            for source, target in ((here, there), (there, here)):
                threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
        source.close()


@pytest.fixture(scope="module")
def bridged() -> Iterator[tuple[Pipeline, Line]]:
    base = reachable_folder()
    nodes = {"device": ["device-1"], "edge": ["edge-1"], "cloud": ["cloud-1"]}
    text = starting.configuration("lab", "mobilenet_v2", "seed:0", nodes, bridged=True)
    text = text.replace("    model: mobilenet_v2\n", "    model: mobilenet_v2\n    outputs: true\n")
    text += "planner: {min_seconds_between_plans: 1.0, settle_s: 0.5}\n"
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        port = free_port(SITE)
        folder = PipelineFolder.create(base / "lab", text, [SITE], port=port, cloud_hosts=[CLOUD, LINE])
        names = ("planner", *map(str, demo.NODES))
        paths = {name: folder.enrol(name) for name in names}
        paths["client"] = folder.enrol("client", ["operator", "camera"])
        settings = json.loads((folder.broker / broker_files.SETTINGS).read_text())
        settings["bridge"]["host"] = LINE
        (folder.broker / broker_files.SETTINGS).write_text(json.dumps(settings))
        for of_broker, host in ((folder.cloud_broker, CLOUD), (folder.broker, SITE)):
            broker_files.prepare(of_broker)
            stack.enter_context(Server(broker_files.settings_of(of_broker, host=host)))
        line = Line(port)
        stack.callback(line.cut)
        processes = stack.enter_context(Processes(base))
        for name in names:
            command = ["planner"] if name == "planner" else ["node", "--state-dir", str(base / "state")]
            processes.start(name, [*command, "--enrolment", str(paths[name])])
        config = load_config(paths["client"])
        whole = Pipeline(base, paths["client"], config, None, processes, sample_images.frames(FRAMES))  # type: ignore[arg-type]
        with whole.client() as client:
            whole.wait(client, lambda: client.ready() >= set(demo.NODES) and client.active is not None)
        yield whole, line


def test_frames_cross_both_brokers_and_none_is_lost_when_the_bridge_is_cut(bridged: tuple[Pipeline, Line]) -> None:
    pipeline, line = bridged
    with pipeline.client() as client:
        placed = requests.place(pipeline.config, demo.STREAM, cloud_from="block_5_add", timeout_s=PATIENCE_S)
        pipeline.wait(client, lambda: (client.active or 0) >= placed["epoch"])
        for number, image in enumerate(pipeline.images[:4]):
            client.publish(image, str(number))
        pipeline.wait(client, lambda: client.collected.whole >= 4)
        assert all("cloud" in result["tiers"] for result in client.collected.results.values())
        line.cut()
        for number, image in enumerate(pipeline.images[4:8], start=4):
            client.publish(image, str(number))
        pipeline.wait(client, lambda: client.collected.whole >= 8)  # under a plan without the cloud
        line.mend()
        _until_in_the_cloud_again(pipeline, client)
        for number, image in enumerate(pipeline.images[8:], start=8):
            client.publish(image, str(number))
        pipeline.assert_proven(client, FRAMES)


def _until_in_the_cloud_again(pipeline: Pipeline, client: StreamClient) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            placed = requests.place(pipeline.config, demo.STREAM, cloud_from="block_5_add", timeout_s=PATIENCE_S)
        except requests.RequestRefused:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.5)
            continue
        epoch = int(placed["epoch"])
        pipeline.wait(client, lambda epoch=epoch: (client.active or 0) >= epoch)  # type: ignore[misc]
        return
