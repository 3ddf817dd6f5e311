"""A stream as its device sees it: the epoch stamped on new frames, the open frames, and when each is due again.

Exactly one CloseFrame leaves for every frame that entered. A frame stays open, with its input, until all outputs are
back; when they stay away, or a node on its way was lost meanwhile, it is submitted again under the active plan. Answers
of any attempt are equal, so the first one counts and later ones are recognised by their sequence. Only what was asked
for is an answer: under an attempt of this process, its epoch, and from the node that this plan has for it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from broker.complaints import shortened
from nodes.protocol.messages import StreamApplied
from nodes.protocol.peers import Incarnation, Peers
from nodes.tier.machine.actions import Action, CloseFrame, Count, DecodeFrame, DropFrame, Log, Run
from nodes.tier.machine.epochs import EpochTable, Phase
from nodes.tier.machine.events import FrameDecoded, FrameOffered, FrameUndecodable, OutputArrived, OutputFailed
from nodes.tier.machine.joins import merge
from pipeline.graph import ModelGraph
from pipeline.plan import NodeId, Plan, StreamId
from pipeline.ranges import MOST_REASON
from pipeline.wire import Array, FrameKey, Trace

GRACE_S = 0.1
"""After a node came back: several frames' reasons to be submitted again fall together, and are answered once."""
MAX_TIMEOUT_S = 60.0
MAX_FAILURES = 3
LATENCY_MEMORY = 0.9
SEQUENCES_A_START = 1_000_000
MOST_ATTEMPTS = 64
ATTEMPTS_SET_ASIDE = 1_000
"""For each start of the device: a frame that is taken up again after one begins above all attempts before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """`window` frames may be open at once; one is submitted again after `frame_timeout_s` or 4 usual latencies."""

    stream: StreamId
    model: str
    window: int = 4
    frame_timeout_s: float = 5.0
    first_sequence: int = 1


@dataclass(slots=True)
class Frame:
    """An open frame. `due_at` is when it is to be submitted (again); `epoch` is 0 until it was.

    `attempts_before` are set aside for an earlier process of this device: what it sent is not to be taken for ours.
    `submitted` has the plan of each attempt, the newest `MOST_ATTEMPTS` of them. `inputs` are those of `model`, of
    which another version may want others. `disturbed_at` is since when a node on its way is not what it was.
    """

    pending_frame: Any
    due_at: float
    attempts_before: int = 0
    model: str = ""
    inputs: Mapping[int, Array] | None = None
    decode_seconds: float = 0.0
    epoch: int = 0
    attempt: int = 0
    submitted_at: float = 0.0
    incarnation: dict[NodeId, Incarnation | None] = field(default_factory=dict)
    disturbed_at: float | None = None
    submitted: dict[int, Plan] = field(default_factory=dict)
    outputs: dict[int, Array] = field(default_factory=dict)
    trace: Trace = ()
    failures: int = 0
    failed_attempt: int = 0
    was_alone: bool = False


class StreamOwner:
    """The device's half of the protocol, for one stream."""

    def __init__(
        self,
        me: NodeId,
        settings: StreamSettings,
        graphs: Mapping[str, ModelGraph],
        epochs: EpochTable,
        peers: Peers,
    ) -> None:
        self.settings = settings
        self.model = settings.model
        self._me = me
        self._graphs = graphs
        self._epochs = epochs
        self._peers = peers
        self._plans: dict[int, Plan] = {}
        self._next_sequence = settings.first_sequence
        self._latency_s = 0.0
        self.active: int | None = None
        self.open: dict[int, Frame] = {}
        self.backlog: deque[FrameOffered] = deque()
        self._last_publisher = ""

    def applied(self, own: StreamApplied) -> StreamApplied:
        """The state to announce of the stream: this node's readiness, and the epochs that other nodes must keep."""
        return replace(own, active=self.active, holds=tuple(sorted(self._plans)))

    @property
    def active_model(self) -> str | None:
        """The model of the plan that frames go through at present."""
        return self._plans[self.active].model if self.active is not None else None

    def plan_arrived(self, plan: Plan) -> None:
        """Remember a newer plan; one that was never activated is superseded, one of the same epoch replaced."""
        newest = self._plans.get(max(self._plans, default=0))
        known = (newest.epoch, newest.created_ts) if newest is not None else (0, 0.0)
        if plan.device == self._me and (plan.epoch, plan.created_ts) > known:
            self._plans[plan.epoch] = plan

    def frame_offered(self, event: FrameOffered) -> list[Action]:
        """Queue a frame that wants to enter; a live one that still waits gives way to it."""
        stale = [waiting for waiting in self.backlog if waiting.live and event.live]
        self.backlog = deque(waiting for waiting in self.backlog if not (waiting.live and event.live))
        self.backlog.append(event)
        drops: list[Action] = [DropFrame(self.settings.stream, waiting.pending_frame) for waiting in stale]
        return drops + [self._count("dropped_at_source_total") for _ in stale]

    def frame_decoded(self, event: FrameDecoded) -> None:
        """An entered frame is ready to be submitted."""
        frame = self.open.get(event.sequence)
        if frame is not None and event.model in {None, frame.model}:
            frame.inputs, frame.decode_seconds = event.inputs, event.decode_seconds

    def frame_undecodable(self, event: FrameUndecodable) -> list[Action]:
        """An entered frame that is no input is answered with an error."""
        frame = self.open.get(event.sequence)
        if frame is None or frame.inputs is not None or event.model not in {None, frame.model}:
            return []  # the shell failed after it had decoded the frame, which is under way or answered by now
        return self._close(self._key(event.sequence, frame), event.message, of_frame=True)

    def output_arrived(self, event: OutputArrived, now: float) -> list[Action]:
        """Take an output; with the last one missing, the frame closes."""
        frame = self.open.get(event.key.sequence)
        if frame is None:
            return [self._count("duplicates_ignored_total")]
        if not self._is_asked(frame, event):
            return [self._count("unasked_answers_total")]
        frame.outputs[event.tensor] = event.array
        frame.trace = merge(frame.trace, event.trace)
        if not frame.outputs.keys() >= set(self._outputs_of(frame)):
            return []
        self._learn_latency(frame, now - frame.submitted_at)
        return self._close(event.key, "")

    def _is_asked(self, frame: Frame, event: OutputArrived) -> bool:
        """True when this attempt's plan has the sender make this output.

        Answers of an earlier version of the model are none to a frame that was submitted again under another: they are
        not equal, and two halves of two answers would be no answer.
        """
        plan = frame.submitted.get(event.key.attempt)
        if plan is None or plan.epoch != event.key.epoch or plan.digest != frame.submitted[frame.attempt].digest:
            return False
        graph = self._graphs[plan.model]
        if event.tensor not in graph.outputs:
            return False
        return plan.nodes[plan.placement[graph.producer[event.tensor]]] == event.sender

    def _outputs_of(self, frame: Frame) -> tuple[int, ...]:
        """Tensors that answer the frame, as it was submitted last."""
        plan = frame.submitted.get(frame.attempt)
        return self._graphs[plan.model if plan is not None else self.model].outputs

    def graph_asked(self, key: FrameKey) -> ModelGraph:
        """The graph under which this attempt was submitted; of one that is not known, the present one."""
        frame = self.open.get(key.sequence)
        plan = frame.submitted.get(key.attempt) if frame is not None else None
        return self._graphs[plan.model if plan is not None else self.model]

    def _learn_latency(self, frame: Frame, taken: float) -> None:
        """Learn from frames whose nodes all stayed: an outage's seconds are not the next frame's."""
        plan = self._plans.get(frame.epoch)
        if plan is not None and frame.incarnation == self._incarnations(plan):
            self._latency_s = max(taken, LATENCY_MEMORY * self._latency_s + (1 - LATENCY_MEMORY) * taken)

    def output_failed(self, event: OutputFailed, now: float) -> list[Action]:
        """A node could not compute it: try again, a few times, unless the frame itself is at fault."""
        frame = self.open.get(event.key.sequence)
        plan = frame.submitted.get(event.key.attempt) if frame is not None else None
        if frame is None or event.key.attempt != frame.attempt or frame.failed_attempt == frame.attempt:
            return []
        if plan is None or plan.epoch != event.key.epoch or event.sender not in plan.nodes.values():
            return [self._count("unasked_answers_total")]
        frame.failed_attempt = frame.attempt
        frame.failures += 1
        if event.of_frame or frame.failures >= MAX_FAILURES:
            return self._close(event.key, event.message, of_frame=event.of_frame)
        frame.due_at = now + GRACE_S * frame.failures
        text = f"frame {event.key.sequence} failed, trying again: {shortened(event.message)}"
        return [Log(logging.WARNING, text)]

    def connection_restored(self, now: float) -> None:
        """Have open frames submitted again soon: messages to this node may be lost."""
        for frame in self.open.values():
            frame.due_at = min(frame.due_at, now + GRACE_S)

    def refresh(self, now: float) -> list[Action]:
        """Everything that may follow from any event: activate, admit, submit, let old plans go."""
        actions = self._activate()
        actions += self._admit(now)
        if self._runnable():
            self._hasten_disturbed(now)
            actions += self._submit_due(now)
        self._retire()
        return actions

    def validate(self) -> None:
        """Assert what always holds."""
        assert len(self.open) <= self.settings.window
        assert self.active is None or self.active in self._plans
        for frame in self.open.values():
            assert frame.attempt >= frame.attempts_before
            assert len(frame.submitted) <= MOST_ATTEMPTS
            assert all(frame.attempts_before < attempt <= frame.attempt for attempt in frame.submitted)
            is_read = frame.inputs is not None
            assert is_read or not frame.submitted or frame.submitted[frame.attempt].model != frame.model
            assert frame.outputs.keys() < set(self._outputs_of(frame)), "a frame with all outputs is closed"

    def _activate(self) -> list[Action]:
        newest = max(self._plans, default=0)
        if newest == (self.active or 0) or not self._complete(self._plans[newest]):
            return []
        self.active = newest
        plan = self._plans[newest]
        return [
            Log(logging.INFO, f"stream {plan.stream}: epoch {newest} is active ({plan.planner}: {plan.reason})"),
            self._count("plan_changes_total"),
        ]

    def _ready(self, plan: Plan) -> bool:
        mine = self._epochs.find(plan.stream, plan.epoch)
        return (
            mine is not None
            and mine.phase is Phase.READY
            and all(self._peers.ready_for(node, plan) for node in plan.nodes.values() if node != self._me)
        )

    def _complete(self, plan: Plan) -> bool:
        """Whether nobody is waited for: a worker that lives may still prepare, for one that is lost the coordinator
        stands in.

        Once the plan is active, frames enter as long as the nodes with a stage are ready.
        """
        waited_for = [node for node in plan.workers if self._peers.alive(node)]
        return self._ready(plan) and all(self._peers.ready_for(node, plan) for node in waited_for)

    def _runnable(self) -> bool:
        return self.active is not None and self._ready(self._plans[self.active])

    def _incarnations(self, plan: Plan) -> dict[NodeId, Incarnation | None]:
        return {node: self._peers.incarnation(node) for node in plan.nodes.values() if node != self._me}

    def _admit(self, now: float) -> list[Action]:
        actions: list[Action] = []
        while self.backlog and len(self.open) < self.settings.window:
            offered = self._next_offered()
            sequence, before = offered.sequence, 0
            if sequence is None:
                sequence = self._next_sequence
                self._next_sequence += 1
            else:
                before = ATTEMPTS_SET_ASIDE * (self.settings.first_sequence // SEQUENCES_A_START)
            model = self.active_model or self.model
            frame = Frame(offered.pending_frame, due_at=now, attempts_before=before, attempt=before, model=model)
            self.open[sequence] = frame
            entered = "replayed_total" if offered.sequence is not None else "frames_in_total"
            actions += [DecodeFrame(self.settings.stream, sequence, frame.pending_frame, model), self._count(entered)]
        return actions

    def _next_offered(self) -> FrameOffered:
        """Take the frame that has waited longest of those that are not the last one's publisher's, if there are any.

        So one that sends more than its share makes nobody wait but itself.
        """
        others = (at for at, offered in enumerate(self.backlog) if offered.publisher != self._last_publisher)
        at = next(others, 0)
        offered = self.backlog[at]
        del self.backlog[at]
        self._last_publisher = offered.publisher
        return offered

    def _hasten_disturbed(self, now: float) -> None:
        """A frame whose way led through a node that has left or restarted since will not come back by itself.

        Where the node says within a moment that it has not, somebody else had said so in its name.
        """
        for frame in self.open.values():
            plan = self._plans.get(frame.epoch)
            if plan is None or frame.incarnation == self._incarnations(plan):
                frame.disturbed_at = None
            elif frame.disturbed_at is None:
                frame.disturbed_at = now
            elif now >= frame.disturbed_at + GRACE_S:
                frame.due_at = min(frame.due_at, now)

    def _submit_due(self, now: float) -> list[Action]:
        assert self.active is not None
        actions: list[Action] = []
        model = self._plans[self.active].model
        for sequence, frame in self.open.items():
            if frame.due_at <= now and frame.model != model:
                frame.model, frame.inputs = model, None
                actions.append(DecodeFrame(self.settings.stream, sequence, frame.pending_frame, model))
            elif frame.inputs is not None and frame.due_at <= now:
                if frame.attempt > frame.attempts_before:
                    actions.append(self._count("resubmitted_total"))
                actions.append(self._submit(sequence, frame, now))
        return actions

    def _submit(self, sequence: int, frame: Frame, now: float) -> Run:
        assert self.active is not None
        assert frame.inputs is not None
        plan = self._plans[self.active]
        before = frame.submitted.get(frame.attempt)
        if before is not None and before.digest != plan.digest:
            frame.outputs, frame.trace = {}, ()
        frame.was_alone = frame.attempt == frame.attempts_before and len(self.open) == 1
        frame.attempt += 1
        frame.epoch, frame.submitted_at = self.active, now
        frame.submitted[frame.attempt] = plan
        if len(frame.submitted) > MOST_ATTEMPTS:
            del frame.submitted[min(frame.submitted)]
        frame.incarnation, frame.disturbed_at = self._incarnations(plan), None
        frame.due_at = now + self._timeout_s(plan, frame.attempt - frame.attempts_before)
        return Run(self._key(sequence, frame), frame.inputs, (), frame.decode_seconds)

    def _key(self, sequence: int, frame: Frame) -> FrameKey:
        return FrameKey(self.settings.stream, frame.epoch, sequence, frame.attempt, oldest_open=min(self.open))

    def _timeout_s(self, plan: Plan, attempt: int) -> float:
        """Long enough that a slow but living pipeline is not fed the same frame over and over."""
        usual = self._latency_s or plan.predicted.seconds * self.settings.window
        first = max(self.settings.frame_timeout_s, 4 * usual)
        return max(first, min(first * 2.0 ** min(attempt - 1, 10), MAX_TIMEOUT_S))

    def _close(self, answered: FrameKey, error: str, *, of_frame: bool = False) -> list[Action]:
        frame = self.open.pop(answered.sequence)
        close = CloseFrame(
            stream=self.settings.stream,
            sequence=answered.sequence,
            pending_frame=frame.pending_frame,
            epoch=answered.epoch,
            attempt=answered.attempt,
            outputs={} if error else frame.outputs,
            trace=frame.trace,
            error=shortened(error, MOST_REASON),
            of_frame=of_frame,
            was_alone=frame.was_alone,
            model=self._model_of(frame, answered),
        )
        return [close, self._count("error_results_total" if error else "results_total")]

    def _model_of(self, frame: Frame, answered: FrameKey) -> str:
        plan = frame.submitted.get(answered.attempt)
        return plan.model if plan is not None else frame.model

    def _count(self, name: str) -> Count:
        return Count(name, self.settings.stream)

    def _retire(self) -> None:
        needed = {frame.epoch for frame in self.open.values()} | {self.active, max(self._plans, default=0)}
        self._plans = {epoch: plan for epoch, plan in self._plans.items() if epoch in needed}
