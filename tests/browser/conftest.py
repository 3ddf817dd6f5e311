"""One browser and one played pipeline with the real planner and the real `trisect web`, shared by the tests."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker.server import Server, ServerSettings
from nodes.client.processes import Processes
from tests.browser import chromium
from tests.browser.played import Played, configuration, played, write

NODES = {"device-1": "device", "edge-1": "edge", "edge-2": "edge", "cloud-1": "cloud"}
STREAMS = {"camera": "device-1", "door": "device-1"}

Opener = Callable[[], AbstractContextManager[chromium.Tab]]


@dataclass
class Lab:
    """A pipeline, its broker, and the address of its page."""

    pipeline: Played
    server: Server
    url: str


@contextmanager
def web(path: Path, *arguments: str) -> Iterator[str]:
    """`trisect web` as a process of its own; gives the address that it prints."""
    command = [sys.executable, "-m", "nodes.cli", "web", "-c", str(path), "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"https?://\S+", line)
        assert found, f"trisect web printed {line!r}"
        yield found[0]
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opener]:
    if chromium.find() is None:
        pytest.skip("no Chromium here: `make browser` installs it")
    with chromium.running(tmp_path_factory.mktemp("chromium")) as tab:
        yield tab


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, browser: Opener) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    (folder / "broker").mkdir()
    with Server(ServerSettings(persistence_dir=folder / "broker")) as server, Processes(folder) as processes:
        path = write(folder, configuration(server.port, NODES, STREAMS))
        processes.start("planner", ["planner", "-c", str(path)])
        with played(path) as pipeline, web(path) as url:
            yield Lab(pipeline, server, url)


@pytest.fixture(scope="module")
def page(lab: Lab, browser: Opener) -> Iterator[chromium.Tab]:
    """The page, open and live."""
    with browser() as tab:
        tab.size(1280, 900)
        tab.open(lab.url)
        tab.wait("document.querySelector('#connection').textContent === 'live'")
        yield tab
