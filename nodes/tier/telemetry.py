"""A tier node's telemetry: one flat report of what its parts measured and counted."""

from __future__ import annotations

import math
from typing import Any

from nodes.protocol.reports import stream_metric
from nodes.session.direct import Direct
from nodes.session.link_monitor import LinkWatch
from nodes.session.presence import Presence
from nodes.tier.machine.tier import TierMachine
from nodes.tier.meter import Meter

MOST_EARLY = 2
"""Reports ahead of time in a row; each one on time allows one more."""
EARLY_SHARE = 0.25
"""Of the interval, between two reports."""


class ReportSchedule:
    """Moments of reports: on a grid and, so that planners follow changes at once, a few ahead of it.

    Where everything is news all the time, there are twice as many reports.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s, self._next_at, self._reported_at, self._left = interval_s, 0.0, -math.inf, MOST_EARLY

    def is_due(self, now: float, *, has_news: bool) -> bool:
        """True when a report has to be sent now, which is counted as sent."""
        if now >= self._next_at:
            # on a grid: a report that is a tick late does not make all later ones late
            self._next_at = max(self._next_at + self._interval_s, now)
            self._left = min(self._left + 1, MOST_EARLY)
        elif has_news and self._left and now >= self._reported_at + EARLY_SHARE * self._interval_s:
            self._left -= 1
        else:
            return False
        self._reported_at = now
        return True


def report(
    machine: TierMachine,
    meter: Meter,
    presence: Presence,
    direct: Direct,
    watch: LinkWatch,
    *,
    queue_depth: int,
    internal_errors: int,
) -> dict[str, Any]:
    """The report since the last one; `queue_depth` counts pieces of work that wait to be computed."""
    owners, session = machine.owners, presence.session
    return {
        **meter.report(),
        **presence.clock.report(),
        **watch.report(),
        "refused_total": presence.border.total + session.refused_total + direct.refused_total,
        "missed_messages_total": session.missed_total,
        "internal_errors_total": internal_errors,
        "in_flight": machine.open_frames,
        "backlog": sum(len(owner.backlog) for owner in owners.values()),
        **{stream_metric(name, "in_flight"): len(owner.open) for name, owner in owners.items()},
        **{stream_metric(name, "backlog"): len(owner.backlog) for name, owner in owners.items()},
        "queue_depth": queue_depth,
        "sent_bytes_total": session.sent_bytes_total + direct.sent_bytes_total,
        "received_bytes_total": session.received_bytes_total + direct.received_bytes_total,
        "queued_bytes": session.queued_bytes,
        "reconnects_total": session.reconnects_total,
        **direct.report(),
        **presence.certificate_report(),
    }
