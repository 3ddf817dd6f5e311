"""Commands to a tier node: to drain, and to say how many of a client's frames it has taken."""

from __future__ import annotations

from collections.abc import Sequence

from broker import topics
from broker.session import Message
from broker.topics import Namespace
from nodes.protocol.commands import DRAIN
from nodes.protocol.messages import LifeState, MessageError, parse_json
from nodes.session.presence import Presence
from nodes.tier.frame_ledger import FrameLedger
from pipeline.plan import NodeId, StreamId


class Commands:
    """Answers commands; `owned` are the streams whose device the node is."""

    def __init__(self, node: NodeId, owned: Sequence[StreamId], presence: Presence, frame_ledger: FrameLedger) -> None:
        self._node, self._owned, self._presence, self._frame_ledger = node, owned, presence, frame_ledger

    def subscribe(self, names: Namespace) -> None:
        """Begin to take commands."""
        session = self._presence.session
        session.subscribe([names.topic(topics.COMMAND, node=self._node, verb=DRAIN)], self._on_drain)
        session.subscribe([names.topic(topics.TAKEN, node=self._node)], self._on_taken_asked)

    def _on_drain(self, message: Message) -> None:
        """Take no part in new plans, or again; what is held goes on until the devices need it no more."""
        if self._presence.border.is_repeated(message):
            return
        if self._owned:
            owned = ", ".join(self._owned)
            error = (
                f"{self._node} is the device of {owned}, which cannot go elsewhere; stop it instead: it finishes first"
            )
            self._presence.reply(message, {"ok": False, "error": error})
            return
        try:
            undo = parse_json(message.payload).get("undo") is True
        except MessageError as wrong:
            self._presence.reply(message, {"ok": False, "error": str(wrong)})
            return
        self._presence.enter(LifeState.READY if undo else LifeState.DRAINING)
        self._presence.reply(message, {"ok": True})

    def _on_taken_asked(self, message: Message) -> None:
        """The number of frames that whoever asks has sent here, and how many of them are answered."""
        counts = self._frame_ledger.taken(self._presence.border.reply_to(message)[0])
        self._presence.reply(message, {"ok": True, "session": self._presence.token, **counts})
