"""What a pipeline says of itself during a load test: the stream's plan, and the device's own count of results."""

from __future__ import annotations

import threading
import time
from collections import deque
from types import TracebackType
from typing import Any, Final

from broker import topics
from broker.session import Message
from broker.topics import Namespace
from nodes.config.sections import Config
from nodes.protocol.border import Border
from nodes.protocol.messages import MessageError, parse_json
from nodes.protocol.reports import stream_metric
from nodes.session.presence import guest_session
from pipeline.plan import StreamId

CONNECT_WAIT_S: Final = 10.0
PLAN_WAIT_S: Final = 2.0
_REPORTS: Final = 10_000
_PLANS: Final = 64


class Observed:
    """Listens while it is entered. `plans` are the JSON of plans that came, by epoch, the newest last."""

    def __init__(self, config: Config, stream: StreamId) -> None:
        names = Namespace(config.pipeline)
        self._stream = stream
        self._border = Border(names)
        self._session = guest_session(config, "load")
        self._has_plan = threading.Event()
        self._reports: deque[tuple[float, float, float]] = deque(maxlen=_REPORTS)
        self.plans: dict[int, dict[str, Any]] = {}
        device = config.streams[stream].device
        self._session.subscribe([names.topic(topics.PLAN, stream=stream)], self._on_plan)
        self._session.subscribe([names.topic(topics.TELEMETRY, node=device)], self._on_report, qos=0)

    def __enter__(self) -> Observed:
        self._session.start(CONNECT_WAIT_S)
        self._has_plan.wait(PLAN_WAIT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.stop()

    def mark(self) -> None:
        """Forget the reports that have come so far."""
        self._reports.clear()

    def rate(self, began_at: float, ended_at: float) -> dict[str, float | None]:
        """The device's own results a second, between its first and its last report of an interval.

        By the device's clock and counter. None before two reports of one process.
        """
        within = [(ts, total) for at, ts, total in self._reports if began_at <= at <= ended_at]
        if len(within) < 2 or within[-1][0] <= within[0][0] or within[-1][1] < within[0][1]:  # noqa: PLR2004
            return {"frames_per_second": None, "seconds": None}
        (first_ts, first), (last_ts, last) = within[0], within[-1]
        seconds = last_ts - first_ts
        return {"frames_per_second": round((last - first) / seconds, 6), "seconds": round(seconds, 6)}

    def _on_plan(self, message: Message) -> None:
        if self._border.read(message) is not None:
            plan = parse_json(message.payload)
            self.plans.pop(plan["epoch"], None)
            self.plans[plan["epoch"]] = plan
            while len(self.plans) > _PLANS:
                del self.plans[next(iter(self.plans))]
            self._has_plan.set()

    @property
    def plan(self) -> dict[str, Any] | None:
        """The newest plan, None before one has come."""
        plans = [*self.plans.values()]
        return plans[-1] if plans else None

    def _on_report(self, message: Message) -> None:
        try:
            report = parse_json(message.payload)
        except MessageError as error:
            self._border.refuse(message.topic, str(error))
            return
        ts, total = report.get("ts"), report.get(stream_metric(self._stream, "results_total"), 0)
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in (ts, total)):
            self._reports.append((time.monotonic(), float(ts or 0.0), float(total)))
