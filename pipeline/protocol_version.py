"""The version of all that processes tell each other: topics, keys of messages and plans, headers of tensors.

Raised with every change of these. A message of another version is refused where it enters, so that processes of two
versions never half understand each other.
"""

from __future__ import annotations

from pipeline.errors import TrisectError

PROTOCOL_VERSION = 9
_UNSAID = "2 or earlier"
"""Versions that JSON messages did not carry."""


def require_protocol(version: object, *, error: type[TrisectError], what: str) -> None:
    """Raise `error`, which names both versions, unless `what` is of the version that is spoken here.

    `version` is what the message carries, None for nothing.
    """
    if version != PROTOCOL_VERSION or isinstance(version, bool):
        theirs = _UNSAID if version is None else f"{version!r:.20}"
        raise error(
            f"{what} of protocol version {theirs}, this trisect speaks {PROTOCOL_VERSION}; run one version everywhere"
        )
