"""An overview of `trisect watch`, fed with the very messages that nodes publish; no broker."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rich.console import Console

from broker import topics
from broker.topics import Topic
from nodes.config.sections import Config
from nodes.protocol.messages import Applied, LifeState, NodeInfo, NodeState, StreamApplied, to_bytes
from nodes.watch.overview import Overview, to_json
from nodes.watch.overview.view import render
from pipeline.coding import CodecCosts, CodecSpeed, PlannedCodecs
from pipeline.cost import Costs, Link, predict
from pipeline.graph import ModelGraph
from pipeline.placement import Placement, Tier
from pipeline.plan import NodeId, Plan, StreamId
from tests.graphs import chain

D, E, C = Tier
CAMERA = StreamId("camera")
DEVICE, EDGE, CLOUD, PLANNER = map(NodeId, ("device-1", "edge-1", "cloud-1", "planner"))
WORKER = NodeId("worker-1")
TIERS = {DEVICE: "device", EDGE: "edge", CLOUD: "cloud", PLANNER: "planner"}
MODEL = "tiny"
GRAPH = replace(chain(150_528, 802_816, 200_704, 4_000), name=MODEL)
LINK = Link(1e8, 1e-3)
COSTS = Costs({D: [0.0, 0.02, 0.03, 0.04], E: [0.0, 0.01, 0.01, 0.01], C: [0.0, 1e-3, 2e-3, 3e-3]}, LINK, LINK)
SPLIT = (D, D, E, C)
CONFIG = Config.model_validate(
    {
        "pipeline": "demo",
        "models": {MODEL: {"source": "mobilenet_v2", "weights": "seed:0"}},
        "streams": {"camera": {"device": "device-1", "model": MODEL}},
        "nodes": {str(node): {"tier": tier} for node, tier in TIERS.items() if node != PLANNER},
    }
)
TELEMETRY = {
    "ts": 1e9,
    "stream.camera.frames_in_total": 110,
    "stream.camera.results_total": 100,
    "stream.camera.error_results_total": 2,
    "stream.camera.in_flight": 8,
    "stream.camera.resubmitted_total": 3,
    "stream.camera.duplicates_ignored_total": 1,
    "stream.camera.dropped_at_source_total": 5,
    "compute_seconds_p50": 0.0213,
    "resident_bytes": 812_000_000,
    "processor_share": 0.98,
}


def plan_of(epoch: int, placement: Placement = SPLIT, reason: str = "first plan", graph: ModelGraph = GRAPH) -> Plan:
    return Plan(
        stream=CAMERA,
        epoch=epoch,
        model=graph.name,
        digest=graph.digest,
        nodes={tier: (DEVICE, EDGE, CLOUD)[tier] for tier in sorted({D, *placement})},
        placement=placement,
        predicted=predict(graph, placement, COSTS),
        planner="exact",
        reason=reason,
        created_ts=1e9,
    )


def result_of(sequence: int, epoch: int, seconds: float = 0.06, error: str = "") -> dict[str, Any]:
    """As `nodes.tier.result_json.result_json` has it, with what a view does not read left out."""
    if error:
        return {"stream": CAMERA, "sequence": sequence, "ok": False, "epoch": epoch, "seconds": seconds, "error": error}
    return {
        "stream": CAMERA,
        "sequence": sequence,
        "ok": True,
        "source": "mqtt",
        "model": MODEL,
        "epoch": epoch,
        "attempt": 1,
        "seconds": seconds,
        "top": [{"index": 1, "label": "cat", "score": 0.9}],
        "tiers": ["device", "edge", "cloud"],
        "path": [
            {"node": node, "tier": tier, "decode_seconds": 0.001, "queue_seconds": 0.002, "compute_seconds": compute}
            for node, tier, compute in ((DEVICE, "device", 0.021), (EDGE, "edge", 0.011), (CLOUD, "cloud", 0.004))
        ],
        "links": {"device_edge": 0.008, "edge_cloud": 0.003, "return": 0.001},
        "ts": 1e9,
    }


def coded_plan(epoch: int) -> Plan:
    """One whose output is coded on its way back, to half of its bytes."""
    speeds = {tier: {"bitmap": CodecSpeed(1e12, 1e12)} for tier in Tier}
    costs = replace(COSTS, codecs=CodecCosts({GRAPH.outputs[0]: {"bitmap": 2.0}}, speeds))
    codecs = PlannedCodecs({}, {GRAPH.outputs[0]: "bitmap"})
    return replace(plan_of(epoch), predicted=predict(GRAPH, SPLIT, costs), codecs=codecs)


class Feed:
    """An overview, and the ways in which nodes feed it; `now` is set by hand."""

    def __init__(self) -> None:
        self.overview = Overview(CONFIG)
        self.now = 100.0
        self.overview.connection(self.now, up=True)

    def send(self, kind: Topic, message: Any, **fields: str) -> None:
        payload = message if isinstance(message, bytes) else to_bytes(message)
        self.overview.learn(kind, fields, payload, self.now)

    def state(self, node: NodeId, state: LifeState = LifeState.READY, session: str = "s1") -> None:
        self.send(topics.STATE, NodeState(node, TIERS[node], state, session, 1, "pi", 42, 1e9), node=node)

    def info(self, node: NodeId, digest: str = GRAPH.digest, streams: Mapping[StreamId, str] | None = None) -> None:
        streams = streams if streams is not None else {CAMERA: MODEL} if node == DEVICE else {}
        info = NodeInfo(node, TIERS[node], "s1", "0.1.0", "tensorflow", "2.18", 1, "x86", {MODEL: digest}, streams)
        self.send(topics.INFO, info, node=node)

    def applied(self, node: NodeId, held: StreamApplied, session: str = "s1") -> None:
        self.send(topics.APPLIED, Applied(node, session, {CAMERA: held}), node=node)

    def plan(self, plan: Plan) -> None:
        self.send(topics.PLAN, plan.to_json(GRAPH), stream=CAMERA)

    def results(self, count: int, epoch: int, seconds: float = 0.06) -> None:
        for sequence in range(count):
            self.send(topics.RESULT, result_of(sequence, epoch, seconds), stream=CAMERA)

    def telemetry(self, node: NodeId, **numbers: Any) -> None:
        self.send(topics.TELEMETRY, {**TELEMETRY, **numbers}, node=node)

    def snapshot(self) -> dict[str, Any]:
        snapshot = self.overview.snapshot(self.now)
        assert json.loads(to_json(snapshot)) == snapshot
        return snapshot

    def stream(self) -> dict[str, Any]:
        found: dict[str, Any] = self.snapshot()["streams"]["camera"]
        return found

    def text(self, width: int = 100) -> str:
        console = Console(file=io.StringIO(), width=width, height=200)
        console.print(render(self.snapshot()))
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    def flat(self, width: int = 100) -> str:
        """The text without frames, and without regard to where lines break."""
        return " ".join(self.text(width).replace("│", " ").split())
