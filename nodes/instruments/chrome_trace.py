"""`trisect trace`: frames of a running stream as JSON that Perfetto (ui.perfetto.dev) and chrome://tracing show.

Chrome's Trace Event Format: a process for each node, on it a track for each kind of work; what overlaps with the next
frame's (waiting, ways, whole frames) is asynchronous, by the frame's sequence.
"""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from broker import topics
from broker.session import Message
from broker.topics import Namespace
from nodes.config.sections import Config
from nodes.instruments.spans import FrameSpans, Span, frame_spans
from nodes.protocol.border import Border
from nodes.protocol.messages import parse_json
from nodes.session.presence import guest_session
from pipeline.errors import ConfigError, TrisectError
from pipeline.plan import StreamId

CONNECT_WAIT_S: Final = 10.0
_TRACKS: Final = {"compute": 1, "decode": 2, "encode": 3}


class NoFrames(TrisectError):
    """No frame was answered in time."""


def trace(config: Config, stream: StreamId, *, frames: int, timeout_s: float) -> list[FrameSpans]:
    """Listen to a stream's results until there are so many, or time is over. Raises NoFrames when there was none."""
    names = Namespace(config.pipeline)
    border, arrived, found = Border(names), queue.SimpleQueue[Message](), list[FrameSpans]()
    with guest_session(config, "trace") as session:
        session.start(CONNECT_WAIT_S)
        session.subscribe([names.topic(topics.RESULT, stream=stream)], arrived.put)
        give_up = time.monotonic() + timeout_s
        while len(found) < frames and (left_s := give_up - time.monotonic()) > 0:
            try:
                message = arrived.get(timeout=left_s)
                found.append(frame_spans(parse_json(message.payload)))
            except queue.Empty:
                break
            except TrisectError as error:
                border.refuse(message.topic, str(error))
    if not found:
        raise NoFrames(
            f"no frame of stream {stream} was answered within {timeout_s:.0f} s; send some (`trisect publish`), "
            "or see `trisect watch` for what is missing"
        )
    return found


def write_json(frames: Iterable[FrameSpans], path: Path) -> None:
    """Write the file. Raises ConfigError when it cannot be written."""
    try:
        path.write_text(json.dumps(to_json(frames)), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", file=path) from error


def to_json(frames: Iterable[FrameSpans]) -> dict[str, Any]:
    """The trace as plain JSON values; moments are microseconds since 1970."""
    processes: dict[str, int] = {}
    events = [event for frame in frames for span in frame.spans for event in _events(frame, span, processes)]
    named = [_metadata("process_name", pid, 0, node or "frames without a way") for node, pid in processes.items()]
    named += [_metadata("thread_name", pid, tid, name) for pid in processes.values() for name, tid in _TRACKS.items()]
    return {"displayTimeUnit": "ms", "traceEvents": [*named, *events]}


def _events(frame: FrameSpans, span: Span, processes: dict[str, int]) -> Iterator[dict[str, Any]]:
    pid = processes.setdefault(span.node, len(processes) + 1)
    start, end = span.start_ts * 1e6, span.end_ts * 1e6
    about = {"stream": frame.stream, "sequence": frame.sequence, **frame.attributes}
    if span.kind == "stage":
        tid = _TRACKS[span.name]
        yield {"name": f"{span.name} {frame.sequence}", "cat": "stage", "ph": "X", "ts": start, "dur": end - start} | {
            "pid": pid,
            "tid": tid,
            "args": about,
        }
        return
    name = f"frame {frame.sequence}" if span.kind == "frame" else span.name
    shared = {"name": name, "cat": span.kind, "id": f"{frame.stream}.{frame.sequence}", "pid": pid, "tid": 0}
    yield {**shared, "ph": "b", "ts": start, "args": about | ({"error": frame.error} if frame.error else {})}
    yield {**shared, "ph": "e", "ts": end}


def _metadata(name: str, pid: int, tid: int, text: str) -> dict[str, Any]:
    return {"name": name, "ph": "M", "pid": pid, "tid": tid, "args": {"name": text}}
