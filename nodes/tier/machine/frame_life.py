"""A frame's life on its device, as a table. docs/architecture.md has the diagram that `diagram_of_life` draws of it."""

from __future__ import annotations

from enum import Enum
from typing import Any, Final, NamedTuple

from nodes.tier.machine.stream import StreamOwner


class FrameState(Enum):
    """Where a frame is; WAITING, ENTERED and SUBMITTED are this machine's, the others follow in the shell."""

    OUTSIDE = "[*]"
    WAITING = "waiting"
    DROPPED = "dropped"
    ENTERED = "entered"
    SUBMITTED = "submitted"
    ANSWERED = "answered"
    CLOSED = "closed"


class Step(NamedTuple):
    """From one state to another, and what brings it about."""

    before: FrameState
    after: FrameState
    why: str


_OUTSIDE, _WAITING, _DROPPED, _ENTERED, _SUBMITTED, _ANSWERED, _CLOSED = FrameState
LIFE: Final = (
    Step(_OUTSIDE, _WAITING, "comes over MQTT, from the own source, or from the journal"),
    Step(_WAITING, _DROPPED, "live, and a fresher one comes"),
    Step(_WAITING, _ENTERED, "room in the window; gets its sequence and its record"),
    Step(_ENTERED, _SUBMITTED, "decoded, and the active plan's nodes are ready (attempt + 1)"),
    Step(_SUBMITTED, _SUBMITTED, "timeout, a node on its way left or came anew, a node failed (attempt + 1)"),
    Step(_ENTERED, _ANSWERED, "undecodable"),
    Step(_SUBMITTED, _ANSWERED, "all outputs are in, or the third failure"),
    Step(_ANSWERED, _CLOSED, "the broker has the result"),
    Step(_CLOSED, _OUTSIDE, ""),
    Step(_ENTERED, _WAITING, "the device was killed"),
    Step(_SUBMITTED, _WAITING, "the device was killed"),
    Step(_ANSWERED, _WAITING, "the device was killed, and the broker does not have the result"),
)


def state_in(owner: StreamOwner, pending_frame: Any) -> FrameState | None:
    """A frame's state in its stream's machine; None when it is not there any more, or not yet."""
    if any(offered.pending_frame is pending_frame for offered in owner.backlog):
        return FrameState.WAITING
    for frame in owner.open.values():
        if frame.pending_frame is pending_frame:
            return FrameState.SUBMITTED if frame.submitted else FrameState.ENTERED
    return None


def diagram_of_life() -> str:
    """The table as a state diagram in Mermaid."""
    steps = (f"    {s.before.value} --> {s.after.value}{f': {s.why}' if s.why else ''}" for s in LIFE)
    return "\n".join(("stateDiagram-v2", *steps))
