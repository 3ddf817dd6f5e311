"""How large a tensor's chunks are: as configured, or smaller, as the broker takes them."""

from __future__ import annotations

import logging

from broker import topics
from broker.session import Session
from broker.topics import LARGEST_PACKET
from nodes.config.transport_section import TransportSection
from pipeline.errors import ConfigError
from pipeline.wire import HEADER_LIMIT_BYTES, LEAST_CHUNK_BYTES

_log = logging.getLogger(__name__)


def chunk_bytes(transport: TransportSection, session: Session) -> int:
    """Bytes of a chunk that the broker takes at present, with its header; at most what is configured."""
    limit = session.max_packet_bytes
    if limit is None:
        return transport.chunk_bytes
    return max(LEAST_CHUNK_BYTES, min(transport.chunk_bytes, limit - HEADER_LIMIT_BYTES))


def check_packet_limit(session: Session) -> None:
    """Raise ConfigError when the broker takes packets so small that no chunk fits into one."""
    limit, least = session.max_packet_bytes, LEAST_CHUNK_BYTES + HEADER_LIMIT_BYTES
    if limit is not None and limit < least:
        raise ConfigError(
            f"the broker at {session.address} accepts {limit:,} bytes in a packet; a tensor's chunk and its header "
            f"need {least:,}: raise max_packet_size there"
        )
    if (doubt := takes_larger_frames(session.max_packet_bytes)) is not None:
        _log.warning("the broker at %s: %s", session.address, doubt)


def takes_larger_frames(limit: int | None) -> str | None:
    """What becomes of frames above the topics' limit at a broker that takes larger ones; None where it refuses them."""
    if limit is not None and limit <= LARGEST_PACKET:
        return None
    return (
        f"it takes frames above {topics.FRAME.max_bytes:,} bytes, which cross the device's line before it answers that "
        f"they are too large; set max_packet_size {LARGEST_PACKET} there, and it refuses them at once"
    )
