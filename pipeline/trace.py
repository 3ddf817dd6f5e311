"""What nodes did for a frame, hop by hop, as messages carry it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

from pipeline import wire_fields
from pipeline.ranges import MOST_SECONDS

MAX_HOPS = 16
_MOST_TS = 1e11


@dataclass(frozen=True, slots=True)
class Hop:
    """What one node did for a frame, in seconds on its own clock; `*_ts` are seconds since 1970.

    `arrived_ts` is when the last input was whole, `sent_ts` when the first chunk of the output was made. While a node
    was compiling (`is_compiling`), what it took is not what it usually takes.
    """

    node: str
    tier: str
    arrived_ts: float
    decode_seconds: float = 0.0
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    encode_seconds: float = 0.0
    sent_ts: float = 0.0
    is_compiling: bool = False


Trace: TypeAlias = tuple[Hop, ...]


def pack_trace(trace: Trace, encode_seconds: float) -> list[list[Any]]:
    """As a header has it, with the seconds that the last hop's node took to encode."""
    if trace:
        trace = (*trace[:-1], replace(trace[-1], encode_seconds=encode_seconds))
    return [list(asdict(hop).values()) for hop in trace]


def read_trace(value: Any) -> Trace:
    """The hops of a header. Raises TypeError or ValueError for what is no trace."""
    if len(value) > MAX_HOPS:
        raise ValueError(f"a trace of {len(value)} hops, at most {MAX_HOPS}")
    return tuple(_read_hop(*hop) for hop in value)


def _read_hop(node: Any, tier: Any, *numbers: Any) -> Hop:
    *timestamps, is_compiling = numbers
    arrived, decode, queue, compute, encode, sent = timestamps
    arrived_ts = wire_fields.number("arrived_ts", arrived, _MOST_TS)
    took = [wire_fields.number("seconds of a hop", number, MOST_SECONDS) for number in (decode, queue, compute, encode)]
    sent_ts = wire_fields.number("sent_ts", sent, _MOST_TS)
    name, label = wire_fields.identifier("node of a hop", node), wire_fields.text("tier", tier)
    return Hop(name, label, arrived_ts, took[0], took[1], took[2], took[3], sent_ts, is_compiling is True)
