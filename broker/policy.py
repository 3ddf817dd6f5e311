"""Policies of a session's channels, and the listener that connections report to. No behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from broker.errors import BrokerError
from broker.messages import Channel, Limits


class Listener(Protocol):
    """Callbacks of a connection, in its network thread: they hand over and never wait."""

    def ready(self, channel: Channel) -> None:
        """Connected, every subscription acknowledged, every kept message delivered."""

    def lost(self, channel: Channel, reason: str) -> None:
        """Was connected, is not any more, and tries again."""

    def failed(self, channel: Channel, error: BrokerError) -> None:
        """One attempt to connect failed, and the next will follow."""

    def missed(self, channel: Channel) -> None:
        """The broker dropped messages that were meant for this connection."""

    def taken(self, channel: Channel) -> None:
        """Another client has this client id; no attempt will follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Settings of one channel's MQTT session.

    Attributes:
        queue_bytes: unacknowledged bytes at which publishers wait.
        expiry_s: how long the broker keeps the session of a lost connection.
        fresh_start: the first connect of this process forgets what was meant for an earlier process.
        keep_on_stop: a clean stop leaves the session, and what queues up in it, to the next process.
        for_tensors: most of what passes is large, so that nothing of it may be copied.
        any_size: the broker may send packets of any size; of what is above its topic's limit, handlers get all but the
            payload, to answer it.
        manual_ack: messages are acknowledged by whoever finishes them.
        gives_way: leave the place to whoever connects with the same id; else take it back.
        receive_maximum: messages that the broker may send without an acknowledgement; given where the session outlives
            its connections, and what is sent again has to be recognised.

    """

    queue_bytes: int
    expiry_s: int
    fresh_start: bool = True
    keep_on_stop: bool = False
    for_tensors: bool = False
    any_size: bool = False
    manual_ack: bool = False
    gives_way: bool = True
    receive_maximum: int | None = None


def policies(limits: Limits, *, takes_frames: bool, is_new_name: bool) -> dict[Channel, Policy]:
    """The channels of a session, CONTROL first."""
    chosen = {
        # resumed after a blip, so that commands arrive and the will is withheld; not by another process, for which
        # a command to the earlier one was not meant
        Channel.CONTROL: Policy(
            queue_bytes=limits.control_queue_bytes,
            expiry_s=limits.control_expiry_s,
            # mosquitto 2.0 takes a session along through its restart only if its last CONNECT had no Clean Start
            fresh_start=not is_new_name,
            receive_maximum=limits.receive_maximum,
        ),
        # tensors of a lost connection are stale: the device submits the frame again
        Channel.BULK: Policy(queue_bytes=limits.bulk_queue_bytes, expiry_s=0, for_tensors=True),
    }
    if takes_frames:
        chosen[Channel.FRAMES] = Policy(
            queue_bytes=limits.frames_queue_bytes,
            expiry_s=limits.frames_expiry_s,
            fresh_start=False,
            keep_on_stop=True,
            for_tensors=True,
            any_size=True,
            manual_ack=True,
            receive_maximum=limits.frames_receive_maximum,
        )
        # what the broker had of an earlier process waits for this one: see broker.exactly_once
        chosen[Channel.RESULTS] = Policy(
            queue_bytes=limits.bulk_queue_bytes,
            expiry_s=limits.frames_expiry_s,
            fresh_start=False,
            keep_on_stop=True,
            receive_maximum=limits.receive_maximum,
        )
    return chosen
