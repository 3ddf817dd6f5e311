"""What an enrolled member of a pipeline has to show to its broker. No behaviour but the time that is left."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Final

WARN_DAYS: Final = 30
"""Before a certificate ends, so long it is mentioned."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Of one member; certificates and key are PEM.

    Attributes:
        name: a node's id, the planner's, or the name of a person or camera.
        secret: ends the client ids, which nobody else can guess then.
        expires: when the certificate ends.
    """

    name: str
    roles: tuple[str, ...]
    expires: datetime
    authority: str
    certificate: str
    key: str = field(repr=False)
    secret: str = field(repr=False)

    def seconds_left(self, now: datetime | None = None) -> float:
        """Seconds until the certificate ends; negative when it has."""
        return (self.expires - (now or datetime.now(timezone.utc))).total_seconds()

    def warning(self, now: datetime | None = None) -> str | None:
        """A sentence for the log from `WARN_DAYS` before the end on; None earlier."""
        left_s = self.seconds_left(now)
        if left_s > timedelta(days=WARN_DAYS).total_seconds():
            return None
        when = f"{self.expires:%Y-%m-%d %H:%M} UTC"
        renew = f"make another with `trisect renew {self.name}`, and put it in this one's place"
        if left_s <= 0:
            return f"the certificate of {self.name} ended on {when}: {renew}; or is this machine's clock wrong?"
        return f"the certificate of {self.name} ends on {when}, in {left_s / 86_400:.0f} days: {renew}"
