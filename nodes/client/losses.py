"""Where frames without an answer are: under way, dropped by the broker, or with a device that is not there."""

from __future__ import annotations

from dataclasses import dataclass

from broker.errors import BrokerRefused, RequestTimeout
from broker.session import Session
from broker.topics import Namespace
from nodes.client.open_frames import OpenFrames
from nodes.protocol.asking import ask
from nodes.protocol.commands import PING_TIMEOUT_S, TAKEN
from nodes.protocol.messages import MessageError
from pipeline import ranges
from pipeline.plan import NodeId
from pipeline.ranges import Count, Word

ADVICE = "raise max_queued_messages, max_queued_bytes or memory_limit there (mosquitto.conf), or send them more slowly"


@dataclass(frozen=True, slots=True)
class Utilisation:
    """A device's answer: its process, this publisher's frames that came, those answered, and all that are open."""

    session: Word
    taken: Count
    answered: Count
    open: Count


class Losses:
    """Asks a stream's device what has come of a client's frames. Its methods wait, for PING_TIMEOUT_S at most."""

    def __init__(
        self, session: Session, names: Namespace, device: NodeId, reply_topic: str, frames: OpenFrames, timeout_s: float
    ) -> None:
        self._session, self._names, self._device, self._reply_topic = session, names, device, reply_topic
        self._frames, self._timeout_s = frames, timeout_s
        self._first: Utilisation | None = None
        self._before: Utilisation | None = None

    def begin(self) -> None:
        """Note what the device has had before the next frame; without it no loss can be told."""
        self._first, self._before = self._ask(), None
        self._frames.sent = 0

    @property
    def has_begun(self) -> bool:
        """True when the device's present process has answered to `begin`."""
        return self._first is not None

    def why_lost(self) -> str:
        """The reason why open frames will have no answer, empty while they may have. Ask it again and again."""
        if unsent := self._frames.unsent():
            return (
                f"the broker at {self._session.address} did not take {len(unsent)} of {self._frames.sent} frames, "
                f"{unsent[0]} among them; see the log above"
            )
        if why := self._why_dropped():
            return why
        if not self._frames.is_quiet(self._timeout_s):
            return ""
        return (
            f"{len(self._frames)} of {self._frames.sent} frames have no result after {self._timeout_s:.0f} s; "
            "is the device node running? see `trisect watch`"
        )

    def _why_dropped(self) -> str:
        now, before = self._ask(), self._before
        self._before = now
        if now is not None and self._first is not None and now.session != self._first.session:
            self._first = None  # a new process of it, which counts from 0; the broker delivers again what was open
        if now is None or now != before or self._first is None:
            return ""
        if now.open or self._session.queued_bytes or now.answered < now.taken:
            return ""  # the broker may have more for the device than it takes at once
        if not (unanswered := len(self._frames)):
            return ""
        if dropped := max(0, self._frames.sent - (now.taken - self._first.taken)):
            return (
                f"the broker at {self._session.address} dropped {dropped} of {self._frames.sent} frames before they "
                f"reached {self._device}; {ADVICE}"
            )
        return (
            f"the broker at {self._session.address} dropped the results of {unanswered} of "
            f"{self._frames.sent} frames on their way back from {self._device}; {ADVICE}"
        )

    def _ask(self) -> Utilisation | None:
        """What has come at the device; None when it does not answer, or is of an earlier version."""
        try:
            answer = ask(
                self._session,
                self._names,
                self._device,
                TAKEN,
                {},
                reply_topic=self._reply_topic,
                timeout_s=PING_TIMEOUT_S,
            )
            return ranges.read(Utilisation, answer, error=MessageError, what="an answer of a device")
        except (RequestTimeout, BrokerRefused, MessageError):
            return None
