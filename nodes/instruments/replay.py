"""`trisect replay`: a recording's messages on a broker of its own, at their time or quicker.

Nothing distinguishes them from a running pipeline's for `trisect watch`, the page and, without the recorded plans, the
planner.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from broker import topics
from broker.server import Server, ServerSettings
from broker.session import Channel, Session
from broker.topics import Namespace, Topic
from nodes.config.loader import load_config, parse_config
from nodes.config.sections import Config
from nodes.instruments.record import FRAME_KINDS, KINDS
from nodes.instruments.recording import Recorded, Recording, RecordingError
from nodes.session.presence import guest_session
from pipeline.errors import ConfigError

CONNECT_WAIT_S: Final = 10.0
CONFIGURATION: Final = "replay.yaml"


@dataclass(frozen=True, slots=True)
class Replayed:
    """What was published: messages by kind, those left out, seconds of the recording, and whether it was cut off."""

    messages: Counter[str]
    left_out: int
    seconds: float
    is_cut: bool


def configuration_for(recording: Recording, folder: Path, server: Server) -> Path:
    """Write the recorded configuration with the way to this broker, for `trisect watch -c`. Raises ConfigError."""
    path = folder / CONFIGURATION
    try:
        values = yaml.safe_load(recording.header.configuration)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecordingError(f"{recording.path}: its configuration is not YAML: {error!s:.200}") from error
    if not isinstance(values, dict):
        kind = type(values).__name__
        raise RecordingError(f"{recording.path}: its configuration is no section but a {kind}")
    values["broker"] = {"host": server.host, "port": server.port}
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    config = parse_config(text, path)
    if config.pipeline != recording.header.pipeline:
        raise RecordingError(
            f"{recording.path}: a recording of {recording.header.pipeline!r} with the configuration of "
            f"{config.pipeline!r}"
        )
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", file=path) from error
    return path


class Replayer:
    """Publishes a recording's messages until `stopping`. `replan` leaves out plans and what the planner said."""

    def __init__(self, config: Config, *, speed: float, replan: bool, stopping: threading.Event) -> None:
        self._config, self._speed, self._replan = config, speed, replan
        self._names = Namespace(config.pipeline)
        self._stopping = stopping

    def run(self, recording: Recording, *, began: Callable[[], None] = lambda: None) -> Replayed:
        """Publish all messages at their time. Raises BrokerError, RecordingError."""
        counts: Counter[str] = Counter()
        left_out, at = 0, 0.0
        with guest_session(self._config, "replay") as session:
            session.start(CONNECT_WAIT_S)
            began()
            started = time.monotonic()
            for message in recording:
                at = message.at
                if self._stopping.wait(max(0.0, started + at / self._speed - time.monotonic())):
                    break
                kind = self._kind_of(message)
                if kind is None:
                    left_out += 1
                    continue
                counts[kind.message] += 1
                _publish(session, kind, message)
        return Replayed(counts, left_out, at, recording.is_cut)

    def _kind_of(self, message: Recorded) -> Topic | None:
        """The message's kind; None for what is left out."""
        parsed = self._names.parse(message.topic)
        if parsed is None or parsed[0] not in KINDS + FRAME_KINDS:
            return None
        kind, fields = parsed
        is_planners = kind is topics.PLAN or fields.get("node") == self._config.planner.id
        return None if self._replan and is_planners else kind


def run(
    file: Path,
    *,
    speed: float,
    replan: bool,
    port: int,
    websockets_port: int | None,
    directory: Path | None,
    hold: bool,
    stopped: threading.Event,
) -> Replayed:
    """Play a file on a broker of its own, and say how to look at it.

    Raises RecordingError, ConfigError, BrokerError.
    """
    with ExitStack() as stack:
        recording = stack.enter_context(Recording(file))
        folder = directory or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trisect-replay-")))
        server = stack.enter_context(Server(ServerSettings(port=port, websockets_port=websockets_port)))
        path = configuration_for(recording, folder, server)
        replayer = Replayer(load_config(path), speed=speed, replan=replan, stopping=stopped)

        def began() -> None:
            print(f"a broker on port {server.port}; watch it: trisect watch -c {path}", flush=True)
            if replan:
                print(f"without the recorded plans; make others: trisect planner -c {path}", flush=True)

        played = replayer.run(recording, began=began)
        if hold and not stopped.is_set():
            print("all played; Ctrl-C ends the broker", flush=True)
            stopped.wait()
        return played


def _publish(session: Session, kind: Topic, message: Recorded) -> None:
    channel = Channel.BULK if kind in FRAME_KINDS else Channel.CONTROL
    session.publish(message.topic, message.payload, qos=kind.qos, retain=kind.retain, channel=channel, wait_s=None)
