"""`trisect record`: keeps what a pipeline says in a file, for a bug report or a test."""

from __future__ import annotations

import queue
import time
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import yaml

from broker import topics
from broker.session import Channel, Message
from broker.topics import Namespace, Topic
from nodes.config import enrolment
from nodes.config.sections import Config
from nodes.instruments.recording import Header, RecordingWriter
from nodes.session.presence import guest_session
from pipeline.errors import ConfigError
from pipeline.files import read_bounded

CONNECT_WAIT_S: Final = 10.0
_WAIT_S: Final = 0.25
_MOST_CONFIGURATION: Final = 1 << 20
KINDS: Final = (
    *(topics.STATE, topics.INFO, topics.MODEL, topics.PROFILE, topics.LINK, topics.APPLIED, topics.TELEMETRY),
    *(topics.PLAN, topics.STREAM_OWNER, topics.RESULT),
)
FRAME_KINDS: Final = (topics.FRAME, topics.OUTPUT)


@dataclass(frozen=True, slots=True)
class Kept:
    """What a recording has: messages by kind of topic, its seconds and bytes, and whether it stopped for its size."""

    messages: Counter[str]
    seconds: float
    nbytes: int
    is_full: bool


def configuration_of(path: Path) -> str:
    """The YAML of a configuration, or of an enrolment's, without the way to the broker: no password leaves."""
    text = read_bounded(path, _MOST_CONFIGURATION).decode()
    if enrolment.is_enrolment(text):
        text = enrolment.parse(text, path).configuration
    values = yaml.safe_load(text)
    values.pop("broker", None)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


class Recorder:
    """Listens until time is over, the file is as large as it may become, or `stop`.

    `counts` are the messages so far, by kind. Raises BrokerError, and ConfigError when the file cannot be written.
    """

    def __init__(self, config: Config, configuration: str, *, frames: bool) -> None:
        self._config, self._configuration = config, configuration
        self._kinds: tuple[Topic, ...] = KINDS + (FRAME_KINDS if frames else ())
        self._names = Namespace(config.pipeline)
        self._inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self.counts: Counter[str] = Counter()
        self.is_listening = False

    def stop(self) -> None:
        """End soon; from any thread or a signal handler."""
        self._inbox.put(None)

    def run(self, path: Path, *, seconds: float | None, most_bytes: int) -> Kept:
        """Record into a new file."""
        header = Header(self._config.pipeline, self._configuration, time.time(), version("trisect"))
        try:
            with guest_session(self._config, "record") as session:
                session.start(CONNECT_WAIT_S)
                with RecordingWriter(path, header) as writer:  # not sooner: it empties a file of before
                    for kind in self._kinds:
                        channel = Channel.BULK if kind in FRAME_KINDS else Channel.CONTROL
                        session.subscribe([self._names.filter(kind)], self._inbox.put, qos=kind.qos, channel=channel)
                    self.is_listening = True
                    return self._write(writer, seconds, most_bytes)
        except OSError as error:
            raise ConfigError(
                f"{path}: {error.strerror}; what was written before can be replayed", file=path
            ) from error

    def _write(self, writer: RecordingWriter, seconds: float | None, most_bytes: int) -> Kept:
        is_full = False
        while not is_full and (seconds is None or writer.seconds < seconds):
            try:
                message = self._inbox.get(timeout=_WAIT_S)
            except queue.Empty:
                writer.tick()
                continue
            if message is None:
                break
            parsed = self._names.parse(message.topic)
            if parsed is not None:
                writer.add(message.topic, message.payload, retain=message.retain)
                self.counts[parsed[0].message] += 1
                is_full = writer.nbytes >= most_bytes
        writer.flush()
        return Kept(self.counts, writer.seconds, writer.nbytes, is_full)
