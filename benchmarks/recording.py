"""Records what a planner learns from while a benchmark runs: cost models can be compared on the same telemetry.

JSON lines, compressed: `at` (seconds of a monotonic clock), `kind` and fields of the topic, `payload`. Of telemetry
only the numbers that the planner reads, of results the epoch and the seconds of each frame.
"""

from __future__ import annotations

import json
import lzma
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from broker import topics
from broker.session import Channel, Message
from broker.topics import Namespace
from nodes.config.sections import Config
from nodes.protocol.messages import parse_json
from nodes.session.presence import guest_session

KINDS = {
    "state": topics.STATE,
    "info": topics.INFO,
    "link": topics.LINK,
    "profile": topics.PROFILE,
    "model": topics.MODEL,
    "applied": topics.APPLIED,
    "plan": topics.PLAN,
    "telemetry": topics.TELEMETRY,
    "result": topics.RESULT,
}
_READ = re.compile(
    r"(segment|tile|gather|leg|tensor|link)\..*|processor\.probe_(seconds|agrees)|stream\..*\.frame_overhead_seconds_p50"
)
CONNECT_S = 10.0


@contextmanager
def recording(config: Config, path: Path | None) -> Iterator[None]:
    """Record the pipeline's messages to `path` until the context ends; nothing without a path."""
    if path is None:
        yield
        return
    names = Namespace(config.pipeline)
    with lzma.open(path, "wt", encoding="utf-8") as file, guest_session(config, "record") as session:

        def keep(message: Message) -> None:
            parsed = names.parse(message.topic)
            if parsed is None or not message.payload:
                return
            name = next(name for name, kind in KINDS.items() if kind is parsed[0])
            line = {"at": round(time.monotonic(), 3), "kind": name, **parsed[1]}
            file.write(json.dumps(line | {"payload": _kept(name, parse_json(message.payload))}) + "\n")

        session.start(CONNECT_S)
        for kind in KINDS.values():
            session.subscribe([names.filter(kind)], keep, channel=Channel.CONTROL)
        yield


def _kept(name: str, payload: dict[str, Any]) -> dict[str, Any]:
    if name == "telemetry":
        return {key: value for key, value in payload.items() if _READ.fullmatch(key)}
    if name == "result":
        return {key: payload[key] for key in ("epoch", "sequence", "ok", "seconds")}
    return payload
