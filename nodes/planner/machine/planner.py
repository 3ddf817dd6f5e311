"""The planner's machine: from what nodes say of themselves to plans, one per stream, numbered by epoch.

It is off the data path: without it the last plan goes on. It publishes only when there is no plan, when the plan uses a
node that is gone or refuses, when a person asks, or when another plan is better by a margin (hysteresis).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nodes.config.plan_request import PlanRequest
from nodes.planner.machine.agenda import Need
from nodes.planner.machine.events import (
    PlaceRequested,
    PlannerAction,
    PlannerEvent,
    PlanRequested,
    PriceRequested,
)
from nodes.planner.machine.inventory import Inventory
from nodes.planner.machine.lifecycle import decide
from nodes.planner.machine.operator_requests import place_requested, plan_requested
from nodes.planner.machine.pricing import price_requested
from nodes.planner.machine.settings import PlannerSettings
from nodes.planner.machine.solving import is_slow
from nodes.planner.machine.static_costs import StaticCosts
from pipeline.plan import StreamId

__all__ = ["PlannerMachine", "PlannerSettings"]

MOST_PROVED = {Need.URGENT: 4, Need.CHANGED: 16}
"""Streams that may wait so before quick plans are made: those that are proved take up to a tenth of a second."""


REST = 9.0
"""A stream rests for so many times what its decision took, and so do words of all: they have a tenth of a processor at
most.
"""


class PlannerMachine:
    """`handle(event, now, wall_ts)` returns the actions to perform; `now` only advances, `wall_ts` stamps plans.

    `processor_s` is a clock of what the calling thread has had of a processor, in seconds.
    """

    def __init__(
        self,
        settings: PlannerSettings,
        *,
        started_at: float,
        static_costs: StaticCosts | None = None,
        plan_requests: Mapping[StreamId, PlanRequest] | None = None,
        processor_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._processor_s = processor_s
        self.inventory = Inventory(
            settings, started_at=started_at, static_costs=static_costs, plan_requests=plan_requests
        )

    def handle(
        self, event: PlannerEvent, now: float, wall_ts: float, *, more_wait: bool = False
    ) -> list[PlannerAction]:
        """Take one event and decide for every stream that it touches; if more events wait, the last of them decides."""
        actions = self.learn(event, now, wall_ts, more_wait=more_wait)
        while not more_wait and (decided := self.decide_next(now, wall_ts)) is not None:
            actions += decided
        return actions

    def learn(self, event: PlannerEvent, now: float, wall_ts: float, *, more_wait: bool = False) -> list[PlannerAction]:
        """Take one event, and note which streams have to be looked at. A person's request is decided at once."""
        inventory = self.inventory
        inventory.now = now
        inventory.agenda.ring(now)
        if isinstance(event, PlaceRequested):
            return place_requested(inventory, event, now, wall_ts)
        if isinstance(event, PlanRequested):
            return plan_requested(inventory, event, now, wall_ts)
        if isinstance(event, PriceRequested):
            return price_requested(inventory, event, wall_ts)
        return inventory.learn(event, now, more_wait=more_wait)

    def decide_next(self, now: float, wall_ts: float) -> list[PlannerAction] | None:
        """Decide for the stream that is needed most; None when none has to be looked at, or not yet.

        Where many wait, plans are not compared with others at first; and where proofs take long, each gets a quick plan
        first, and a proved one when nothing else waits.
        """
        inventory = self.inventory
        inventory.now = max(inventory.now, now)
        found = inventory.agenda.next(now) if now >= inventory.decide_after else None
        if found is None:
            return None
        name, need = found
        stream = inventory.streams.get(name)
        if stream is None:
            return []
        many_wait = need in MOST_PROVED and inventory.agenda.waiting(need) >= MOST_PROVED[need]
        quick = many_wait and is_slow(inventory, stream)
        began = self._processor_s()
        try:
            has_time = need in (Need.UNPROVED, Need.WORDS)
            return decide(inventory, name, stream, now, wall_ts, quick=quick, brief=many_wait, has_time=has_time)
        finally:
            rested_at = now + REST * (self._processor_s() - began)
            inventory.agenda.rest(name, rested_at)
            if need is Need.WORDS:
                inventory.agenda.rest_words(rested_at)

    def validate(self) -> None:
        """Assert what always holds."""
        self.inventory.validate()
