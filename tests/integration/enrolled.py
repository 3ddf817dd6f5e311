"""A pipeline's folder and its broker, as `trisect init` makes them, on a free port of this machine."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.acl import Role
from broker.ports import free_port
from broker.server import Server
from broker.session import Session
from nodes.config.loader import load_config
from nodes.config.sections import Config
from nodes.enrolment import broker_files
from nodes.enrolment.folder import PipelineFolder
from nodes.session.presence import guest_session

CONFIGURATION = """\
pipeline: lab
models:
  mobilenet_v2: {source: mobilenet_v2, weights: "seed:0"}
streams:
  camera: {device: device-1, model: mobilenet_v2}
  door: {device: device-2, model: mobilenet_v2}
nodes:
  device-1: {tier: device}
  device-2: {tier: device}
  edge-1: {tier: edge, store: true}
  cloud-1: {tier: cloud}
"""


@dataclass
class Enrolled:
    """What a test needs."""

    folder: PipelineFolder
    server: Server

    def enrol(self, name: str, *roles: Role, **options: Any) -> Config:
        """Enrol and read the file back, as the member's machine would; the broker is told."""
        path = self.folder.enrol(name, roles, **options)
        self.server.reload()
        return load_config(path)

    def folder_config(self, name: str) -> Config:
        """What the file of a member says now."""
        return load_config(self.folder.enrolments / f"{name}.enrolment")

    def session(self, config: Config, name: str = "test") -> Session:
        """A session of this member, not started."""
        return guest_session(config, name)


def reachable_folder() -> Path:
    """A folder that mosquitto's own user may enter, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="trisect-test-"))
    folder.chmod(0o755)
    return folder


@contextmanager
def running(configuration: str = CONFIGURATION) -> Iterator[Enrolled]:
    """Both of them, for as long as the context lasts."""
    base = reachable_folder()
    try:
        folder = PipelineFolder.create(base / "lab", configuration, ["localhost"], port=free_port("127.0.0.1"))
        broker_files.prepare(folder.broker)
        with Server(broker_files.settings_of(folder.broker)) as server:
            yield Enrolled(folder, server)
    finally:
        shutil.rmtree(base)
