"""What `trisect doctor` looks at on the way to the broker: each address, encryption, times, and limits."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from broker.errors import BrokerError
from broker.examination import Seen, examine
from nodes.config.credentials import WARN_DAYS
from nodes.config.sections import Config
from nodes.doctor.findings import Finding, ok, warning, wrong
from nodes.session.packet_limit import takes_larger_frames
from nodes.session.presence import address_of
from pipeline.wire import HEADER_LIMIT_BYTES

DAY_S: Final = 86_400
LEAST_IN_FLIGHT: Final = 16
LEAST_SESSION_S: Final = 120


def look(config: Config, *, timeout_s: float) -> Iterator[Finding]:
    """Findings on each address of the broker, and on the limits of the first that answers."""
    address = address_of(config)
    answered: Seen | None = None
    for host, port in address.endpoints:
        one = replace(address, host=host, port=port, alternatives=())
        # a random end, so that nobody's session is taken
        client_id = f"trisect.{config.pipeline}.doctor-{secrets.token_hex(8)}"
        try:
            seen = examine(one, client_id, timeout_s=timeout_s)
        except BrokerError as error:
            level = warning if answered is not None or len(address.endpoints) > 1 else wrong
            yield level(
                "address", f"{host}:{port}: {error}", "start the broker, open the port on the way, or correct it"
            )
            continue
        answered = answered or seen
        encrypted = seen.tls or "not encrypted"
        yield ok("address", f"{host}:{port} answers in {seen.connect_s * 1e3:.1f} ms, {encrypted}, MQTT 5")
        yield from _certificate(seen)
    if answered is None:
        yield wrong("broker", "no address of it answers", "see above; is this machine on the right network?")
        return
    yield ok("broker", f"{answered.host}:{answered.port} lets this member in")
    yield from _limits(answered, config)


def _certificate(seen: Seen) -> Iterator[Finding]:
    if seen.certificate_ends is None:
        return
    days = (seen.certificate_ends - time.time()) / DAY_S
    text = f"the broker's ends in {days:.0f} days"
    if days < WARN_DAYS:
        yield warning("certificate", text, "trisect renew broker, and give the broker's machine its folder again")
    else:
        yield ok("certificate", text)


def _limits(seen: Seen, config: Config) -> Iterator[Finding]:
    chunk_bytes = config.transport.chunk_bytes
    needed, limit = chunk_bytes + HEADER_LIMIT_BYTES, seen.max_packet_bytes
    if limit is not None and limit < needed:
        remedy = f"raise max_packet_size there, or set transport.chunk_bytes to {limit - HEADER_LIMIT_BYTES:,} or less"
        yield wrong("packets", f"at most {limit:,} bytes, and chunks need {needed:,}", remedy)
    else:
        text = f"at most {limit:,} bytes" if limit is not None else "without a limit"
        doubt = takes_larger_frames(limit)
        yield ok("packets", text) if doubt is None else warning("packets", text, doubt)
    if seen.receive_maximum < LEAST_IN_FLIGHT:
        text = f"{seen.receive_maximum} messages in flight, so that tensors wait for acknowledgements"
        yield warning("in flight", text, "raise max_inflight_messages there to 64")
    else:
        yield ok("in flight", f"{seen.receive_maximum:,} messages")
    if not seen.retains or not seen.matches_wildcards:
        missing = "retained messages" if not seen.retains else "wildcards in subscriptions"
        yield wrong(
            "broker", f"it does not have {missing}, which trisect needs", "switch them on, or use another broker"
        )
    if seen.session_expiry_s is not None and seen.session_expiry_s < LEAST_SESSION_S:
        text = f"it forgets absent clients after {seen.session_expiry_s} s"
        yield warning("sessions", text, "raise its limit: what is published while a device restarts is lost sooner")
