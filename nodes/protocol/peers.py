"""Peers of a node: which are alive in which session, and which epochs each is ready to run."""

from __future__ import annotations

from dataclasses import dataclass, field

from nodes.protocol.messages import Applied, LifeState, NodeState, StreamApplied
from pipeline.plan import NodeId, Plan, StreamId
from pipeline.ranges import MOST_NODES

EPOCHS_AHEAD = 10_000
"""By how much an epoch may exceed the newest known one: plans in a row that a process can have missed."""
MOST_FIRST_EPOCH = 10**9
"""Where nothing is known of a stream: more plans than a planner makes in thirty years, one a second."""
_HAVE_BEEN_UP = frozenset({LifeState.READY, LifeState.DRAINING, LifeState.STOPPED})
Incarnation = tuple[str, int]
"""A node's session and births: when either changes, what was under way to that node may be lost."""


@dataclass(slots=True)
class Peers:
    """All nodes of the pipeline, this one included, as their retained messages have them."""

    states: dict[NodeId, NodeState] = field(default_factory=dict)
    applied: dict[NodeId, Applied] = field(default_factory=dict)

    def admits(self, node: NodeId) -> bool:
        """True when the node is known, or there is room for one more."""
        return node in self.states or node in self.applied or len(self.states) + len(self.applied) < 2 * MOST_NODES

    def full(self, node: NodeId) -> str:
        """The reason to refuse a node that is not admitted."""
        return f"node: {MOST_NODES} are known, and {node} would be one more; `trisect forget` those that are gone"

    def validate(self) -> None:
        """Assert what always holds."""
        assert len(self.states) + len(self.applied) <= 4 * MOST_NODES

    def learn_state(self, state: NodeState) -> bool:
        """Take a state; returns True if it is new to people.

        An old session's will is ignored, and so is a process that is said to come up when it was up already: that is a
        message of then.
        """
        known = self.states.get(state.node)
        if known is not None and (
            (state.state is LifeState.LOST and known.session != state.session)
            or (state.state is LifeState.INIT and known.session == state.session and known.state in _HAVE_BEEN_UP)
        ):
            return False
        self.states[state.node] = state
        return known is None or (known.state, known.session) != (state.state, state.session)

    def forget(self, node: NodeId) -> bool:
        """Forget a node whose state was cleared; returns False for one that is alive, which says so again itself."""
        if self.alive(node):
            return False
        self.applied.pop(node, None)
        return self.states.pop(node, None) is not None

    def alive(self, node: NodeId) -> bool:
        """True when the node is ready, or draining: it still finishes what it has."""
        state = self.states.get(node)
        return state is not None and state.state in (LifeState.READY, LifeState.DRAINING)

    def incarnation(self, node: NodeId) -> Incarnation | None:
        """Its session and births while it is alive, None otherwise."""
        return (self.states[node].session, self.states[node].births) if self.alive(node) else None

    def stream_applied(self, node: NodeId, stream: StreamId) -> StreamApplied | None:
        """The node's state of the stream, if it is of its present session, else None."""
        applied = self.applied.get(node)
        state = self.states.get(node)
        if applied is None or state is None or applied.session != state.session:
            return None
        return applied.streams.get(stream)

    def ready_for(self, node: NodeId, plan: Plan) -> bool:
        """True when the node is alive and has the plan's epoch compiled and subscribed."""
        held = self.stream_applied(node, plan.stream)
        return self.alive(node) and held is not None and plan.epoch in held.ready
