"""Law 3 at the device's border: each frame that entered has one result at the broker, of all of its parcels.

The journal, the ledger, `broker.exactly_once` and the outbox are the real ones. In place of network and broker stands a
session that delivers, loses and breaks where it is told to; the device is killed between any two steps. Results have
several parcels: outputs, an answer on a response topic, and the result itself, behind them.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from broker import topics
from broker.exactly_once import Publication
from broker.messages import Channel, Delivery, Payload
from broker.outbox import Bundle, Outbox
from broker.packets import outgoing
from broker.session import Message, Session
from broker.topics import Namespace
from nodes.protocol.border import Border
from nodes.protocol.messages import to_bytes
from nodes.tier.frame_ledger import FrameLedger
from nodes.tier.machine.events import FrameOffered
from nodes.tier.pending_frame import PendingFrame
from pipeline.plan import NodeId, StreamId
from tests.effort import examples

CAM, DEVICE = StreamId("cam"), NodeId("device-1")
NAMES = Namespace("lab")
RESULT, OUTPUT = NAMES.topic(topics.RESULT, stream=CAM), NAMES.topic(topics.OUTPUT, stream=CAM)
FENCE, FRAME = NAMES.topic(topics.FENCE, node=DEVICE), NAMES.topic(topics.FRAME, stream=CAM)
REPLY = NAMES.topic(topics.REPLY, client="cli-1")
SEQUENCES = 1_000_000


class Broker:
    """What it took, in order; what waits for the device's sessions; frames that it has no acknowledgement of."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, bytes]] = []
        self.queue: deque[tuple[str, bytes]] = deque()
        self.frames: dict[int, bytes] = {}
        self.was_sent: set[int] = set()

    def acknowledged(self, number: int) -> None:
        self.frames.pop(number, None)

    def take(self, topic: str, payload: bytes) -> None:
        self.taken.append((topic, payload))
        if topic in (RESULT, FENCE):
            self.queue.append((topic, payload))


class Line(Session):
    """One process's session, of which each step is asked for."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.box = Outbox("line", limit_bytes=1 << 30)
        self.handlers: dict[str, Callable[[Message], None]] = {}
        self.in_flight: deque[int] = deque()
        self.connects, self.number, self.stands = 0, 0, False
        self.breaks_at_fence = False

    @property
    def is_up(self) -> bool:
        return self.stands

    def connects_total(self, channel: Channel) -> int:
        return self.connects

    def subscribe(self, filters: Sequence[str], handler: Callable[[Message], None], **_: Any) -> None:
        self.handlers |= dict.fromkeys(filters, handler)

    def publish(
        self,
        topic: str,
        payload: Payload,
        *,
        repeated: bool = True,
        settled: Callable[[bool], None] | None = None,
        bundle: Bundle | None = None,
        correlation: bytes | None = None,
        **_: Any,
    ) -> bool:
        item = outgoing(topic, payload, correlation=correlation)
        item.repeated, item.settled, item.bundle = repeated, settled, bundle
        is_queued = self.box.put(item, wait_s=0.0)
        if topic == FENCE:  # whoever sent it waits, so that all that goes before it happens here
            if self.breaks_at_fence:
                self.break_off()
            while self.stands and self.send():
                self.acknowledge()
            while self.stands and self.broker.queue:
                self.receive()
        return is_queued

    def send(self) -> bool:
        """The broker takes the next message; its acknowledgement is under way."""
        item = self.box.take(64) if self.stands else None
        if item is None:
            return False
        self.number += 1
        self.box.sent(self.number, item)
        self.in_flight.append(self.number)
        self.broker.take(item.topic, b"".join(item.parts))
        return True

    def acknowledge(self) -> None:
        if self.stands and self.in_flight:
            self.box.acked(self.in_flight.popleft())

    def receive(self) -> None:
        """The next of the device's own results comes back."""
        if self.stands and self.broker.queue:
            topic, payload = self.broker.queue.popleft()
            self._hand(topic, payload)

    def break_off(self) -> None:
        self.stands = False
        self.in_flight.clear()
        self.box.lost()

    def deliver(self, number: int) -> None:
        """A frame comes, for the first time or again; acknowledged when its result is out."""
        broker = self.broker
        if not self.stands or number not in broker.frames:
            return
        delivery = Delivery(number, 0, number, is_repeat=number in broker.was_sent)
        broker.was_sent.add(number)
        self._hand(FRAME, broker.frames[number], delivery, partial(broker.acknowledged, number))

    def _hand(
        self,
        topic: str,
        payload: bytes,
        delivery: Delivery | None = None,
        ack: Callable[[], None] = lambda: None,
    ) -> None:
        response = REPLY if delivery is not None else None
        correlation = payload if delivery is not None else None
        message = Message(topic, payload, False, Channel.RESULTS, response, correlation, ack, delivery)
        self.handlers[topic](message)


