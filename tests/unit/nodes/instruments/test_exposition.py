"""Families as text, held against what prometheus_client writes and reads."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    StateSetMetricFamily,
)
from prometheus_client.exposition import generate_latest as text_format
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as open_metrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as read_text_format
from prometheus_client.registry import Collector

from nodes.instruments.exposition import Family, exposition, label_text

HOSTILE = ('a"b', "a\\", "\\n", "two\nlines", "# EOF", '"} 1\n# TYPE x counter\nx{y="', "\r\t", "ünï", "{}", "=,", "")
VALUES = (0.0, 1.0, -2.5, 1e-9, 123_456.0, 1e18, 0.1 + 0.2)
BUCKETS = [("0.5", 1.0), ("1.0", 1.0), ("+Inf", 3.0)]
HELP = 'It is "so" \\ and\nso.'


def ours() -> list[Family]:
    gauge, counter = Family("g_seconds", "gauge", HELP, "seconds"), Family("c", "counter", HELP)
    info, state = Family("i", "info", HELP), Family("s", "stateset", HELP)
    histogram = Family("h_seconds", "histogram", HELP, "seconds")
    for number, name in enumerate(HOSTILE):
        labels = label_text(name=name)
        gauge.add(labels, VALUES[number % len(VALUES)])
        counter.add(labels, abs(VALUES[number % len(VALUES)]))
        info.add(label_text(name=name, version=name), 1.0)
        state.add(f'{labels},s="on"', 1.0)
        histogram.add_histogram(labels, BUCKETS, 4.5)
    return [gauge, counter, info, state, histogram, Family("none", "gauge", HELP)]


class Theirs(Collector):
    def collect(self) -> Iterator[Metric]:
        gauge = GaugeMetricFamily("g_seconds", HELP, labels=["name"], unit="seconds")
        counter = CounterMetricFamily("c", HELP, labels=["name"])
        info, state = InfoMetricFamily("i", HELP, labels=["name"]), StateSetMetricFamily("s", HELP, labels=["name"])
        histogram = HistogramMetricFamily("h_seconds", HELP, labels=["name"], unit="seconds")
        for number, name in enumerate(HOSTILE):
            gauge.add_metric([name], VALUES[number % len(VALUES)])
            counter.add_metric([name], abs(VALUES[number % len(VALUES)]))
            info.add_metric([name], {"version": name})
            state.add_metric([name], {"on": True})
            histogram.add_metric([name], BUCKETS, 4.5)
        yield from (gauge, counter, info, state, histogram)


def registry() -> CollectorRegistry:
    found = CollectorRegistry()
    found.register(Theirs())
    return found


def test_open_metrics_reads_as_what_prometheus_client_writes() -> None:
    text, theirs = exposition(ours(), open_metrics=True).decode(), open_metrics(registry()).decode()  # type: ignore[no-untyped-call]
    families = list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
    assert families == list(text_string_to_metric_families(theirs))  # type: ignore[no-untyped-call]
    assert [sample.labels["name"] for sample in families[0].samples] == list(HOSTILE)
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        line for line in theirs.splitlines() if line.startswith("#")
    ]


def test_the_text_format_reads_as_what_prometheus_client_writes() -> None:
    text, theirs = exposition(ours(), open_metrics=False).decode(), text_format(registry()).decode()
    assert list(read_text_format(text)) == list(read_text_format(theirs))


@pytest.mark.parametrize(("value", "text"), [(math.inf, "+Inf"), (-math.inf, "-Inf"), (math.nan, "NaN")])
def test_numbers_that_are_not_finite(value: float, text: str) -> None:
    family = Family("g", "gauge", "")
    family.add("", value)
    assert exposition([family], open_metrics=True).decode().splitlines()[2] == f"g{{}} {text}"


def test_a_lone_surrogate_leaves_the_rest_readable() -> None:
    family = Family("g", "gauge", "")
    family.add(label_text(name="a\ud800b"), 1.0)
    family.add(label_text(name="c"), 1.0)
    assert exposition([family], open_metrics=True).decode().count("\ng{") == 2
