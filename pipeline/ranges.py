"""Ranges of fields that come from outside: bounds, lengths, characters, as types; and the check against them.

A message's frozen dataclass declares its fields with these. `read` holds a plain value against it once, where it
enters; from there on nobody asks again. What this process makes itself is not checked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeAlias, TypeVar

from pydantic import AfterValidator, Field, Strict, StringConstraints, TypeAdapter, ValidationError

from pipeline.errors import TrisectError

T = TypeVar("T")

MOST_SECONDS: Final = 1e6
MOST_RATE: Final = 1e15
MOST_COUNT: Final = 1 << 53
"""Whole numbers above it are not whole in JSON any more."""
MOST_BLOCKS: Final = 10_000
MOST_EPOCH: Final = 10**12
MOST_SEQUENCE: Final = 1 << 53
MOST_ATTEMPT: Final = 10**12
MOST_TEXT: Final = 20_000
MOST_REASON: Final = 2_000
MOST_NODES: Final = 1_024
MOST_STREAMS: Final = 1_024
MOST_RANK: Final = 8
MOST_DEPTH: Final = 8
MOST_MEMBERS: Final = 5_000
ID: Final = r"^[a-z0-9-]{1,128}$"
NAME: Final = r"^[a-z0-9_.-]{1,128}$"

IdRange: Final = StringConstraints(strict=True, pattern=ID)
Id: TypeAlias = Annotated[str, IdRange]
Name: TypeAlias = Annotated[str, StringConstraints(strict=True, pattern=NAME)]
Word: TypeAlias = Annotated[str, StringConstraints(strict=True, pattern=r"^[^\x00-\x1f\x7f-\x9f]{0,256}$")]
"""A label that people gave: any characters of one line."""
Sentence: TypeAlias = Annotated[str, StringConstraints(strict=True, max_length=MOST_TEXT)]
Reason: TypeAlias = Annotated[str, StringConstraints(strict=True, max_length=MOST_REASON)]
TierLabel: TypeAlias = Annotated[str, StringConstraints(strict=True, pattern=r"^(device|edge|cloud)$")]
Label: TypeAlias = Annotated[
    str, StringConstraints(strict=True, pattern=r"^(device|edge|cloud|device_edge|edge_cloud)$")
]
"""Of a tier, or of a link between two."""

Count: TypeAlias = Annotated[int, Strict(), Field(ge=0, le=MOST_COUNT)]
Index: TypeAlias = Annotated[int, Strict(), Field(ge=0, le=10 * MOST_BLOCKS)]
Size: TypeAlias = Annotated[int, Strict(), Field(ge=0, le=1 << 31)]
Extent: TypeAlias = Annotated[int, Strict(), Field(ge=1, le=1 << 20)]
Padding: TypeAlias = Annotated[int, Strict(), Field(ge=-(1 << 20), le=1 << 20)]
Epoch: TypeAlias = Annotated[int, Strict(), Field(ge=1, le=MOST_EPOCH)]
EpochSeen: TypeAlias = Annotated[int, Strict(), Field(ge=0, le=MOST_EPOCH)]
EpochKey: TypeAlias = Annotated[int, Field(ge=1, le=MOST_EPOCH)]
"""An epoch as a key of a JSON object, which is text there."""
Seconds: TypeAlias = Annotated[float, Strict(), Field(ge=0, le=MOST_SECONDS, allow_inf_nan=False)]
Positive: TypeAlias = Annotated[float, Strict(), Field(gt=0, le=MOST_SECONDS, allow_inf_nan=False)]
"""Seconds of what cannot take none."""
Watts: TypeAlias = Annotated[float, Strict(), Field(ge=0, le=1e6, allow_inf_nan=False)]
Difference: TypeAlias = Annotated[float, Strict(), Field(ge=-MOST_SECONDS, le=MOST_SECONDS, allow_inf_nan=False)]
"""Seconds between two nodes' clocks, which may be below 0."""
Sum: TypeAlias = Annotated[float, Strict(), Field(ge=0, le=MOST_SECONDS * MOST_BLOCKS, allow_inf_nan=False)]
"""Seconds of many blocks, or money for them."""
Timestamp: TypeAlias = Annotated[float, Strict(), Field(ge=0, le=1e11, allow_inf_nan=False)]
"""Seconds since 1970."""
Rate: TypeAlias = Annotated[float, Strict(), Field(ge=1e-3, le=MOST_RATE, allow_inf_nan=False)]
Ratio: TypeAlias = Annotated[float, Strict(), Field(ge=1e-3, le=1e6, allow_inf_nan=False)]
Number: TypeAlias = Annotated[float, Strict(), Field(ge=-1e18, le=1e18, allow_inf_nan=False)]


def _plain(value: Any) -> Any:
    members = 0
    waiting = [(value, 0)]
    while waiting:
        held, depth = waiting.pop()
        members += 1
        if members > MOST_MEMBERS or depth > MOST_DEPTH:
            raise ValueError(f"at most {MOST_MEMBERS} values, {MOST_DEPTH} deep")
        if isinstance(held, Mapping):
            waiting += ((part, depth + 1) for pair in held.items() for part in pair)
        elif isinstance(held, list | tuple):
            waiting += ((part, depth + 1) for part in held)
        elif isinstance(held, str) and len(held) > MOST_REASON:
            raise ValueError(f"a text of {len(held)} characters, at most {MOST_REASON}")
        elif isinstance(held, int | float) and not (abs(held) <= MOST_COUNT and math.isfinite(held)):
            raise ValueError(f"numbers are finite and at most {MOST_COUNT}")
    return value


Plain: TypeAlias = Annotated[Mapping[str, Any], AfterValidator(_plain)]
"""Plain JSON values that somebody else reads, bounded in number, depth and length."""


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """The reader of a kind, made at its first use: most processes read few kinds."""
    return _ADAPTERS.get(kind) or _ADAPTERS.setdefault(kind, TypeAdapter(kind))


def read(kind: type[T], value: object, *, error: type[TrisectError], what: str) -> T:
    """The value as one of this kind. Raises `error`, which names the first field that is wrong, and the limit."""
    try:
        made: T = adapter(kind).validate_python(value)
    except ValidationError as wrong:
        raise error(f"not {what}: {explained(wrong)}") from None
    return made


def require_version(value: object, mine: int, *, error: type[TrisectError], what: str) -> None:
    """Raise `error` unless a JSON object is of the version that is read here."""
    version = value.get("version") if isinstance(value, Mapping) else None
    if version is None:
        raise error(f"not a {what}: a JSON object with a version expected, not {_brief(value)}")
    if version != mine or isinstance(version, bool):
        raise error(f"{what} version {_brief(version)}, this trisect reads {mine}")


def explained(wrong: ValidationError) -> str:
    """The first field that is wrong, and what it may be. What it held is foreign and shown in a few characters only."""
    first = wrong.errors(include_url=False, include_context=False)[0]
    parts = [part if isinstance(part, int) or part.isprintable() else repr(part) for part in first["loc"]]
    where = ".".join(f"{part!s:.60}" for part in parts[:MOST_DEPTH]) or "message"
    return f"{where}: {first['msg'][:200]}, not {_brief(first['input'])}"


def _brief(value: object) -> str:
    if isinstance(value, Mapping | list | tuple):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, int) and abs(value) > MOST_COUNT:
        return f"a number of {value.bit_length()} bits"
    return repr(value[:40]) if isinstance(value, str | bytes) else f"{value!r:.40}"
