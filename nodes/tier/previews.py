"""Previews of a device's frames, for streams whose configuration allows them: now and then, at little cost."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

import msgpack

from broker import topics
from broker.session import Session
from broker.topics import Namespace
from nodes.config.sections import StreamSection
from pipeline.errors import FrameError
from pipeline.frames.preview import preview
from pipeline.plan import Plan, StreamId
from pipeline.protocol_version import PROTOCOL_VERSION
from pipeline.wire import Array

INTERVAL_S: Final = 0.5
MOST_SHARE: Final = 0.05
"""Of the thread's time that previews may take."""


class Previews:
    """Publishes small pictures of streams with `preview: true`. For one thread, but for `planned`."""

    def __init__(self, session: Session, names: Namespace, streams: Mapping[StreamId, StreamSection]) -> None:
        self._session, self._names = session, names
        self._streams = {name: section for name, section in streams.items() if section.preview}
        self._next_at = dict.fromkeys(self._streams, 0.0)
        self._kept_at_home: set[StreamId] = set()

    def planned(self, plan: Plan) -> None:
        """Take note of a coming plan: where a person has asked that raw frames stay, no picture leaves. Any thread."""
        constraints = (plan.plan_request or {}).get("constraints") or {}
        if constraints.get("raw_stays_on"):
            self._kept_at_home.add(plan.stream)
        else:
            self._kept_at_home.discard(plan.stream)

    def consider(self, stream: StreamId, sequence: int, frame: bytes | Array) -> None:
        """Publish a preview of this frame, if it is time for one."""
        began = time.monotonic()
        if stream not in self._streams or stream in self._kept_at_home:
            return
        if began < self._next_at[stream] or not self._session.is_up:
            return
        try:
            made = preview(frame, max_pixels=self._streams[stream].max_pixels)
        except FrameError:
            return  # what cannot be decoded has an answer that says so
        if made is not None:
            message = {
                "protocol": PROTOCOL_VERSION,
                "stream": stream,
                "sequence": sequence,
                "width": made.width,
                "height": made.height,
                "jpeg": made.jpeg,
            }
            topic = self._names.topic(topics.PREVIEW, stream=stream)
            self._session.publish(topic, msgpack.packb(message), qos=topics.PREVIEW.qos)
        took_s = (time.monotonic() - began) * len(self._streams)
        self._next_at[stream] = began + max(INTERVAL_S, took_s / MOST_SHARE)
