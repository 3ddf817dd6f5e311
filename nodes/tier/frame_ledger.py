"""A device's frames from their arrival until the broker has their one result, over any number of its processes.

A frame enters with a record in the stream's journal and leaves it when the broker has its result. A process that is
killed in between leaves the record; the next one first asks the broker which results it took (`broker.exactly_once`),
and then takes up the rest under the sequences that they had: those of its own source from the journal, those that came
over MQTT when the broker delivers them again.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from broker import topics
from broker.exactly_once import ExactlyOncePublisher, Publication
from broker.session import Channel, Message, Session
from broker.topics import Namespace
from nodes.protocol.border import Border
from nodes.tier.journal import Journal
from nodes.tier.machine.events import FrameOffered
from nodes.tier.pending_frame import PendingFrame
from pipeline.plan import NodeId, StreamId

_log = logging.getLogger(__name__)


MOST_PUBLISHERS = 1_024
"""Whose frames are counted, the newest of them."""


class _Key(NamedTuple):
    stream: StreamId
    sequence: int


class FrameLedger:
    """The ledger of one device's streams; a context to be entered before its session starts. `offer` takes frames.

    `token` is this process's; `directory` holds the journals. A frame's answer goes to its publisher as well, where
    answers may go.
    """

    def __init__(
        self,
        session: Session,
        names: Namespace,
        node: NodeId,
        streams: Iterable[StreamId],
        *,
        token: str,
        border: Border,
        directory: Path,
        offer: Callable[[FrameOffered], None],
    ) -> None:
        self._offer, self._border = offer, border
        self._journals = {stream: Journal(directory / f"{stream}.journal", token) for stream in streams}
        self._pending_frames: dict[Hashable, PendingFrame] = {}
        self._held: list[tuple[StreamId, Message]] | None = []
        self._publishers: OrderedDict[str, _Counts] = OrderedDict()
        self._lock = threading.Lock()
        self._session = session
        self._open_journals = ExitStack()
        fence = names.topic(topics.FENCE, node=node)
        self._results = ExactlyOncePublisher(session, fence, delivered=self._delivered, caught_up=self._caught_up)
        if self._journals:
            results = [names.topic(topics.RESULT, stream=stream) for stream in self._journals]
            self._results.recognise(results, self._key_of)
        for stream in self._journals:
            frames = names.topic(topics.FRAME, stream=stream)
            session.subscribe([frames], partial(self._on_frame, stream), channel=Channel.FRAMES)

    def __enter__(self) -> FrameLedger:
        for journal in self._journals.values():
            self._open_journals.enter_context(journal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open_journals.close()

    def connected(self) -> None:
        """The session is up (again). Waits for the broker; not in a network thread."""
        if self._journals:
            self._results.connected()

    def position(self, stream: StreamId) -> int:
        """The position from which the stream's own source goes on."""
        return self._journals[stream].position

    def source_ended(self, stream: StreamId) -> None:
        """The stream's source gave all that it has: the next process begins again."""
        self._journals[stream].source_ended()

    def entered(self, stream: StreamId, sequence: int, pending_frame: PendingFrame) -> bool:
        """Record a frame before anything is computed of it; False where the disk has no room for the record."""
        journal = self._journals[stream]
        if pending_frame.delivery is not None:
            return journal.delivered(sequence, pending_frame.delivery)
        if pending_frame.position is not None:
            return journal.entered(sequence, pending_frame.source, pending_frame.position, pending_frame.payload)
        return True  # an earlier process's, whose record stands

    def answer(
        self, stream: StreamId, sequence: int, pending_frame: PendingFrame, make: Callable[[], Sequence[Publication]]
    ) -> None:
        """Publish a frame's result, once; the pending frame is done when the broker has it. Raises PayloadTooLarge.

        The last of what `make` returns, perhaps more than once, is on the stream's result topic.
        """
        key = _Key(stream, sequence)
        with self._lock:
            self._pending_frames[key] = pending_frame
        self._results.publish(key, make)

    def taken(self, response_topic: str | None) -> dict[str, int]:
        """Frames that have come from whoever has its answers there, those of them that are answered, and all open ones.

        As long as frames are open, the broker may hold more that are meant for this device.
        """
        with self._lock:
            counts = self._publishers.get(response_topic or "", _Counts())
            return {**asdict(counts), "open": self._session.open_total(Channel.FRAMES) if self._journals else 0}

    def _delivered(self, key: Hashable) -> None:
        assert isinstance(key, _Key)
        stream, sequence = key
        journal = self._journals.get(stream)
        if journal is not None:
            journal.answered(sequence)
        with self._lock:
            pending_frame = self._pending_frames.pop(key, None)
            counts = self._publishers.get(pending_frame.response_topic or "") if pending_frame is not None else None
            if counts is not None:
                counts.answered += 1
        if pending_frame is not None:
            pending_frame.done()  # not before its record: what is not acknowledged is delivered again

    def _caught_up(self) -> None:
        for stream, journal in self._journals.items():
            unfinished = journal.unfinished()
            if unfinished:
                _log.info("stream %s: %d frames of the process before", stream, len(unfinished))
            for frame in unfinished:
                pending_frame = PendingFrame(frame.payload, frame.source, lambda: None)
                self._offer(FrameOffered(stream, pending_frame, sequence=frame.sequence))
        with self._lock:
            held, self._held = self._held or [], None
            for stream, message in held:
                self._take(stream, message)

    def _on_frame(self, stream: StreamId, message: Message) -> None:
        with self._lock:
            if self._held is not None:
                self._held.append((stream, message))
            else:
                self._take(stream, message)

    def _take(self, stream: StreamId, message: Message) -> None:
        earlier = self._journals[stream].earlier(message.delivery) if message.delivery else None
        if earlier is not None and earlier.is_answered:
            message.ack()
            return
        response_topic, correlation = self._border.reply_to(message)
        if response_topic is not None:
            self._note_publisher(response_topic)
        pending_frame = PendingFrame(
            payload=message.payload,
            source="mqtt",
            done=message.ack,
            correlation=correlation,
            response_topic=response_topic,
            delivery=message.delivery,
            traceparent=message.traceparent,
            nbytes_refused=message.nbytes_refused,
        )
        sequence = earlier.sequence if earlier is not None else None
        self._offer(FrameOffered(stream, pending_frame, sequence=sequence, publisher=response_topic or ""))

    def _key_of(self, message: Message) -> _Key | None:
        result = self._border.read(message)
        return _Key(StreamId(result["stream"]), result["sequence"]) if result is not None else None

    def _note_publisher(self, response_topic: str) -> None:
        counts = self._publishers.setdefault(response_topic, _Counts())
        counts.taken += 1
        self._publishers.move_to_end(response_topic)
        if len(self._publishers) > MOST_PUBLISHERS:
            self._publishers.popitem(last=False)


@dataclass(slots=True)
class _Counts:
    """Frames of one publisher."""

    taken: int = 0
    answered: int = 0
