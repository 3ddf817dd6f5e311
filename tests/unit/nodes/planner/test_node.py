"""The planner's shell: when it takes what is retained for complete."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from broker import topics
from broker.messages import Channel, Message
from nodes.config.sections import Config
from nodes.planner.inbox import STOP
from nodes.planner.node import PlannerNode
from nodes.protocol.border import Border
from nodes.protocol.messages import LifeState, NodeState, to_bytes
from nodes.session.presence import PLANNER_TIER
from nodes.tier.machine.events import ConnectionRestored, PeerStateArrived
from pipeline.plan import NodeId

CONFIG = Config.model_validate(
    {
        "pipeline": "lab",
        "models": {"net": {"source": "mobilenet_v2"}},
        "streams": {"camera": {"device": "device-1", "model": "net"}},
        "nodes": {"device-1": {"tier": "device"}},
    }
)


def test_only_its_own_present_birth_says_that_all_that_is_retained_has_come() -> None:
    planner, asked = PlannerNode(CONFIG), list[list[str]]()
    planner.presence = cast("Any", SimpleNamespace(token="now", births=2, border=Border(planner.names)))
    planner.session = cast("Any", SimpleNamespace(subscribe=lambda filters, handler, **_: asked.append(filters)))
    own = CONFIG.planner.id
    for node, session, births in ((NodeId("device-1"), "now", 2), (own, "before", 2), (own, "now", 9), (own, "now", 2)):
        said = NodeState(node, PLANNER_TIER, LifeState.READY, session, births)
        hear(planner, planner.names.topic(topics.STATE, node=node), to_bytes(said))
        hear(planner, planner.names.topic(topics.STATE, node=node), to_bytes(said))
    kinds = [type(event) for event in taken(planner)]
    assert kinds == [*[PeerStateArrived] * 7, ConnectionRestored, PeerStateArrived]
    assert asked == [[planner.names.filter(topics.TELEMETRY)]], "reports are asked for then, and once"


def hear(planner: PlannerNode, topic: str, payload: bytes) -> None:
    message = Message(topic, payload, True, Channel.CONTROL, None, None, lambda: None)
    planner._on_message(lambda _, state: PeerStateArrived(state), message)


def taken(planner: PlannerNode) -> list[object]:
    found: list[object] = []
    while (item := planner._inbox.take(0.0)) is not None:
        assert item is not STOP
        found.append(item[0])
    return found
