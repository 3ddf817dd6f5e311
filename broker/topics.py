"""Every topic, declared once: its name, message, encoding, QoS, retain flag, writers and readers.

Knows how names are built and taken apart, and nothing of what the messages hold. Subscriptions, the access list
(`broker.acl`) and the table in the docs derive from `ALL`. A message above its topic's `max_bytes` is refused where it
comes in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, TypeAlias, cast

from broker.errors import TopicError

ROOT: Final = "trisect/v1"
KIB: Final = 1 << 10
MIB: Final = 1 << 20
CHUNK_LIMIT: Final = 8 * MIB + 64 * KIB
"""The largest chunk that a configuration may ask for, with its header."""
MOST_REMEMBERED: Final = 4_096
MOST_CHARACTERS: Final = 512
"""Of topics that are remembered with what they are, and of each of them: MQTT allows 65,535."""
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


Who: TypeAlias = Literal["own", "holder", "device", "node", "planner", "operator", "camera", "viewer"]
"""Who writes or reads a topic: members of a role; "own": whose id its node or client is; "device": its stream's;
"holder": the node or operator whose id its node is.
"""


@dataclass(frozen=True, slots=True)
class Topic:
    """One kind of topic. `template` is relative to `trisect/v1/<pipeline>/`; its fields are in braces."""

    template: str
    message: str
    encoding: Literal["json", "msgpack", "image", "raw"]
    qos: int
    retain: bool
    writers: tuple[Who, ...]
    readers: tuple[Who, ...]
    max_bytes: int

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields, in order."""
        return tuple(_FIELD.findall(self.template))


def _topic(
    template: str,
    message: str,
    encoding: Literal["json", "msgpack", "image", "raw"],
    *,
    by: str,
    to: str,
    most: int,
    qos: int = 1,
    retain: bool = False,
) -> Topic:
    writers, readers = (cast("tuple[Who, ...]", tuple(names.split())) for names in (by, to))
    return Topic(template, message, encoding, qos, retain, writers, readers, most)


_ALL: Final = "node planner operator viewer"
_PEOPLE: Final = "own planner operator viewer"

