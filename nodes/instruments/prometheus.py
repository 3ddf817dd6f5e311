"""Serves what is measured to Prometheus, in its text format or as OpenMetrics, whichever a scrape asks for."""

from __future__ import annotations

import gzip
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client.exposition import ThreadingWSGIServer, choose_encoder, gzip_accepted

from nodes.config.instruments import MetricsSection
from nodes.instruments import families as names
from nodes.instruments.exposition import Family, exposition, label_text
from nodes.instruments.families import Number
from nodes.instruments.measured import Measured
from nodes.protocol.messages import LifeState
from pipeline.errors import ConfigError

_log = logging.getLogger(__name__)

_UP = frozenset({LifeState.READY, LifeState.DRAINING})


def families_of(measured: Measured) -> list[Family]:
    """All families of what is measured now."""
    with measured.lock:
        return [*_nodes(measured), *_numbers(measured), *_streams(measured), *_plans(measured)]


def _nodes(measured: Measured) -> Iterator[Family]:
    now = measured.now()
    info = Family(names.NODE_INFO, "info", "What a node is.")
    for node, said in measured.infos.items():
        about = {"version": said.version, "engine": said.engine, "engine_version": said.engine_version}
        info.add(label_text(node=node, tier=said.tier, **about, role=said.role, hardware=said.hardware), 1.0)
    state = Family(names.NODE_STATE, "stateset", "A node's life, as it says itself.")
    up = Family(names.NODE_UP, "gauge", "1 for a node that serves.")
    for node, present in measured.states.items():
        labels = label_text(node=node, tier=measured.tiers[node])
        for each in LifeState:
            state.add(f'{labels},{names.NODE_STATE}="{each.value}"', float(each is present))
        up.add(labels, float(present in _UP))
    age = Family(names.REPORT_AGE, "gauge", "Seconds since a node's last report.", "seconds")
    for node, report in measured.reports.items():
        age.add(label_text(node=node), now - report.at)
    ignored = Family(names.IGNORED, "counter", "Messages of more nodes or streams than are exported.")
    ignored.add("", measured.ignored_total)
    yield from (info, state, up, age, ignored)


def _numbers(measured: Measured) -> Iterator[Family]:
    reports = measured.reports.items()
    node_samples = ((label_text(node=node), report.numbers) for node, report in reports)
    yield from _families(names.NODE, names.NODE_NUMBERS, node_samples)
    stream_samples = (
        (label_text(node=node, stream=stream), numbers)
        for node, report in reports
        for stream, numbers in report.streams.items()
    )
    yield from _families(names.STREAM, names.STREAM_NUMBERS, stream_samples)


def _streams(measured: Measured) -> Iterator[Family]:
    help_ = "Seconds of a frame in one stage of a node, since its last report."
    stages = Family(names.STAGE_SECONDS, "gauge", help_, "seconds")
    help_ = "Median seconds of a frame between two nodes, since the device's last report."
    legs = Family(names.LEG_SECONDS, "gauge", help_, "seconds")
    for node, report in measured.reports.items():
        texts = {stream: label_text(node=node, stream=stream) for stream in report.streams}
        for (stream, stage, percentile), seconds in report.stages.items():
            stages.add(f'{texts[stream]},stage="{stage}",percentile="{percentile}"', seconds)
        for (stream, leg), seconds in report.legs.items():
            legs.add(label_text(stream=stream, leg=leg), seconds)
    help_ = "Seconds from a frame's entry at its device to its answer; frames that ended with an error left out."
    frames = Family(names.FRAME_SECONDS, "histogram", help_, "seconds")
    for name, histogram in measured.frames.items():
        frames.add_histogram(label_text(stream=name), histogram.cumulative(), histogram.sum_seconds)
    yield from (stages, legs, frames)


def _plans(measured: Measured) -> Iterator[Family]:
    help_ = "Seconds of one frame, as the newest plan predicts."
    latency = Family(names.PREDICTED_LATENCY, "gauge", help_, "seconds")
    help_ = "Seconds between frames at full load, as the newest plan predicts."
    period = Family(names.PREDICTED_PERIOD, "gauge", help_, "seconds")
    epoch = Family(names.PLAN_EPOCH, "gauge", "Epoch of the newest plan.")
    for stream, plan in measured.plans.items():
        labels = label_text(stream=stream)
        latency.add(labels, plan.predicted.seconds)
        period.add(labels, plan.predicted.period_s)
        epoch.add(labels, plan.epoch)
    yield from (latency, period, epoch)


def _families(
    prefix: str, numbers: Iterable[Number], samples: Iterable[tuple[str, Mapping[Number, float]]]
) -> Iterable[Family]:
    """A family for each name, with the samples of all numbers that share it."""
    made: dict[str, Family] = {}
    places: dict[Number, tuple[Family, str]] = {}
    for number in numbers:
        name = names.exported(prefix, number)
        family = made.setdefault(name, Family(name, number.kind, number.help, number.unit))
        places[number] = family, f",{label_text(**dict([number.label]))}" if number.label else ""
    for labels, found in samples:
        for number, value in found.items():
            family, more = places[number]
            family.add(labels + more, value)
    return made.values()


class _Handler(WSGIRequestHandler):
    # header and body are two writes: else the second waits 40 ms for the acknowledgement of the first
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: scrapes come every few seconds."""


_GZIP_LEVEL: Final = 1  # the default, 9, takes longer than all the rest and saves little


def _application(measured: Measured) -> Callable[..., list[bytes]]:
    """Answers GET on any path, as prometheus_client does; which format is up to the scrape's Accept header."""

    def answer(environ: Mapping[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        if environ["REQUEST_METHOD"] != "GET":
            start_response("405 Method Not Allowed", [("Allow", "GET")])
            return []
        _, content_type = choose_encoder(environ.get("HTTP_ACCEPT", ""))
        body = exposition(families_of(measured), open_metrics="openmetrics" in content_type)
        headers = [("Content-Type", content_type)]
        if gzip_accepted(environ.get("HTTP_ACCEPT_ENCODING", "")):
            body = gzip.compress(body, _GZIP_LEVEL)
            headers.append(("Content-Encoding", "gzip"))
        start_response("200 OK", headers)
        return [body]

    return answer


class MetricsServer:
    """Answers scrapes as a context; `port` is where, also when the section says 0 for a free one."""

    def __init__(self, section: MetricsSection, measured: Measured) -> None:
        self._section, self._measured = section, measured
        self._server: WSGIServer | None = None
        self.port = section.port

    def __enter__(self) -> MetricsServer:
        section = self._section
        try:
            self._server = make_server(
                section.host, section.port, _application(self._measured), _server_class(section), _Handler
            )
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise ConfigError(
                f"metrics cannot be served on {section.host}:{section.port}: {why}; give another `port` or `host`"
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        self.port = self._server.server_port
        _log.info("metrics: http://%s:%d/metrics", section.host, self.port)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


def _server_class(section: MetricsSection) -> type[WSGIServer]:
    """A server of the address's family, IPv4 or IPv6; raises OSError for a host that is not known."""
    (family, *_), *_ = socket.getaddrinfo(section.host, section.port, type=socket.SOCK_STREAM)
    return type("MetricsWSGIServer", (ThreadingWSGIServer,), {"address_family": family})
