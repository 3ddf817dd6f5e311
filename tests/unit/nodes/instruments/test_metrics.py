"""What Prometheus gets: held against OpenMetrics by its own parser, and by promtool where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as text_format

from nodes.config.instruments import MetricsSection
from nodes.config.loader import parse_config
from nodes.instruments.families import sample_names
from nodes.instruments.measured import Measured
from nodes.instruments.prometheus import MetricsServer
from nodes.protocol.messages import LifeState, NodeInfo
from pipeline.errors import ConfigError
from pipeline.ranges import MOST_NODES, MOST_STREAMS
from tests.unit.nodes.watch.feed import DEVICE, MODEL, TELEMETRY, plan_of

GRAFANA = Path(__file__).parents[4] / "configs" / "grafana"
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
REPORT: dict[str, Any] = {
    **TELEMETRY,
    "sent_bytes_total": 12_345,
    "link.up_bytes_per_s": 9e6,
    "link.down_bytes_per_s": 8e6,
    "stream.camera.compute_seconds_p50": 0.02,
    "stream.camera.compute_seconds_p95": 0.03,
    "leg.camera.3.frames": 5,
    "leg.camera.3.device_edge_seconds_p50": 0.5,
    "leg.camera.12.device_edge_seconds_p50": 0.004,
}


def measured_demo() -> Measured:
    measured = Measured(now=lambda: 107.0)
    measured.set_state(DEVICE, "device", LifeState.READY)
    measured.set_state("edge-1", "edge", LifeState.LOST)
    measured.learn_info(NodeInfo(DEVICE, "device", "s1", "0.1.0", "litert", "2.1", 1, "x86", {MODEL: "d"}))
    measured.learn_plan(plan_of(3))
    for seconds in (0.004, 0.05, 0.06, 30.0):
        measured.learn_frame("camera", seconds)
    measured.now = lambda: 100.0
    measured.learn_report(DEVICE, REPORT)
    measured.now = lambda: 107.0
    return measured


def scrape(measured: Measured, headers: dict[str, str]) -> str:
    with MetricsServer(MetricsSection(port=0), measured) as server:
        request = urllib.request.Request(f"http://127.0.0.1:{server.port}/metrics", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return str(answer.read().decode())


def families_of(text: str) -> list[Metric]:
    return list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


class Samples(dict[tuple[str, frozenset[str]], float]):
    """By name and the values of all labels, in any order."""

    def of(self, name: str, *labels: str) -> float:
        return self[name, frozenset(labels)]


def samples_of(text: str) -> Samples:
    found = [sample for family in families_of(text) for sample in family.samples]
    return Samples({(sample.name, frozenset(sample.labels.values())): sample.value for sample in found})


def test_a_scrape_is_open_metrics_with_all_that_nodes_said() -> None:
    text = scrape(measured_demo(), OPENMETRICS)
    assert text.endswith("# EOF\n")
    assert "# UNIT trisect_frame_seconds seconds" in text
    found = samples_of(text)
    assert found.of("trisect_node_up", "device-1", "device") == 1
    assert found.of("trisect_node_up", "edge-1", "edge") == 0
    assert found.of("trisect_node_state", "edge-1", "edge", "lost") == 1
    assert found.of("trisect_node_state", "edge-1", "edge", "ready") == 0
    assert found.of("trisect_node_sent_bytes_total", "device-1") == 12_345
    assert found.of("trisect_node_processor_cores", "device-1") == 0.98
    assert found.of("trisect_node_link_bytes_per_second", "device-1", "down") == 8e6
    assert found.of("trisect_node_report_age_seconds", "device-1") == 7
    assert found.of("trisect_stream_results_total", "device-1", "camera") == 100
    assert found.of("trisect_stream_in_flight_frames", "device-1", "camera") == 8
    assert found.of("trisect_stage_seconds", "device-1", "camera", "compute", "95") == 0.03
    assert found.of("trisect_leg_seconds", "camera", "device_edge") == 0.004  # of the newest epoch, 12
    assert found.of("trisect_frame_seconds_bucket", "camera", "0.05") == 2  # a bound belongs to its bucket
    assert found.of("trisect_frame_seconds_bucket", "camera", "+Inf") == 4
    assert found.of("trisect_frame_seconds_count", "camera") == 4
    assert found.of("trisect_frame_seconds_sum", "camera") == pytest.approx(30.114)
    assert found.of("trisect_plan_epoch", "camera") == 3
    info = next(family for family in families_of(text) if family.name == "trisect_node")
    assert info.type == "info"
    assert info.samples[0].labels["engine"] == "litert"
    assert {name for name, *_ in found} <= sample_names()


def test_the_text_format_has_the_same_samples() -> None:
    families = text_format(scrape(measured_demo(), {}))
    names = {sample.name for family in families for sample in family.samples}
    assert names <= sample_names()
    assert {"trisect_frame_seconds_bucket", "trisect_stream_results_total"} <= names


def test_promtool_finds_nothing_to_say(promtool: str) -> None:
    text = scrape(measured_demo(), {})
    said = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False)
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


def test_hostile_reports_make_no_labels_and_no_metrics() -> None:
    measured = Measured()
    hostile = {f"stream.s{number}.in_flight": 1 for number in range(3 * MOST_STREAMS)}
    junk = {"resident_bytes": 10**400, "threads": True, "queue_depth": float("nan"), "made_up_total": 3}
    measured.learn_report("edge-1", hostile | junk | {'stream.a"}.in_flight': 1, "stream.zz.invented": 1})
    for number in range(MOST_NODES + 5):
        measured.set_state(f"n{number}", "edge", LifeState.READY)
    measured.learn_frame("camera", float("inf"))
    found = samples_of(scrape(measured, OPENMETRICS))
    assert sum(name == "trisect_stream_in_flight_frames" for name, *_ in found) == MOST_STREAMS
    assert sum(name == "trisect_node_up" for name, *_ in found) == MOST_NODES
    assert found.of("trisect_exporter_ignored_messages_total") == 5
    assert ("trisect_frame_seconds_count", frozenset({"camera"})) not in found
    assert not any(value == 10**400 or "made_up" in name or "invented" in name for (name, *_), value in found.items())


def test_a_node_that_is_forgotten_leaves_no_series() -> None:
    measured = measured_demo()
    measured.forget_node(DEVICE)
    measured.forget_plan("camera")
    text = scrape(measured, OPENMETRICS)
    assert "device-1" not in text
    assert "trisect_plan_epoch" not in text


def test_a_port_that_is_taken_is_named() -> None:
    with MetricsServer(MetricsSection(port=0), Measured()) as server:
        taken = MetricsServer(MetricsSection(port=server.port), Measured())
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{server.port}: Address already in use; give another"):
            taken.__enter__()


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1:0: .*give another `port` or `host`"):
        MetricsServer(MetricsSection(port=0, host="192.0.2.1"), Measured()).__enter__()


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ("home_assistant: {prefix: a/b}", "home_assistant.prefix"),
        ("tracing: {endpoint: nowhere}", "the collector's URL"),
        ("tracing: {every: 0}", "one frame in so many"),
        ("planner: {metrics: {port: 99999}}", "a port from 1 to 65535, or 0"),
    ],
)
def test_wrong_sections_are_named(section: str, problem: str, tmp_path: Path) -> None:
    text = f"pipeline: demo\nnodes: {{d: {{tier: device}}}}\n{section}\n"
    with pytest.raises(ConfigError, match=re.escape(problem)):
        parse_config(text, tmp_path / "demo.yaml", runs=False)


def test_sections_that_are_left_out_or_on(tmp_path: Path) -> None:
    text = "pipeline: demo\nnodes: {d: {tier: device, metrics: {port: 9000}}}\nhome_assistant: true\ntracing: {}\n"
    config = parse_config(text, tmp_path / "demo.yaml", runs=False)
    assert config.home_assistant is not None
    assert config.home_assistant.prefix == "homeassistant"
    assert config.tracing is not None
    assert config.tracing.every == 100
    metrics = next(iter(config.nodes.values())).metrics
    assert metrics is not None
    assert (metrics.port, metrics.host) == (9000, "127.0.0.1")
    off = parse_config(
        "pipeline: demo\nnodes: {d: {tier: device}}\nhome_assistant: false\n", tmp_path / "x", runs=False
    )
    assert off.home_assistant is None


# What is shipped for Grafana and Prometheus asks for nothing that is not exported.


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\btrisect_[a-z_]+\b", expression))


def test_the_dashboard_asks_for_what_is_exported() -> None:
    dashboard = json.loads((GRAFANA / "dashboard.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert dashboard["schemaVersion"] >= 36
    assert {"title", "uid", "time", "templating"} <= dashboard.keys()
    for panel in panels:
        assert {"x", "y", "w", "h"} == panel["gridPos"].keys()
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert panel["targets"]
        for target in panel["targets"]:
            assert metrics_in(target["expr"])
            assert metrics_in(target["expr"]) <= sample_names()
    variables = [variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    assert all(metrics_in(query if isinstance(query, str) else query["query"]) <= sample_names() for query in variables)


def test_the_alerts_ask_for_what_is_exported() -> None:
    rules = [
        rule for group in yaml.safe_load((GRAFANA / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
    ]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert metrics_in(rule["expr"])
        assert metrics_in(rule["expr"]) <= sample_names()


@pytest.mark.parametrize("command", [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]])
def test_promtool_takes_the_alerts(promtool: str, command: list[str]) -> None:
    said = subprocess.run([promtool, *command], cwd=GRAFANA, text=True, capture_output=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool here (Debian: apt-get install prometheus)")
    return found
