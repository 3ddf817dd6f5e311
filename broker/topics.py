"""Every topic, declared once: its name, message, encoding, QoS, retain flag and writer.

Knows how names are built and taken apart, and nothing of what the messages hold. Subscriptions, the ACL file and the
table in the docs derive from `ALL`. A message above its topic's `max_bytes` is refused where it comes in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from broker.errors import TopicError

ROOT: Final = "trisect/v1"
KIB: Final = 1 << 10
MIB: Final = 1 << 20
CHUNK_LIMIT: Final = 8 * MIB + 64 * KIB
"""The largest chunk that a configuration may ask for, with its header."""
_FIELD: Final = re.compile(r"\{(\w+)\}")
_ID: Final = re.compile(r"[a-z0-9-]{1,128}")
_NAME: Final = re.compile(r"[a-z0-9_.-]{1,128}")
_INTEGER: Final = re.compile(r"[0-9]{1,18}")

_ALLOWED: Final = {
    "pipeline": (_ID, "1 to 128 of a-z, 0-9 and -"),
    "node": (_ID, "1 to 128 of a-z, 0-9 and -"),
    "client": (_ID, "1 to 128 of a-z, 0-9 and -"),
    "worker": (_ID, "1 to 128 of a-z, 0-9 and -"),
    "epoch": (_INTEGER, "a whole number, 0 or more, of at most 18 digits"),
    "index": (_INTEGER, "a whole number, 0 or more, of at most 18 digits"),
}
_ALLOWED_ELSE: Final = (_NAME, "1 to 128 of a-z, 0-9, -, _ and .")


@dataclass(frozen=True, slots=True)
class Topic:
    """One kind of topic. `template` is relative to `trisect/v1/<pipeline>/`; its fields are in braces."""

    template: str
    message: str
    encoding: Literal["json", "msgpack", "image", "raw"]
    qos: int
    retain: bool
    writer: str
    max_bytes: int

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields, in order."""
        return tuple(_FIELD.findall(self.template))


PLAN: Final = Topic("plan/{stream}", "Plan", "json", 1, True, "planner", 4 * MIB)
STATE: Final = Topic("node/{node}/state", "NodeState", "json", 1, True, "node", 16 * KIB)
OWNER: Final = Topic(
    "node/{node}/owner", "OwnershipToken", "raw", 1, True, "node", KIB
)  # see broker.messages.OwnershipToken
INFO: Final = Topic("node/{node}/info", "NodeInfo", "json", 1, True, "node", 4 * MIB)
MODEL: Final = Topic("model/{digest}", "Manifest", "json", 1, True, "node", 32 * MIB)
PROFILE: Final = Topic("node/{node}/profile/{model}", "Profile", "json", 1, True, "node", 4 * MIB)
LINK: Final = Topic("node/{node}/link", "LinkReport", "json", 1, True, "node", 16 * KIB)
APPLIED: Final = Topic("node/{node}/applied", "Applied", "json", 1, True, "node", MIB)
TELEMETRY: Final = Topic("node/{node}/telemetry", "Telemetry", "json", 0, False, "node", MIB)
OUT: Final = Topic("node/{node}/out/{stream}/{epoch}/{tensor}", "TensorChunk", "msgpack", 1, False, "node", CHUNK_LIMIT)
TILE: Final = Topic(
    "node/{node}/tile/{worker}/{stream}/{epoch}", "TensorChunk", "msgpack", 1, False, "node", CHUNK_LIMIT
)
TILED: Final = Topic("node/{node}/tiled/{stream}/{epoch}", "TensorChunk", "msgpack", 1, False, "node", CHUNK_LIMIT)
NODE_RESULT: Final = Topic("node/{node}/result/{stream}", "NodeResult", "msgpack", 1, False, "node", CHUNK_LIMIT)
PROBE: Final = Topic("node/{node}/probe/{index}", "Probe", "raw", 1, True, "node", CHUNK_LIMIT)  # cleared when measured
FENCE: Final = Topic("node/{node}/fence", "Fence", "raw", 1, False, "node", KIB)  # see broker.exactly_once
FRAME: Final = Topic("frame/{stream}", "Frame", "image", 1, False, "camera or user", 64 * MIB)
STREAM_OWNER: Final = Topic("owner/{stream}", "Owner", "json", 1, True, "device", KIB)
RESULT: Final = Topic("result/{stream}", "Result", "json", 1, False, "device", MIB)
OUTPUT: Final = Topic("output/{stream}", "Output", "msgpack", 1, False, "device", CHUNK_LIMIT)
COMMAND: Final = Topic("cmd/{node}/{verb}", "Command", "json", 1, False, "command line", 64 * KIB)
REPLY: Final = Topic("reply/{client}", "Reply", "json", 1, False, "node", 8 * MIB)

