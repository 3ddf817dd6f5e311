"""Serves what is measured to Prometheus, in its text format or as OpenMetrics, whichever a scrape asks for."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, disable_created_metrics, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    StateSetMetricFamily,
)
from prometheus_client.registry import Collector

from nodes.config.instruments import MetricsSection
from nodes.instruments import families as names
from nodes.instruments.families import Number
from nodes.instruments.measured import Measured
from nodes.protocol.messages import LifeState
from pipeline.errors import ConfigError

_log = logging.getLogger(__name__)

_UP = frozenset({LifeState.READY, LifeState.DRAINING})


class MeasuredCollector(Collector):
    """Makes families of what is measured, at each scrape."""

    def __init__(self, measured: Measured) -> None:
        self._measured = measured

    def describe(self) -> Iterable[Metric]:
        """Nothing: there is no other collector whose names these could repeat."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All families, those without a sample left out."""
        with self._measured.lock:
            found = [*self._nodes(), *self._numbers(), *self._streams(), *self._plans()]
        return (family for family in found if family.samples)

    def _nodes(self) -> Iterator[Metric]:
        measured, now = self._measured, self._measured.now()
        info = InfoMetricFamily(names.NODE_INFO, "What a node is.", labels=["node", "tier"])
        for node, said in measured.infos.items():
            about = {"version": said.version, "engine": said.engine, "engine_version": said.engine_version}
            info.add_metric([node, said.tier], {**about, "role": said.role, "hardware": said.hardware})
        state = StateSetMetricFamily(names.NODE_STATE, "A node's life, as it says itself.", labels=["node", "tier"])
        up = GaugeMetricFamily(names.NODE_UP, "1 for a node that serves.", labels=["node", "tier"])
        for node, present in measured.states.items():
            labels = [node, measured.tiers[node]]
            state.add_metric(labels, {each.value: each is present for each in LifeState})
            up.add_metric(labels, float(present in _UP))
        age = GaugeMetricFamily(
            names.REPORT_AGE, "Seconds since a node's last report.", labels=["node"], unit="seconds"
        )
        for node, report in measured.reports.items():
            age.add_metric([node], now - report.at)
        ignored = CounterMetricFamily(names.IGNORED, "Messages of more nodes or streams than are exported.")
        ignored.add_metric([], measured.ignored_total)
        yield from (info, state, up, age, ignored)

    def _numbers(self) -> Iterator[Metric]:
        reports = self._measured.reports
        node_samples = (([node], report.numbers) for node, report in reports.items())
        yield from _families(names.NODE, names.NODE_NUMBERS, ["node"], node_samples)
        stream_samples = (
            ([node, stream], numbers) for node, report in reports.items() for stream, numbers in report.streams.items()
        )
        yield from _families(names.STREAM, names.STREAM_NUMBERS, ["node", "stream"], stream_samples)

    def _streams(self) -> Iterator[Metric]:
        labels = ["node", "stream", "stage", "percentile"]
        help_ = "Seconds of a frame in one stage of a node, since its last report."
        stages = GaugeMetricFamily(names.STAGE_SECONDS, help_, labels=labels, unit="seconds")
        help_ = "Median seconds of a frame between two nodes, since the device's last report."
        legs = GaugeMetricFamily(names.LEG_SECONDS, help_, labels=["stream", "leg"], unit="seconds")
        for node, report in self._measured.reports.items():
            for (stream, stage, percentile), seconds in report.stages.items():
                stages.add_metric([node, stream, stage, percentile], seconds)
            for leg, seconds in report.legs.items():
                legs.add_metric([*leg], seconds)
        help_ = "Seconds from a frame's entry at its device to its answer; frames that ended with an error left out."
        frames = HistogramMetricFamily(names.FRAME_SECONDS, help_, labels=["stream"], unit="seconds")
        for name, histogram in self._measured.frames.items():
            frames.add_metric([name], histogram.cumulative(), histogram.sum_seconds)
        yield from (stages, legs, frames)

    def _plans(self) -> Iterator[Metric]:
        help_ = "Seconds of one frame, as the newest plan predicts."
        latency = GaugeMetricFamily(names.PREDICTED_LATENCY, help_, labels=["stream"], unit="seconds")
        help_ = "Seconds between frames at full load, as the newest plan predicts."
        period = GaugeMetricFamily(names.PREDICTED_PERIOD, help_, labels=["stream"], unit="seconds")
        epoch = GaugeMetricFamily(names.PLAN_EPOCH, "Epoch of the newest plan.", labels=["stream"])
        for stream, plan in self._measured.plans.items():
            latency.add_metric([stream], plan.predicted.seconds)
            period.add_metric([stream], plan.predicted.period_s)
            epoch.add_metric([stream], plan.epoch)
        yield from (latency, period, epoch)


def _families(
    prefix: str,
    numbers: Iterable[Number],
    labels: list[str],
    samples: Iterable[tuple[list[str], Mapping[Number, float]]],
) -> Iterator[Metric]:
    """A family for each name, with the samples of all numbers that share it."""
    made: dict[str, Any] = {}
    family_of = {}
    for number in numbers:
        name = names.exported(prefix, number)
        kind = CounterMetricFamily if number.kind == "counter" else GaugeMetricFamily
        known = [*labels, number.label[0]] if number.label else labels
        made[name] = family_of[number] = made.get(name) or kind(name, number.help, labels=known, unit=number.unit)
    for values, found in samples:
        for number, value in found.items():
            family_of[number].add_metric([*values, number.label[1]] if number.label else values, value)
    yield from made.values()


class MetricsServer:
    """Answers scrapes as a context; `port` is where, also when the section says 0 for a free one."""

    def __init__(self, section: MetricsSection, measured: Measured) -> None:
        self._section = section
        self.registry = CollectorRegistry()
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry.register(MeasuredCollector(measured))
        self._server: WSGIServer | None = None
        self.port = section.port

    def __enter__(self) -> MetricsServer:
        section = self._section
        try:
            self._server, self._thread = start_http_server(section.port, section.host, self.registry)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise ConfigError(
                f"metrics cannot be served on {section.host}:{section.port}: {why}; give another `port` or `host`"
            ) from error
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
