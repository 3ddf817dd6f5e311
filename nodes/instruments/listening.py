"""`trisect metrics`: listens to all nodes of a pipeline, and serves what they say to Prometheus."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from broker import topics
from broker.session import Message
from broker.topics import Namespace, Topic
from nodes.config.instruments import MetricsSection
from nodes.config.sections import Config
from nodes.instruments.measured import Measured
from nodes.instruments.prometheus import MetricsServer
from nodes.protocol.border import Border
from nodes.protocol.messages import MessageError, parse_json
from nodes.session import service
from nodes.session.presence import guest_session


class MetricsListener:
    """The process; `run` serves until `stop`. Raises ConfigError when the port is taken, and what a session raises."""

    is_serving = False

    def __init__(self, config: Config, section: MetricsSection) -> None:
        self.measured = Measured()
        self._names = Namespace(config.pipeline)
        self._border = Border(self._names)
        self._server = MetricsServer(section, self.measured)
        self._session = guest_session(config, "metrics")
        self._stopping = threading.Event()

    def run(self) -> None:
        """Come up, serve, leave. The broker is waited for."""
        readers: dict[Topic, Callable[[Any], None]] = {
            topics.STATE: self.measured.learn_state,
            topics.INFO: self.measured.learn_info,
            topics.PLAN: self.measured.learn_plan,
        }
        for kind, learn in readers.items():
            self._session.subscribe([self._names.filter(kind)], self._reader(learn))
        self._session.subscribe([self._names.filter(topics.TELEMETRY)], self._on_telemetry, qos=0)
        self._session.subscribe([self._names.filter(topics.RESULT)], self._on_result, qos=0)
        try:
            with self._server:
                self.is_serving = True
                self._session.start()
                service.ready()
                while not self._stopping.wait(1.0):
                    service.alive()
                service.stopping()
        finally:
            self._session.stop()

    @property
    def port(self) -> int:
        """The port that scrapes go to."""
        return self._server.port

    def stop(self, why: str = "") -> None:
        """End soon; from any thread or a signal handler."""
        self._stopping.set()

    def _reader(self, learn: Callable[[Any], None]) -> Callable[[Message], None]:
        def handle(message: Message) -> None:
            if not message.payload:
                self._forget(message)
            elif (read := self._border.read(message)) is not None:
                learn(read)

        return handle

    def _forget(self, message: Message) -> None:
        """An empty payload takes a retained message back."""
        parsed = self._names.parse(message.topic)
        if parsed is None:
            return
        kind, fields = parsed
        if kind is topics.STATE:
            self.measured.forget_node(fields["node"])
        elif kind is topics.PLAN:
            self.measured.forget_plan(fields["stream"])

    def _on_telemetry(self, message: Message) -> None:
        parsed = self._names.parse(message.topic)
        try:
            report = parse_json(message.payload)
        except MessageError as error:
            self._border.refuse(message.topic, str(error))
            return
        if parsed is not None:
            self.measured.learn_report(parsed[1]["node"], report)

    def _on_result(self, message: Message) -> None:
        result = self._border.read(message)
        if result is None or not result["ok"]:
            return
        seconds = result.get("seconds")
        if isinstance(seconds, int | float) and not isinstance(seconds, bool):
            self.measured.learn_frame(result["stream"], float(seconds))
