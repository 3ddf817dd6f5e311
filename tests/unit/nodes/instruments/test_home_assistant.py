"""What a node says to Home Assistant, and takes back again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from broker import acl
from broker.acl import Member
from broker.topics import Namespace
from nodes.config.loader import parse_config
from nodes.config.sections import Config
from nodes.instruments.home_assistant import announce, discovery
from pipeline.errors import ConfigError
from pipeline.plan import NodeId

TOPIC = "homeassistant/device/trisect-demo-device-1/config"
YAML = """
pipeline: demo
models: {m: {source: mobilenet_v2}}
streams: {front-door: {device: device-1, model: m}}
nodes: {device-1: {tier: device}, edge-1: {tier: edge}}
"""


def config_of(home_assistant: str) -> Config:
    return parse_config(f"{YAML}home_assistant: {home_assistant}\n", Path("demo.yaml"))


class FakePresence:
    """What `announce` uses of a presence: session and words are itself."""

    def __init__(self) -> None:
        self.node, self.tier = NodeId("device-1"), "device"
        self.session = self.words = self
        self.said: list[tuple[str, bytes]] = []

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        assert retain
        self.said.append((topic, payload))

    def keep(self, topic: str, payload: bytes) -> None:
        self.said.append((topic, payload))


def said_by(home_assistant: str, remembered: Path) -> list[tuple[str, bytes]]:
    presence: Any = FakePresence()
    announce(config_of(home_assistant), presence, "0.1.0", remembered)
    found: list[tuple[str, bytes]] = presence.said
    return found


def test_a_device_is_discovered_with_its_sensors_and_streams() -> None:
    found = discovery(config_of("true"), "device-1", "device", "0.1.0")
    assert found["dev"]["ids"] == ["trisect-demo-device-1"]
    assert found["o"] == {"name": "trisect", "sw": "0.1.0"}
    (availability,) = found["availability"]
    assert availability["topic"] == "trisect/v1/demo/node/device-1/state"
    components = found["cmps"]
    assert len({component["unique_id"] for component in components.values()}) == len(components)
    assert all(component["p"] == "sensor" for component in components.values())
    latency = components["front-door_latency_seconds_p50"]
    assert latency["state_topic"] == "trisect/v1/demo/node/device-1/telemetry"
    assert "value_json['stream.front-door.latency_seconds_p50'] * 1000" in latency["value_template"]
    assert (latency["unit_of_measurement"], latency["device_class"]) == ("ms", "duration")
    assert components["front-door_answer"]["state_topic"] == "trisect/v1/demo/result/front-door"
    assert components["front-door_results_total"]["state_class"] == "total_increasing"


def test_a_node_without_streams_has_its_own_sensors_only() -> None:
    components = discovery(config_of("true"), "edge-1", "edge", "0.1.0")["cmps"]
    assert "processor_share" in components
    assert not any(key.startswith("front-door") for key in components)


@pytest.mark.parametrize("name", ["a'b", 'a"b', "{{ 1 }}", "a\n", "a\x1b[31m", "a/b", "+", "\ud800", "ä", "a" * 129])
def test_a_name_that_would_be_more_than_a_name_in_a_template_or_topic_is_none(name: str) -> None:
    for path in (("streams",), ("nodes",), ("pipeline",), ("home_assistant", "prefix")):
        raw: dict[str, Any] = {**yaml.safe_load(YAML), "home_assistant": {"prefix": "homeassistant"}}
        if path in {("streams",), ("nodes",)}:
            raw[path[0]][name] = next(iter(raw[path[0]].values()))
        elif path == ("pipeline",):
            raw["pipeline"] = name
        else:
            raw["home_assistant"]["prefix"] = name
        with pytest.raises(ConfigError):
            parse_config(json.dumps(raw), Path("demo.yaml"))


def test_no_text_of_others_is_in_a_discovery_message() -> None:
    """Labels and answers are read by templates from results: as values, which nobody renders again."""
    before = discovery(config_of("true"), "device-1", "device", "0.1.0")
    raw = yaml.safe_load(YAML)
    raw["models"]["m"]["labels"] = "{{ states }}.txt"
    raw["home_assistant"] = True
    after = discovery(parse_config(json.dumps(raw), Path("demo.yaml")), "device-1", "device", "0.1.0")
    assert after == before
    answer = before["cmps"]["front-door_answer"]["value_template"]
    label = "{{ 7 * 7 }}\x1b[31m'\"" * 10
    assert jinja2.Template(answer).render(value_json={"top": [{"label": label}]}) == label
    assert jinja2.Template(answer).render(value_json={}) == ""


def test_what_was_said_is_taken_back_when_it_is_off(tmp_path: Path) -> None:
    remembered = tmp_path / "device-1.home-assistant"
    ((topic, payload),) = said_by("true", remembered)
    assert topic == TOPIC
    assert json.loads(payload)["cmps"]
    assert said_by("false", remembered) == [(TOPIC, b"")]
    assert said_by("false", remembered) == []


def test_another_prefix_moves_it(tmp_path: Path) -> None:
    remembered = tmp_path / "device-1.home-assistant"
    said_by("true", remembered)
    (cleared, (topic, _)) = said_by("{prefix: ha}", remembered)
    assert cleared == (TOPIC, b"")
    assert topic == TOPIC.replace("homeassistant", "ha")


def test_a_file_that_somebody_else_wrote_clears_nothing_else(tmp_path: Path) -> None:
    remembered = tmp_path / "device-1.home-assistant"
    remembered.write_text("trisect/v1/demo/plan/front-door")
    assert said_by("false", remembered) == []


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ((topic, _),) = said_by("true", tmp_path / "missing" / "file")
    assert topic == TOPIC
    assert "trisect forget" in caplog.text


def test_a_node_may_write_its_own_discovery_and_nobody_elses() -> None:
    names = Namespace("demo")
    node, viewer = Member("device-1", ("node",)), Member("device-1", ("viewer",))
    accesses: tuple[acl.Access, ...] = ("write", "read")
    for access in accesses:
        assert acl.may(node, access, TOPIC, names)
        assert acl.may(node, access, TOPIC.replace("homeassistant", "ha"), names)
        assert not acl.may(node, access, TOPIC.replace("device-1", "edge-1"), names)
        assert not acl.may(node, access, f"a/{TOPIC}", names)
        assert not acl.may(viewer, access, TOPIC, names)
    assert "topic write +/device/trisect-demo-device-1/config" in acl.render([node], names)
