"""`trisect health`: one answer about a node, or about all streams, as an exit code. Computes nothing."""

from __future__ import annotations

import queue
import sys

from broker import topics
from broker.errors import BrokerError, RequestTimeout
from broker.session import Message
from broker.topics import Namespace
from nodes.config.sections import Config
from nodes.display.text import plain
from nodes.protocol.asking import ask
from nodes.protocol.border import Border
from nodes.protocol.commands import PING, PING_TIMEOUT_S
from nodes.protocol.messages import LifeState, NodeState
from nodes.session.presence import guest_session, reply_topic
from nodes.watch import app as view
from pipeline.plan import NodeId

SERVING = (LifeState.READY, LifeState.DRAINING)


def run(config: Config, node: str | None, *, timeout_s: float) -> int:
    """Print one line for each fault, or one that all is well; returns the exit code."""
    member = config.broker.credentials
    if node is None and member is not None and {"node", "planner"} & set(member.roles):
        node = member.name
    try:
        found = _of_node(config, node, timeout_s) if node else view.snapshot(config, timeout_s=timeout_s)["problems"]
    except BrokerError as error:
        found = [str(error)]
    for fault in found:
        print(plain(fault), file=sys.stderr)
    if not found:
        print(f"{node} serves" if node else "all nodes are there, and every stream runs")
    return 1 if found else 0


def _of_node(config: Config, node: str, timeout_s: float) -> list[str]:
    """Faults of one node: what it says of itself, and whether it answers now, if the asker may ask."""
    names = Namespace(config.pipeline)
    arrived: queue.SimpleQueue[Message] = queue.SimpleQueue()
    with guest_session(config, "health") as session:
        session.start(timeout_s)
        session.subscribe([names.topic(topics.STATE, node=node)], arrived.put)
        try:
            state = Border(names).read(arrived.get(timeout=timeout_s))
        except queue.Empty:
            return [f"the broker has never heard of {node}; is its process running?"]
        if not isinstance(state, NodeState) or state.state not in SERVING:
            said = state.state.value if isinstance(state, NodeState) else "unreadable"
            why = f": {state.message}" if isinstance(state, NodeState) and state.message else ""
            return [f"{node} is {said}{why}"]
        try:
            answers = reply_topic(config, session)
            ask(session, names, NodeId(node), PING, {}, reply_topic=answers, timeout_s=min(timeout_s, PING_TIMEOUT_S))
        except RequestTimeout:
            return [f"{node} says that it is {state.state.value}, and does not answer"]
    return []
