"""Who may write and read which topics, derived from their declarations: one decision, and mosquitto's file of it.

A broker enforces this by the user name, which is the common name of the client's certificate. Knows no certificate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from broker.topics import ALL, Namespace, Topic, Who, discovery_filter

Role: TypeAlias = Literal["node", "planner", "operator", "camera", "viewer"]
ROLES: Final[tuple[Role, ...]] = ("node", "planner", "operator", "camera", "viewer")
Access: TypeAlias = Literal["write", "read"]

STATISTICS: Final = "$SYS/broker/publish/messages/dropped"
"""Where mosquitto counts what it threw away, which `trisect watch` shows."""


@dataclass(frozen=True, slots=True)
class Member:
    """One that may enter a pipeline.

    Attributes:
        name: a node's id, the planner's, or a name for a person or a camera.
        streams: of a node, those that it is the device of; of a camera, those that it feeds, or None for all.
    """

    name: str
    roles: tuple[Role, ...]
    streams: tuple[str, ...] | None = None


def user_of(pipeline: str, name: str) -> str:
    """The user name of a member, unique on a broker of several pipelines."""
    return f"{pipeline}.{name}"


def may(member: Member, access: Access, topic: str, names: Namespace) -> bool:
    """Whether the member has access to a topic."""
    if topic == STATISTICS:
        return access == "read" and _sees_statistics(member)
    prefix, _, below = topic.partition("/")
    if prefix and _is_discovered(member) and f"+/{below}" == discovery_filter(names.pipeline, member.name):
        return True
    parsed = names.parse(topic)
    if parsed is None:
        return False
    kind, fields = parsed
    return any(wanted.items() <= fields.items() for wanted in _grants(member, access, kind))


BRIDGE: Final = "bridge_"
"""The name of another broker; no member can have it, since it is no id."""


def bridged(names: Namespace) -> tuple[str, ...]:
    """Filters of all that crosses a bridge between two brokers: not what a node writes for itself alone."""
    return tuple(names.filter(kind) for kind in ALL if not kind.writers == kind.readers == ("own",))


def render(members: Iterable[Member], names: Namespace, *, bridge: bool = False) -> str:
    """An ACL file for mosquitto. Nobody else has any access, and no member to anything else.

    With a `bridge`, another broker may come, which has held its own clients against the same list.
    """
    lines = ["# Made by trisect from broker/topics.py; changed with each enrolment."]
    for member in members:
        lines += ["", f"# {', '.join(member.roles)}", f"user {user_of(names.pipeline, member.name)}"]
        lines += [f"topic {access} {filter_}" for access, filter_ in filters(member, names)]
    if bridge:
        lines += ["", "# the other broker", f"user {user_of(names.pipeline, BRIDGE)}"]
        lines += [f"topic readwrite {filter_}" for filter_ in bridged(names)]
    return "\n".join(lines) + "\n"


def filters(member: Member, names: Namespace) -> Iterator[tuple[Access, str]]:
    """All that the member may write and read, as filters."""
    for kind in ALL:
        for access in _ACCESSES:
            for wanted in _grants(member, access, kind):
                yield access, names.filter(kind, **wanted)
    if _is_discovered(member):
        for access in _ACCESSES:
            yield access, discovery_filter(names.pipeline, member.name)
    if _sees_statistics(member):
        yield "read", STATISTICS


_ACCESSES: Final[tuple[Access, ...]] = ("write", "read")


def _sees_statistics(member: Member) -> bool:
    return bool({"operator", "viewer"} & set(member.roles))


def _is_discovered(member: Member) -> bool:
    return "node" in member.roles


def _grants(member: Member, access: Access, kind: Topic) -> Iterator[Mapping[str, str]]:
    """Values of fields under which the member has access to topics of this kind; an empty mapping: to all of them."""
    given: list[Mapping[str, str]] = []
    for who in kind.writers if access == "write" else kind.readers:
        for wanted in _as(who, member, kind):
            if wanted not in given:
                given.append(wanted)
                yield wanted


def _as(who: Who, member: Member, kind: Topic) -> Iterator[Mapping[str, str]]:
    if who == "own":
        if "client" in kind.fields:
            yield {"client": member.name}
        elif {"node", "planner"} & set(member.roles):
            yield {"node": member.name}
    elif who == "holder":
        if {"node", "operator"} & set(member.roles):
            yield {"node": member.name}
    elif who == "device":
        if "node" in member.roles:
            yield from ({"stream": stream} for stream in member.streams or ())
    elif who == "camera":
        if who in member.roles and member.streams is not None and "stream" in kind.fields:
            yield from ({"stream": stream} for stream in member.streams)
        elif who in member.roles:
            yield {}
    elif who in member.roles:
        yield {}