ALL: Final[tuple[Topic, ...]] = (
    PLAN,
    STATE,
    OWNER,
    INFO,
    MODEL,
    PROFILE,
    LINK,
    APPLIED,
    TELEMETRY,
    OUT,
    TILE,
    TILED,
    NODE_RESULT,
    PROBE,
    FENCE,
    FRAME,
    STREAM_OWNER,
    RESULT,
    OUTPUT,
    COMMAND,
    REPLY,
)

LARGEST_PACKET: Final = max(topic.max_bytes for topic in ALL) + 256 * KIB
"""With topic names, response topics and correlation data, of which each has 64 KiB at most."""


def valid_id(text: str) -> bool:
    """True for text that may name a pipeline, a node or a client: 1 to 128 of `[a-z0-9-]`."""
    return _ID.fullmatch(text) is not None


def _checked(field: str, value: str | int) -> str:
    pattern, allowed = _ALLOWED.get(field, _ALLOWED_ELSE)
    # bool is an int to Python, and str(True) would pass for a name
    text = "" if isinstance(value, bool) else str(value)
    if pattern.fullmatch(text) is None:
        raise TopicError(f"{field} {value!r} cannot be in a topic; allowed: {allowed}")
    return text


def _regex(topic: Topic, prefix: str) -> re.Pattern[str]:
    parts = _FIELD.split(topic.template)  # literal, field, literal, field, ...
    text = re.escape(prefix)
    for index, part in enumerate(parts):
        text += f"(?P<{part}>{_ALLOWED.get(part, _ALLOWED_ELSE)[0].pattern})" if index % 2 else re.escape(part)
    return re.compile(text)


class Namespace:
    """The topics of one pipeline: builds names, builds filters, and takes names apart."""

    def __init__(self, pipeline: str) -> None:
        self.pipeline = _checked("pipeline", pipeline)
        self.prefix = f"{ROOT}/{pipeline}/"
        self._patterns = tuple((topic, _regex(topic, self.prefix)) for topic in ALL)

    def topic(self, kind: Topic, **fields: str | int) -> str:
        """The full name to publish on. Raises TopicError for a missing, unknown or unfit field."""
        missing = [field for field in kind.fields if field not in fields]
        if missing:
            raise TopicError(f"{kind.template} needs {', '.join(missing)}")
        return self._filled(kind, fields)

    def filter(self, kind: Topic, **fields: str | int) -> str:
        """The filter to subscribe to; each field left out matches every value."""
        return self._filled(kind, fields)

    def _filled(self, kind: Topic, fields: dict[str, str | int]) -> str:
        unknown = [field for field in fields if field not in kind.fields]
        if unknown:
            raise TopicError(f"{kind.template} has no field {', '.join(unknown)}")
        texts = {field: _checked(field, value) for field, value in fields.items()}
        return self.prefix + _FIELD.sub(lambda found: texts.get(found[1], "+"), kind.template)

    def max_bytes(self, topic: str) -> int | None:
        """The most bytes that a payload on `topic` may have; None for what is none of this pipeline's topics."""
        parsed = self.parse(topic)
        return parsed[0].max_bytes if parsed else None

    def is_reply(self, topic: str) -> bool:
        """True for a topic that answers may go to: `reply/<client>` of this pipeline, and no filter.

        Whoever asks chooses where the answer goes. Anywhere else, it would be a command or a plan in another's name.
        """
        parsed = self.parse(topic)
        return parsed is not None and parsed[0] is REPLY

    def parse(self, topic: str) -> tuple[Topic, dict[str, str]] | None:
        """The kind of a topic and its fields, or None when it is none of this pipeline's topics."""
        for kind, pattern in self._patterns:
            if found := pattern.fullmatch(topic):
                return kind, found.groupdict()
        return None