class Device:
    """One process after the other, over one journal. `frames` of the present one are entered and not answered."""

    def __init__(self, folder: Path) -> None:
        self.broker, self.folder = Broker(), folder
        self.starts = 0
        self.entered: dict[int, bytes] = {}
        self.start()

    def start(self) -> None:
        """A new process; whatever the one before had in memory is gone."""
        self.starts += 1
        self.next = SEQUENCES * self.starts
        self.open: dict[int, PendingFrame] = {}
        self.seen: set[int] = set()
        self.line = Line(self.broker)
        self.ledger = FrameLedger(
            self.line,
            NAMES,
            DEVICE,
            [CAM],
            token=f"p{self.starts}",
            border=Border(NAMES),
            directory=self.folder,
            offer=self.offered,
        )

    def connect(self) -> None:
        if not self.line.stands:
            self.line.connects += 1
            self.line.stands = True
            self.ledger.connected()
            for number in sorted(self.broker.frames.keys() - self.seen):
                self.come(number)

    def come(self, number: int) -> None:
        if self.line.stands:
            self.seen.add(number)
            self.line.deliver(number)

    def offered(self, event: FrameOffered) -> None:
        sequence = event.sequence
        if sequence is None:
            sequence = self.next
            self.next += 1
        pending_frame: PendingFrame = event.pending_frame
        contents = (
            pending_frame.payload if isinstance(pending_frame.payload, bytes) else pending_frame.payload.tobytes()
        )
        assert self.entered.setdefault(sequence, contents) == contents, "one sequence, two frames"
        if event.sequence is None or pending_frame.delivery is not None:
            self.ledger.entered(CAM, sequence, pending_frame)
        self.open[sequence] = pending_frame

    def own_frame(self, number: int) -> None:
        """One of the device's own source, which only the journal has."""
        self.offered(FrameOffered(CAM, PendingFrame(f"own {number}".encode(), "own", lambda: None, position=number)))

    def answer(self) -> None:
        """Publish the result of the oldest frame: two outputs, the answer to its publisher, and the result."""
        if not self.open:
            return
        sequence = min(self.open)
        pending_frame = self.open.pop(sequence)
        result = result_of(sequence)
        publications = [Publication(OUTPUT, b"%d.%d" % (sequence, part)) for part in range(2)]
        if pending_frame.response_topic:
            publications.append(Publication(pending_frame.response_topic, result, pending_frame.correlation))
        publications.append(Publication(RESULT, result))
        self.ledger.answer(CAM, sequence, pending_frame, lambda: publications)

    def finish(self) -> None:
        """All faults end."""
        self.line.breaks_at_fence = False
        self.connect()
        while self.open or self.line.box.queued_bytes or self.broker.queue:
            self.answer()
            while self.line.send():
                self.line.acknowledge()
            while self.line.in_flight:
                self.line.acknowledge()
            while self.broker.queue:
                self.line.receive()


def result_of(sequence: int) -> bytes:
    return to_bytes({"stream": CAM, "sequence": sequence, "ok": True})


def _sequence_of(payload: bytes) -> int:
    return int(json.loads(payload)["sequence"])


def check(device: Device) -> None:
    """One result for each frame, behind all of its parcels, and no result of a frame that never was."""
    results = Counter(_sequence_of(payload) for topic, payload in device.broker.taken if topic == RESULT)
    assert results == Counter(device.entered.keys()), "a result for each frame, and one only"
    assert len({*device.entered.values()}) == len(device.entered), "one frame under two sequences"
    assert not device.broker.frames, "the broker has the acknowledgement of each frame"
    for sequence in device.entered:
        at = device.broker.taken.index((RESULT, result_of(sequence)))
        outputs = {p for topic, p in device.broker.taken[:at] if topic == OUTPUT}
        assert {b"%d.%d" % (sequence, part) for part in range(2)} <= outputs
        is_own = device.entered[sequence].startswith(b"own")
        replies = [p for topic, p in device.broker.taken[:at] if topic == REPLY and _sequence_of(p) == sequence]
        assert is_own or replies or device.starts > 1  # a frame of the journal's has no publisher any more


STEPS: Mapping[str, int] = {
    "frame": 4,
    "own": 2,
    "answer": 8,
    "send": 12,
    "acknowledge": 10,
    "receive": 8,
    "break": 2,
    "connect": 3,
    "break at the fence": 1,
    "kill": 1,
    "forge": 1,
}


@settings(max_examples=examples(120), deadline=None, derandomize=True)
@given(seed=st.integers(0, 1 << 32), count=st.integers(20, 250))
def test_frames_have_one_result_wherever_lines_break_and_devices_die(seed: int, count: int) -> None:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        device = Device(Path(folder))
        numbers = iter(range(1, 1 << 16))
        for _ in range(count):
            (step,) = chance.choices([*STEPS], [*STEPS.values()])
            play(device, step, numbers, chance)
        device.finish()
        check(device)


def play(device: Device, step: str, numbers: Any, chance: random.Random) -> None:
    """One step."""
    line = device.line
    if step == "frame":
        number = next(numbers)
        device.broker.frames[number] = b"frame %d" % number
        device.come(number)
    elif step == "own" and line.connects:
        device.own_frame(next(numbers))
    elif step == "kill":
        device.start()
    elif step == "break at the fence":
        line.breaks_at_fence = not line.breaks_at_fence
    elif step == "forge" and line.stands and device.open and line.connects:
        line._hand(RESULT, result_of(chance.choice([*device.open])))  # of a stranger, before there is one
    else:
        steps: dict[str, Callable[[], object]] = {
            "answer": device.answer,
            "send": line.send,
            "acknowledge": line.acknowledge,
            "receive": line.receive,
            "break": line.break_off,
            "connect": device.connect,
        }
        steps.get(step, lambda: None)()
