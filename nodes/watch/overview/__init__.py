"""The overview of `trisect watch`: messages of nodes, planner and devices, collected into one snapshot of plain JSON.

Knows no socket, clock or screen. Messages come in with the moment of their arrival, on any clock that only advances;
ages and rates are reckoned on it alone, since the nodes' own clocks may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from broker import topics
from broker.topics import Topic
from nodes.config.sections import Config
from nodes.display.text import json_text
from nodes.protocol.messages import Applied, LinkReport, MessageError, NodeInfo, NodeState, from_bytes, parse_json
from nodes.protocol.reports import read_report
from nodes.watch.overview.known import Known
from nodes.watch.overview.node import MAX_NUMBER
from nodes.watch.overview.stream import StreamRecord, read_result
from nodes.watch.overview.totals import totals
from pipeline.errors import TrisectError
from pipeline.graph import ModelGraph
from pipeline.plan import NodeId, Plan


class Overview:
    """Takes messages, gives snapshots. The configuration names the nodes and streams to expect."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._known = Known(config, streams={name: StreamRecord() for name in config.streams})
        self._bad_total = 0
        self._last_bad: tuple[str, str, float] | None = None
        self._dropped_total: int | None = None
        self._connected = False
        self._disconnected_why = ""
        self._since: float | None = None
        self._readers: dict[Topic, Callable[[Mapping[str, str], bytes, float], None]] = {
            topics.STATE: self._state,
            topics.INFO: self._info,
            topics.LINK: self._link,
            topics.APPLIED: self._applied,
            topics.TELEMETRY: self._telemetry,
            topics.PLAN: self._plan,
            topics.MODEL: self._model,
            topics.RESULT: self._result,
        }

    @property
    def kinds(self) -> tuple[Topic, ...]:
        """The kinds of topic to feed it with."""
        return tuple(self._readers)

    # What comes in.

    def connection(self, now: float, *, up: bool, why: str = "") -> None:
        """Note that the connection to the broker is up, or why it is not."""
        self._connected, self._disconnected_why = up, why
        if up and self._since is None:
            self._since = now

    def learn(self, kind: Topic, fields: Mapping[str, str], payload: bytes, now: float) -> None:
        """Take one message. One that is not what its topic carries is counted and shown, and changes nothing else."""
        reader = self._readers.get(kind)
        if reader is None:
            return
        try:
            if payload:
                reader(fields, payload, now)
            else:
                self._forget(kind, fields)
        except TrisectError as error:
            self._bad_total += 1
            self._last_bad = (kind.template.format(**fields), str(error), now)

    def learn_dropped(self, payload: bytes) -> None:
        """Take mosquitto's count of dropped messages; anything but a number is ignored."""
        if payload.isdigit() and len(payload) <= len(str(int(MAX_NUMBER))):
            self._dropped_total = int(payload)

    def all_reported(self) -> bool:
        """True when every node that is ready has sent telemetry."""
        return self._known.all_reported()

    def _state(self, fields: Mapping[str, str], payload: bytes, _: float) -> None:
        state = from_bytes(NodeState, payload)
        _require(fields["node"], state.node)
        known = self._known.peers.states.get(state.node)
        if self._known.peers.learn_state(state) and known is not None and known.session != state.session:
            self._known.node(state.node).started_anew()

    def _info(self, fields: Mapping[str, str], payload: bytes, _: float) -> None:
        info = from_bytes(NodeInfo, payload)
        _require(fields["node"], info.node)
        self._known.node(info.node).info = info

    def _link(self, fields: Mapping[str, str], payload: bytes, _: float) -> None:
        link = from_bytes(LinkReport, payload)
        _require(fields["node"], link.node)
        self._known.node(link.node).link = link

    def _applied(self, fields: Mapping[str, str], payload: bytes, _: float) -> None:
        applied = from_bytes(Applied, payload)
        _require(fields["node"], applied.node)
        self._known.peers.applied[applied.node] = applied

    def _telemetry(self, fields: Mapping[str, str], payload: bytes, now: float) -> None:
        self._known.node(fields["node"]).learn_telemetry(payload, now)
        report = read_report(payload)
        for took in report.tiles:
            if took.stream in self._known.streams:
                self._known.streams[took.stream].learn_tile(took)
        for ratio in report.ratios:
            if ratio.stream in self._known.streams:
                self._known.streams[ratio.stream].learn_ratio(ratio)

    def _plan(self, fields: Mapping[str, str], payload: bytes, _: float) -> None:
        plan = Plan.from_json(parse_json(payload))
        _require(fields["stream"], plan.stream)
        self._known.stream(plan.stream).learn_plan(plan)

    def _model(self, fields: Mapping[str, str], payload: bytes, _: float) -> None:
        graph = ModelGraph.from_json(parse_json(payload))
        _require(fields["digest"], graph.digest)
        self._known.graphs[graph.digest] = graph

    def _result(self, fields: Mapping[str, str], payload: bytes, now: float) -> None:
        self._known.stream(fields["stream"]).learn_result(read_result(payload), now)

    def _forget(self, kind: Topic, fields: Mapping[str, str]) -> None:
        """An empty payload takes a retained message back."""
        if kind is topics.STATE:
            self._known.peers.states.pop(NodeId(fields["node"]), None)
        elif kind is topics.APPLIED:
            self._known.peers.applied.pop(NodeId(fields["node"]), None)
        elif kind is topics.PLAN:
            self._known.stream(fields["stream"]).newest = None

    # What comes out.

    def snapshot(self, now: float) -> dict[str, Any]:
        """The snapshot, as plain JSON values: the keys are stable, a value that is not known (yet) is None.

        Seconds are seconds, ages are counted back from `now`, and `_p50`, `_p95` are over the newest 64 results.
        """
        broker = self._config.broker
        streams = {name: self._known.stream_json(name, now, self._since) for name in sorted(self._known.streams)}
        return {
            "pipeline": self._config.pipeline,
            "broker": {
                "address": f"{broker.host}:{broker.port}",
                "connected": self._connected,
                "why": self._disconnected_why,
                "dropped_messages_total": self._dropped_total,
            },
            "problems": self._problems(now),
            "bad_messages_total": self._bad_total,
            "last_bad_message": self._last_bad and _bad_json(*self._last_bad, now),
            "nodes": {node: self._known.node_json(node, now) for node in self._known.node_ids()},
            "models": {digest: _graph_json(graph) for digest, graph in sorted(self._known.graphs.items())},
            "streams": streams,
            "totals": totals(streams),
        }

    def _problems(self, now: float) -> list[str]:
        if not self._connected:
            return [f"the broker is not there: {self._disconnected_why or 'the connection ended'}"]
        return self._known.problems(now)


def to_json(snapshot: Mapping[str, Any]) -> str:
    """A snapshot as the text that scripts read."""
    return json_text(snapshot, indent=2)


def _require(named: str, said: str) -> None:
    if named != said:
        raise MessageError(f"the topic is of {named!r}, the message of {said!r}")


def _bad_json(topic: str, error: str, at: float, now: float) -> dict[str, Any]:
    return {"topic": topic, "error": error, "age_seconds": round(now - at, 3)}


def _graph_json(graph: ModelGraph) -> dict[str, Any]:
    return {
        "name": graph.name,
        "blocks": len(graph),
        "parameters": sum(block.parameters for block in graph.blocks),
        "macs": sum(block.macs for block in graph.blocks),
    }
