"""Every topic, declared once: its name, message, encoding, QoS, retain flag and writer.

Knows how names are built and taken apart, and nothing of what the messages hold. Subscriptions, the ACL file and the
table in the docs derive from `ALL`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from broker.errors import TopicError

ROOT: Final = "trisect/v1"
_FIELD: Final = re.compile(r"\{(\w+)\}")
_ID: Final = re.compile(r"[a-z0-9-]+")
_NAME: Final = re.compile(r"[a-z0-9_.-]+")
_INTEGER: Final = re.compile(r"[0-9]+")

_ALLOWED: Final = {
    "pipeline": (_ID, "a-z, 0-9 and -"),
    "node": (_ID, "a-z, 0-9 and -"),
    "client": (_ID, "a-z, 0-9 and -"),
    "worker": (_ID, "a-z, 0-9 and -"),
    "epoch": (_INTEGER, "a whole number, 0 or more"),
    "index": (_INTEGER, "a whole number, 0 or more"),
}
_ALLOWED_ELSE: Final = (_NAME, "a-z, 0-9, -, _ and .")


@dataclass(frozen=True, slots=True)
class Topic:
    """One kind of topic. `template` is relative to `trisect/v1/<pipeline>/`; its fields stand in braces."""

    template: str
    message: str
    encoding: Literal["json", "msgpack", "image", "raw"]
    qos: int
    retain: bool
    writer: str

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields, in order."""
        return tuple(_FIELD.findall(self.template))


PLAN: Final = Topic("plan/{stream}", "Plan", "json", 1, True, "planner")
STATE: Final = Topic("node/{node}/state", "NodeState", "json", 1, True, "node")
CLAIM: Final = Topic("node/{node}/claim", "Claim", "raw", 1, True, "node")  # see broker.messages.Claim
INFO: Final = Topic("node/{node}/info", "NodeInfo", "json", 1, True, "node")
MODEL: Final = Topic("model/{digest}", "Manifest", "json", 1, True, "node")
PROFILE: Final = Topic("node/{node}/profile/{model}", "Profile", "json", 1, True, "node")
LINK: Final = Topic("node/{node}/link", "LinkReport", "json", 1, True, "node")
APPLIED: Final = Topic("node/{node}/applied", "Applied", "json", 1, True, "node")
TELEMETRY: Final = Topic("node/{node}/telemetry", "Telemetry", "json", 0, False, "node")
OUT: Final = Topic("node/{node}/out/{stream}/{epoch}/{tensor}", "TensorChunk", "msgpack", 1, False, "node")
TILE: Final = Topic("node/{node}/tile/{worker}/{stream}/{epoch}", "TensorChunk", "msgpack", 1, False, "node")
TILED: Final = Topic("node/{node}/tiled/{stream}/{epoch}", "TensorChunk", "msgpack", 1, False, "node")
NODE_RESULT: Final = Topic("node/{node}/result/{stream}", "NodeResult", "msgpack", 1, False, "node")
PROBE: Final = Topic("node/{node}/probe/{index}", "Probe", "raw", 1, True, "node")  # cleared when measured
FENCE: Final = Topic("node/{node}/fence", "Fence", "raw", 1, False, "node")  # see broker.once
FRAME: Final = Topic("frame/{stream}", "Frame", "image", 1, False, "camera or user")
RESULT: Final = Topic("result/{stream}", "Result", "json", 1, False, "device")
OUTPUT: Final = Topic("output/{stream}", "Output", "msgpack", 1, False, "device")
COMMAND: Final = Topic("cmd/{node}/{verb}", "Command", "json", 1, False, "command line")
REPLY: Final = Topic("reply/{client}", "Reply", "json", 1, False, "node")

ALL: Final[tuple[Topic, ...]] = (
    PLAN,
    STATE,
    CLAIM,
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
    RESULT,
    OUTPUT,
    COMMAND,
    REPLY,
)


def valid_id(text: str) -> bool:
    """Whether `text` may name a pipeline, a node or a client: `[a-z0-9-]+`."""
    return _ID.fullmatch(text) is not None


def _checked(field: str, value: str | int) -> str:
    pattern, allowed = _ALLOWED.get(field, _ALLOWED_ELSE)
    # bool is an int to Python, and str(True) would pass for a name
    text = "" if isinstance(value, bool) else str(value)
    if pattern.fullmatch(text) is None:
        raise TopicError(f"{field} {value!r} cannot stand in a topic; allowed: {allowed}")
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

    def parse(self, topic: str) -> tuple[Topic, dict[str, str]] | None:
        """The kind of a topic and its fields, or None when it is none of this pipeline's topics."""
        for kind, pattern in self._patterns:
            if found := pattern.fullmatch(topic):
                return kind, found.groupdict()
        return None
