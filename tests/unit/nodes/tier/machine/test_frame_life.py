"""A frame's life: the machine takes the steps of the table, and no others."""

from __future__ import annotations

import random

from nodes.tier.machine import actions as do
from nodes.tier.machine import events as ev
from nodes.tier.machine.frame_life import LIFE, FrameState, Step, diagram_of_life, state_in
from nodes.tier.machine.stream import GRACE_S, MAX_FAILURES
from tests.unit.nodes.tier.machine.test_stream import TIMEOUT_S, Stream, running
from tests.unit.nodes.tier.machine.test_tier import CAM, all_of, array

MACHINE = {FrameState.WAITING, FrameState.ENTERED, FrameState.SUBMITTED}
"""States before which the machine decides what comes next."""


class Watched:
    """A stream whose frames' states are noted after each event."""

    def __init__(self) -> None:
        self.stream = running(window=2)
        self.seen: dict[str, tuple[FrameState, int]] = {}
        self.steps: set[tuple[FrameState, FrameState]] = set()

    def __call__(self, actions: list[do.Action]) -> None:
        owner, over = (
            self.stream.owner,
            {drop.pending_frame: FrameState.DROPPED for drop in all_of(do.DropFrame, actions)},
        )
        over |= {close.pending_frame: FrameState.ANSWERED for close in all_of(do.CloseFrame, actions)}
        here = [
            *(offered.pending_frame for offered in owner.backlog),
            *(frame.pending_frame for frame in owner.open.values()),
        ]
        for pending_frame in (*over, *here):
            state = over.get(pending_frame) or state_in(owner, pending_frame)
            assert state is not None
            attempt = next((frame.attempt for frame in owner.open.values() if frame.pending_frame == pending_frame), 0)
            before = self.seen.get(pending_frame, (FrameState.OUTSIDE, 0))
            if (state, attempt) != before:
                self.steps |= steps_between(before[0], state)
            self.seen[pending_frame] = state, attempt


def steps_between(before: FrameState, after: FrameState) -> set[tuple[FrameState, FrameState]]:
    """Steps that one event brings about: a frame that finds room enters as it comes."""
    if (before, after) == (FrameState.OUTSIDE, FrameState.ENTERED):
        return {(before, FrameState.WAITING), (FrameState.WAITING, after)}
    return {(before, after)}


def test_a_frame_takes_all_steps_of_its_machine_and_no_others() -> None:
    random_events = random.Random(7)
    watched = Watched()
    stream = watched.stream
    for _ in range(2_000):
        submitted = [(s, frame) for s, frame in stream.owner.open.items() if frame.submitted]
        undecoded = [s for s, frame in stream.owner.open.items() if frame.inputs is None]
        chance = random_events.random()
        if chance < 0.3:
            watched(stream.offer(live=True))
        elif chance < 0.5 and undecoded:
            watched(stream(ev.FrameDecoded(CAM, random_events.choice(undecoded), {0: array(1)}, 0.25)))
        elif chance < 0.6 and undecoded:
            watched(stream(ev.FrameUndecodable(CAM, random_events.choice(undecoded), "no image")))
        elif chance < 0.75 and submitted:
            sequence, frame = random_events.choice(submitted)
            watched(stream.answer(stream.owner._key(sequence, frame)))
        elif chance < 0.9 and submitted:
            sequence, frame = random_events.choice(submitted)
            watched(stream.fail(stream.owner._key(sequence, frame)))
            watched(stream.tick(GRACE_S * MAX_FAILURES))
        else:
            watched(stream.tick(TIMEOUT_S))
    machine = {(step.before, step.after) for step in LIFE if step.before in MACHINE | {FrameState.OUTSIDE}}
    killed = {(step.before, step.after) for step in LIFE if step.why.startswith("the device was killed")}
    assert watched.steps == machine - killed


def test_no_state_is_without_a_way_in_and_a_way_out() -> None:
    for state in set(FrameState) - {FrameState.DROPPED}:
        assert any(step.before is state for step in LIFE)
    for state in FrameState:
        assert any(step.after is state for step in LIFE)
    assert Step(FrameState.CLOSED, FrameState.OUTSIDE, "") in LIFE
    assert "    closed --> [*]\n" in diagram_of_life()


def test_a_frame_that_is_nowhere_has_no_state() -> None:
    assert state_in(Stream().owner, "ticket 1") is None
