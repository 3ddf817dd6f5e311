"""Discovery by Home Assistant: each node says, retained, which of its numbers are sensors.

One message for each device, as https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload has it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from broker import topics
from broker.topics import Namespace, discovery_filter, discovery_object
from nodes.config.sections import Config
from nodes.protocol.reports import stream_metric
from pipeline.files import read_bounded
from pipeline.plan import StreamId

if TYPE_CHECKING:
    from nodes.session.presence import Presence

_log = logging.getLogger(__name__)

_MOST_BYTES: Final = 4_096
_SERVES: Final = "{{ 'online' if value_json.state in ('ready', 'draining') else 'offline' }}"
_REPORTS_MISSED: Final = 30
"""Reports that may stay away before a sensor's value counts as unknown."""


@dataclass(frozen=True, slots=True)
class Sensor:
    """A number of a report as a sensor: `scale` is multiplied to it, what is left out keeps its last value."""

    key: str
    name: str
    unit: str = ""
    device_class: str = ""
    state_class: str = "measurement"
    digits: int = 1
    scale: float = 1.0

    def component(self, topic: str, telemetry_key: str, expire_s: int) -> dict[str, Any]:
        """The component's configuration, without its unique id."""
        value = f"value_json['{telemetry_key}']"
        template = (
            f"{{{{ ({value} * {self.scale:g}) | round({self.digits}) if '{telemetry_key}' in value_json else '' }}}}"
        )
        found = {
            "p": "sensor",
            "name": self.name,
            "state_topic": topic,
            "value_template": template,
            "state_class": self.state_class,
            "unit_of_measurement": self.unit,
            "device_class": self.device_class,
            "expire_after": expire_s if self.state_class == "measurement" else None,
        }
        return {key: value for key, value in found.items() if value not in ("", None)}


NODE_SENSORS: Final = (
    Sensor("processor_share", "Processor", "%", scale=100),
    Sensor("resident_bytes", "Memory", "MB", "data_size", scale=1e-6),
    Sensor("link.up_bytes_per_s", "Rate to the broker", "MB/s", "data_rate", scale=1e-6),
    Sensor("link.down_bytes_per_s", "Rate from the broker", "MB/s", "data_rate", scale=1e-6),
    Sensor("link.round_trip_s", "Round trip to the broker", "ms", "duration", digits=2, scale=1000),
    Sensor("frames_total", "Frames computed", state_class="total_increasing", digits=0),
)
STREAM_SENSORS: Final = (
    Sensor("results_total", "results", state_class="total_increasing", digits=0),
    Sensor("error_results_total", "errors", state_class="total_increasing", digits=0),
    Sensor("in_flight", "in flight", digits=0),
    Sensor("latency_seconds_p50", "latency", "ms", "duration", scale=1000),
)


def announce(config: Config, presence: Presence, version: str, remembered: Path) -> None:
    """Make the node known as the configuration asks, and take back what an earlier process has said otherwise.

    `remembered` is a file that holds the topic of what was said: nothing is published where nothing was.
    """
    section = config.home_assistant
    topic = discovery_topic(section.prefix, config.pipeline, presence.node) if section is not None else ""
    before = _read(remembered)
    if before != topic and _is_own(before, config.pipeline, presence.node):
        presence.session.publish(before, b"", retain=True)
    try:
        if topic:
            remembered.write_text(topic, encoding="utf-8")
        else:
            remembered.unlink(missing_ok=True)
    except OSError as error:
        _log.warning(
            "%s: %s; when home_assistant is off again, `trisect forget` removes the sensors", remembered, error
        )
    if topic:
        found = discovery(config, presence.node, presence.tier, version)
        presence.words.keep(topic, json.dumps(found, ensure_ascii=False).encode())


def _read(remembered: Path) -> str:
    try:
        return read_bounded(remembered, _MOST_BYTES).decode(errors="replace").strip()
    except OSError:
        return ""


def _is_own(topic: str, pipeline: str, node: str) -> bool:
    """True for a topic that an earlier process of the node can have announced itself on."""
    prefix, _, below = topic.partition("/")
    return bool(prefix) and f"+/{below}" == discovery_filter(pipeline, node)


def discovery_topic(prefix: str, pipeline: str, node: str) -> str:
    """The topic of a node's discovery message."""
    return discovery_filter(pipeline, node).replace("+", prefix, 1)


def discovery(config: Config, node: str, tier: str, version: str) -> dict[str, Any]:
    """The discovery message of one node: a device, with its numbers as sensors and its streams' newest answers."""
    names = Namespace(config.pipeline)
    telemetry = names.topic(topics.TELEMETRY, node=node)
    expire_s = max(1, round(_REPORTS_MISSED * config.telemetry.interval_s))
    components: dict[str, dict[str, Any]] = {
        sensor.key.replace(".", "_"): sensor.component(telemetry, sensor.key, expire_s) for sensor in NODE_SENSORS
    }
    for stream, section in config.streams.items():
        if section.device == node:
            components |= _of_stream(names, telemetry, stream, expire_s)
    object_id = discovery_object(config.pipeline, node)
    return {
        "dev": {
            "ids": [object_id],
            "name": f"{node} ({config.pipeline})",
            "mf": "trisect",
            "mdl": f"{tier} node",
            "sw": version,
        },
        "o": {"name": "trisect", "sw": version},
        "availability": [
            {
                "topic": names.topic(topics.STATE, node=node),
                "value_template": _SERVES,
                "payload_available": "online",
                "payload_not_available": "offline",
            }
        ],
        "cmps": {
            key: {**component, "unique_id": f"{object_id}-{key}".replace("-", "_")}
            for key, component in components.items()
        },
    }


def _of_stream(names: Namespace, telemetry: str, stream: StreamId, expire_s: int) -> Mapping[str, dict[str, Any]]:
    components = {}
    for sensor in STREAM_SENSORS:
        component = sensor.component(telemetry, stream_metric(stream, sensor.key), expire_s)
        components[f"{stream}_{sensor.key}"] = {**component, "name": f"{stream} {sensor.name}"}
    result = names.topic(topics.RESULT, stream=stream)
    components[f"{stream}_answer"] = {
        "p": "sensor",
        "name": f"{stream} answer",
        "state_topic": result,
        "value_template": "{{ (value_json.top | default([{}], true))[0].label | default('', true) }}",
        "json_attributes_topic": result,
    }
    return components