PLAN: Final = _topic("plan/{stream}", "Plan", "json", by="planner", to=_ALL, most=4 * MIB, retain=True)
STATE: Final = _topic("node/{node}/state", "NodeState", "json", by="own", to=_ALL, most=16 * KIB, retain=True)
OWNER: Final = _topic(  # see broker.messages.OwnershipToken
    "node/{node}/owner", "OwnershipToken", "raw", by="own", to="own", most=KIB, retain=True
)
INFO: Final = _topic(  # nodes read where others listen
    "node/{node}/info", "NodeInfo", "json", by="own", to=_ALL, most=4 * MIB, retain=True
)
MODEL: Final = _topic(  # a digest names one manifest, and another one under it is refused
    "model/{digest}", "Manifest", "json", by="node", to=_ALL, most=32 * MIB, retain=True
)
PROFILE: Final = _topic(
    "node/{node}/profile/{model}", "Profile", "json", by="own", to=_PEOPLE, most=4 * MIB, retain=True
)
PACKAGE: Final = _topic(  # its digest is of its contents
    "package/{digest}", "PublishedPackage", "json", by="operator", to=_ALL, most=16 * MIB, retain=True
)
VERSION: Final = _topic("version/{model}", "Version", "json", by="operator", to=_ALL, most=16 * KIB, retain=True)
HOLDINGS: Final = _topic("node/{node}/packages", "Holdings", "json", by="holder", to=_ALL, most=MIB, retain=True)
FETCH: Final = _topic("fetch/{node}", "Fetch", "json", by="node", to="holder", most=64 * KIB)
PIECE: Final = _topic("node/{node}/piece/{digest}/{index}", "Piece", "raw", by="holder", to="node", most=MIB + 64 * KIB)
LINK: Final = _topic("node/{node}/link", "LinkReport", "json", by="own", to=_PEOPLE, most=16 * KIB, retain=True)
APPLIED: Final = _topic("node/{node}/applied", "Applied", "json", by="own", to=_ALL, most=MIB, retain=True)
TELEMETRY: Final = _topic("node/{node}/telemetry", "Telemetry", "json", by="own", to=_PEOPLE, most=MIB, qos=0)
OUT: Final = _topic(
    "node/{node}/out/{stream}/{epoch}/{tensor}", "TensorChunk", "msgpack", by="own", to="node", most=CHUNK_LIMIT
)
TILE: Final = _topic(
    "node/{node}/tile/{worker}/{stream}/{epoch}", "TensorChunk", "msgpack", by="own", to="node", most=CHUNK_LIMIT
)
TILED: Final = _topic(
    "node/{node}/tiled/{stream}/{epoch}", "TensorChunk", "msgpack", by="own", to="node", most=CHUNK_LIMIT
)
NODE_RESULT: Final = _topic(
    "node/{node}/result/{stream}", "NodeResult", "msgpack", by="own", to="device", most=CHUNK_LIMIT
)
PROBE: Final = _topic(  # cleared when measured
    "node/{node}/probe/{index}", "Probe", "raw", by="own", to="own", most=CHUNK_LIMIT, retain=True
)
FENCE: Final = _topic("node/{node}/fence", "Fence", "raw", by="own", to="own", most=KIB)  # see broker.exactly_once
FRAME: Final = _topic("frame/{stream}", "Frame", "image", by="camera device", to="device", most=64 * MIB)
STREAM_OWNER: Final = _topic("owner/{stream}", "Owner", "json", by="device", to=_ALL, most=KIB, retain=True)
RESULT: Final = _topic("result/{stream}", "Result", "json", by="device", to="device operator viewer", most=MIB)
OUTPUT: Final = _topic("output/{stream}", "Output", "msgpack", by="device", to="operator viewer", most=CHUNK_LIMIT)
CLASS_MAP: Final = _topic(  # of a model that segments: grey, each pixel its class
    "output/{stream}/map", "ClassMap", "image", by="device", to="operator viewer", most=16 * MIB
)
PREVIEW: Final = _topic(  # small pictures of frames, where the stream allows it
    "preview/{stream}", "Preview", "msgpack", by="device", to="operator viewer", most=256 * KIB, qos=0
)
PING: Final = _topic("ping/{node}", "Ping", "json", by="node planner operator", to="own", most=64 * KIB)
TAKEN: Final = _topic("taken/{node}", "Taken", "json", by="camera operator", to="own", most=64 * KIB)
COMMAND: Final = _topic("cmd/{node}/{verb}", "Command", "json", by="operator", to="own", most=64 * KIB)
REPLY: Final = _topic("reply/{client}", "Reply", "json", by="node planner", to="own", most=8 * MIB)

ALL: Final[tuple[Topic, ...]] = (
    PLAN,
    STATE,
    OWNER,
    INFO,
    MODEL,
    PACKAGE,
    VERSION,
    HOLDINGS,
    FETCH,
    PIECE,
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
    CLASS_MAP,
    PREVIEW,
    PING,
    TAKEN,
    COMMAND,
    REPLY,
)

LARGEST_PACKET: Final = max(topic.max_bytes for topic in ALL) + 256 * KIB
"""With topic names, response topics and correlation data, of which each has 64 KiB at most."""


def discovery_object(pipeline: str, node: str) -> str:
    """The id under which a node makes itself known to Home Assistant, unique on a broker of several pipelines."""
    return f"trisect-{pipeline}-{node}"


def discovery_filter(pipeline: str, node: str) -> str:
    """Where a node's discovery message stands, whatever prefix Home Assistant is configured with."""
    return f"+/device/{discovery_object(pipeline, node)}/config"


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
        # asked several times for each message; whoever invents topics has each of them looked at
        self._found = lru_cache(MOST_REMEMBERED)(self._find)

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
        found = self._found(topic) if len(topic) <= MOST_CHARACTERS else self._find(topic)
        return None if found is None else (found[0], dict(found[1]))

    def _find(self, topic: str) -> tuple[Topic, dict[str, str]] | None:
        for kind, pattern in self._patterns:
            if found := pattern.fullmatch(topic):
                return kind, found.groupdict()
        return None
