"""A pipeline that is played: what its nodes would say goes to a real broker, and nothing is computed.

Nodes answer to commands, and a plan is active as soon as it is published. The planner may be the real one.
"""

from __future__ import annotations

import io
import json
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import paho.mqtt.client as paho
import yaml
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from PIL import Image

from broker import topics
from broker.topics import Namespace, Topic
from nodes.config.loader import load_config
from nodes.config.sections import Config
from nodes.protocol.messages import Applied, LifeState, LinkReport, NodeInfo, NodeState, StreamApplied, to_bytes
from pipeline.answers.report import class_map_png
from pipeline.cost import Costs, Link, predict
from pipeline.graph import Block, ModelGraph, Tensor
from pipeline.placement import Tier
from pipeline.plan import NodeId, Plan, StreamId
from pipeline.profiling.profile import Profile
from pipeline.protocol_version import PROTOCOL_VERSION

MODEL = "played"
SESSION = "one"
BLOCKS = 24
SECONDS = {Tier.DEVICE: 4e-3, Tier.EDGE: 1e-3, Tier.CLOUD: 3e-4}
VERSION = "0.1.0"


def network(blocks: int = BLOCKS) -> ModelGraph:
    """A network whose every third block is skipped by a branch, with maps that shrink on the way."""
    tensors, made = [], []
    for index in range(blocks):
        side = max(4, 224 >> (index * 5 // blocks))
        tensors.append(Tensor(index, f"map_{index}", (1, side, side, 3 if index == 0 else 16), "float32"))
        sources = () if index == 0 else (index - 1,) if index < 3 or index % 3 else (index - 1, index - 3)
        kind = "input" if index == 0 else "Conv2D" if len(sources) == 1 else "Add"
        made.append(Block(index, f"block_{index}", kind, (f"layer_{index}",), sources, (index,)))
    return ModelGraph(MODEL, "0123456789abcdef", tuple(tensors), tuple(made), (0,), (blocks - 1,))


GRAPH = network()


def configuration(port: int, nodes: Mapping[str, str], streams: Mapping[str, str]) -> dict[str, Any]:
    """A pipeline's configuration, as a file has it; `nodes` by id their tier, `streams` by name their device."""
    return {
        "pipeline": "lab",
        "broker": {"port": port},
        "models": {MODEL: {"source": "mobilenet_v2", "weights": "seed:0"}},
        "streams": {name: {"device": device, "model": MODEL, "preview": True} for name, device in streams.items()},
        "nodes": {name: {"tier": tier} for name, tier in nodes.items()},
        "planner": {"min_seconds_between_plans": 0.0, "settle_s": 0.2, "lost_after_s": 3600.0},
        "telemetry": {"interval_s": 60.0},
    }


class Played:
    """Speaks for all nodes of a configuration."""

    def __init__(self, config: Config, graph: ModelGraph = GRAPH) -> None:
        self.config, self.graph = config, graph
        self.names = Namespace(config.pipeline)
        self.sequence = 0
        self.commands: list[tuple[str, str]] = []
        self.plans: dict[StreamId, Plan] = {}
        self._random = random.Random(1)
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.max_inflight_messages_set(1000)
        self._client.on_connect = lambda *_: self._connected()
        self._client.on_message = self._on_message
        host, port = config.broker.endpoints[0]
        self._client.connect(host, port)
        self._client.loop_start()

    def _connected(self) -> None:
        self._client.subscribe([(self.names.filter(topics.PLAN), 1), (self.names.filter(topics.COMMAND), 1)])

    def stop(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()

    def say(self, kind: Topic, message: object, **fields: str | int) -> None:
        """Publish a message, as its topic is published."""
        self.say_at(self.names.topic(kind, **fields), to_bytes(message), kind)

    def say_at(self, topic: str, payload: bytes, kind: Topic) -> None:
        """Publish bytes on any topic, also on one that no node could have."""
        self._client.publish(topic, payload, qos=kind.qos, retain=kind.retain)

    def come(self) -> None:
        """All that nodes say of themselves when they start."""
        self.say(topics.MODEL, self.graph.to_json(), digest=self.graph.digest)
        for name, section in self.config.nodes.items():
            self.node(name, section.tier)

    def node(self, name: NodeId, tier: Tier, *, state: LifeState = LifeState.READY, message: str = "") -> None:
        """One of them."""
        models = {MODEL: self.graph.digest}
        streams = {stream: MODEL for stream, section in self.config.streams.items() if section.device == name}
        self.say(
            topics.INFO,
            NodeInfo(name, tier.label, SESSION, VERSION, "litert", "2", 2, "played", models, streams),
            node=name,
        )
        seconds = (0.0, *[SECONDS[tier]] * (len(self.graph) - 1))
        profile = Profile(MODEL, self.graph.digest, "litert", "2", 2, "played", seconds, seconds, sum(seconds), 0.0)
        self.say(topics.PROFILE, profile.to_json(), node=name, model=MODEL)
        self.say(topics.LINK, LinkReport(name, SESSION, 2e7, 4e7, 2e-3, time.time()), node=name)
        self.say(
            topics.STATE, NodeState(name, tier.label, state, SESSION, 1, "host", 1, time.time(), message), node=name
        )

    def plan(self, stream: StreamId, epoch: int, edge_from: int, cloud_from: int, reason: str = "played") -> Plan:
        """A plan that is not the planner's."""
        device = self.config.streams[stream].device
        nodes = {Tier.DEVICE: device} | {
            tier: self._random.choice(self.config.nodes_of(tier)) for tier in (Tier.EDGE, Tier.CLOUD)
        }
        blocks = range(len(self.graph))
        placement = tuple(Tier.DEVICE if i < edge_from else Tier.EDGE if i < cloud_from else Tier.CLOUD for i in blocks)
        link = Link(2e7, 1e-3)
        costs = Costs({tier: [0.0, *[SECONDS[tier]] * (len(self.graph) - 1)] for tier in Tier}, link, link)
        return Plan(
            stream=stream,
            epoch=epoch,
            model=MODEL,
            digest=self.graph.digest,
            nodes={tier: nodes[tier] for tier in sorted(set(placement))},
            placement=placement,
            predicted=predict(self.graph, placement, costs),
            planner="exact",
            reason=reason,
            created_ts=time.time(),
        )

    def publish_plan(self, plan: Plan) -> None:
        """As the planner would."""
        self.say(topics.PLAN, plan.to_json(self.graph), stream=plan.stream)

    def telemetry(self, node: str, **more: float) -> None:
        """A node's report."""
        busy = self._random.random()
        report = {"ts": time.time(), "resident_bytes": 2e8 + 1e7 * busy, "processor_share": busy, **more}
        self.say(topics.TELEMETRY, report, node=node)

    def result(self, stream: str, **more: Any) -> int:
        """A frame's result; returns its sequence."""
        self.sequence += 1
        plan = self.plans.get(StreamId(stream))
        seconds = 0.05 * (1 + self._random.random())
        path = [
            {
                "node": node,
                "tier": tier.label,
                "decode_seconds": 1e-3,
                "queue_seconds": 1e-3,
                "compute_seconds": seconds / 5,
                "encode_seconds": 1e-3,
            }
            for tier, node in (plan.nodes.items() if plan else ())
        ]
        result = {
            "stream": stream,
            "sequence": self.sequence,
            "ok": True,
            "epoch": plan.epoch if plan else 1,
            "attempt": 1,
            "seconds": seconds,
            "top": [{"index": 1, "label": "cat", "score": 0.9}],
            "path": path,
            "links": {"device_edge": 4e-3, "edge_cloud": 4e-3, "return": 2e-3},
            "ts": time.time(),
        }
        self.say(topics.RESULT, result | more, stream=stream)
        return self.sequence

    def preview(self, stream: str, sequence: int) -> None:
        """A frame's small picture: a plain grey one."""
        buffer = io.BytesIO()
        Image.new("RGB", (160, 120), (120, 120, 120)).save(buffer, "JPEG")
        message = {"protocol": PROTOCOL_VERSION, "stream": stream, "sequence": sequence, "width": 640, "height": 480}
        topic = self.names.topic(topics.PREVIEW, stream=stream)
        self.say_at(topic, msgpack.packb(message | {"jpeg": buffer.getvalue()}), topics.PREVIEW)

    def class_map(self, stream: str, sequence: int) -> None:
        """A frame's map of classes: its left half is class 2, the rest class 0."""
        classes = np.zeros((24, 32), np.uint8)
        classes[:, :16] = 2
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.CorrelationData = str(sequence).encode()
        topic = self.names.topic(topics.CLASS_MAP, stream=stream)
        self._client.publish(topic, class_map_png(classes[None], {}), qos=1, properties=properties)

    def _on_message(self, client: paho.Client, data: object, message: paho.MQTTMessage) -> None:
        parsed = self.names.parse(message.topic)
        if parsed is None or not message.payload:
            return
        kind, fields = parsed
        if kind is topics.PLAN:
            self._activate(Plan.from_json(json.loads(message.payload)))
        elif fields["node"] in self.config.nodes:
            self._obey(fields["node"], fields["verb"], json.loads(message.payload))

    def _activate(self, plan: Plan) -> None:
        self.plans[plan.stream] = plan
        for node in plan.nodes.values():
            held = {
                stream: StreamApplied(
                    seen=one.epoch,
                    ready=(one.epoch,),
                    active=one.epoch if node == one.device else None,
                    holds=(one.epoch,) if node == one.device else (),
                )
                for stream, one in self.plans.items()
                if node in one.nodes.values()
            }
            self.say(topics.APPLIED, Applied(node, SESSION, held), node=node)

    def _obey(self, node: str, verb: str, asked: Mapping[str, Any]) -> None:
        self.commands.append((node, verb))
        answer = {"ok": True, "reply_to": asked["reply_to"], "request_id": asked["request_id"]}
        self._client.publish(asked["reply_to"], json.dumps(answer), qos=1)
        if verb == "drain":
            tier = self.config.nodes[NodeId(node)].tier
            state = LifeState.READY if asked.get("undo") else LifeState.DRAINING
            self.say(topics.STATE, NodeState(NodeId(node), tier.label, state, SESSION, 1, "host", 1), node=node)


def write(folder: Path, values: Mapping[str, Any]) -> Path:
    """The configuration as a file."""
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump(dict(values), sort_keys=False))
    return path


@contextmanager
def played(path: Path, graph: ModelGraph = GRAPH) -> Iterator[Played]:
    """Nodes that are all there."""
    config = load_config(path)
    found = Played(config, replace(graph))
    try:
        found.come()
        yield found
    finally:
        found.stop()
