"""Nodes that do not prepare a plan in time: left out while they are at it, planned with again when they are done. Pure.

A living node that never prepares would hold a plan up for ever. One that is slow may need as long again for another
plan, so each time it gets twice as long; frames go on meanwhile under the plan before.
"""

from __future__ import annotations

import logging

from nodes.planner.machine.binding import Late
from nodes.planner.machine.stream import PlannedStream
from nodes.protocol.peers import Peers
from nodes.tier.machine.actions import Log
from pipeline.plan import NodeId, StreamId

MOST_DOUBLINGS = 10


def patience_s(prepare_timeout_s: float, stream: PlannedStream, node: NodeId, session: str) -> float:
    """Seconds that this process of the node has to prepare a plan."""
    return prepare_timeout_s * 2.0 ** min(stream.binding.was_late(node, session), MOST_DOUBLINGS)


def overdue(peers: Peers, prepare_timeout_s: float, stream: PlannedStream, now: float) -> list[Log]:
    """Note who prepares the present plan since when, and leave out who has had its time."""
    plan, waiting = stream.plan, {}
    for node in plan.members if plan else ():
        if plan and node != plan.device and peers.alive(node) and not peers.ready_for(node, plan):
            key = (node, peers.states[node].session, plan.epoch)
            waiting[key] = stream.preparing.get(key, now)
    stream.preparing = waiting
    logs = []
    for (node, session, epoch), since in waiting.items():
        seconds = patience_s(prepare_timeout_s, stream, node, session)
        if now - since < seconds or stream.binding.is_left_out(node, session):
            continue
        text = f"{node} has not prepared epoch {epoch} within {seconds:.0f} s"
        if _is_at_work(peers, stream.name, node, epoch):
            stream.binding.late[node] = Late(session, epoch, stream.binding.was_late(node, session) + 1)
            text += ": it is left out until it has"
        else:
            stream.binding.banned[node] = session
            text += " and is not at work on it: it is left out until it restarts"
        logs.append(Log(logging.WARNING, text))
    return logs


def no_longer_late(peers: Peers, stream: PlannedStream, node: NodeId) -> str:
    """Take a node in again that was late, once it has done what it was late with; returns what to say then, else ""."""
    late, state = stream.binding.late.get(node), peers.states.get(node)
    if late is None or late.epoch is None or state is None or state.session != late.session:
        return ""
    epoch = late.epoch
    if _is_at_work(peers, stream.name, node, epoch):
        return ""
    late.epoch = None
    return f"{node} is done with epoch {epoch} of stream {stream.name}, late, and is planned with again"


def _is_at_work(peers: Peers, stream: StreamId, node: NodeId, epoch: int) -> bool:
    """True while a node that is not ready may still become so: it prepares the epoch, or has not heard of it yet."""
    held = peers.stream_applied(node, stream)
    return held is None or held.seen < epoch or epoch in held.preparing
